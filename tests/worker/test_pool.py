from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from warmwire.worker.pool import (
    EMULATOR_MB,
    LEAST_EMULATOR_TURNS,
    LONGEST_PAUSE,
    READY_WITHIN,
    REAL_MB,
    SETTLE,
    TURNS_PER_CORE,
    Abilities,
    Adopt,
    Freeze,
    Held,
    KillSpare,
    Limits,
    Need,
    Own,
    Park,
    Service,
    Spare,
    Spawn,
    SpawnSpare,
    Tier,
    Use,
    View,
    limits,
    serve,
    upkeep,
)

NOW = 1000.0
ALL = Abilities(adopt=True, set_model=True)
NONE = Abilities()
AMPLE = Limits(
    turns=10, sessions=10, spares=0, freeze_after=60, park_after=600, reserve_mb=100, process_mb=50
)


def held(key: str, idle: float = 0.0, tier: Tier = Tier.WARM, *, in_flight: bool = False) -> Held[str]:
    return Held(key, tier, NOW - idle, in_flight)


def spare(number: int, age: float = 1.0, profile: str = "p", **state: bool) -> Spare:
    return Spare(number, profile, NOW - age, **{"ready": True, **state})


def kept(limit: Limits = AMPLE, **seen: Any) -> list[Any]:
    return upkeep(View(NOW, **{"profiles": ["p"], **seen}), limit)


# --- limits ----------------------------------------------------------------------------------------------


def test_what_is_configured_holds() -> None:
    found = limits(7, 20, emulated=False, cores=2, memory_mb=8000)
    assert (7, 20) == (found.turns, found.sessions)


def test_as_many_sessions_as_turns_at_least() -> None:
    found = limits(7, 3, emulated=False, cores=2, memory_mb=8000)
    assert (7, 7) == (found.turns, found.sessions)


def test_a_worker_carries_its_emulator_turns_on_any_machine() -> None:
    small = limits(None, None, emulated=True, cores=1, memory_mb=64)
    assert LEAST_EMULATOR_TURNS == small.turns == small.sessions


def test_emulators_are_held_in_half_the_memory() -> None:
    assert 8000 // 2 // EMULATOR_MB == limits(None, None, emulated=True, cores=2, memory_mb=8000).sessions


def test_real_turns_follow_the_cores() -> None:
    assert 2 * TURNS_PER_CORE == limits(None, None, emulated=False, cores=2, memory_mb=10**6).turns


def test_real_turns_follow_the_memory_where_that_is_less() -> None:
    assert 8000 // 2 // REAL_MB == limits(None, None, emulated=False, cores=64, memory_mb=8000).turns


def test_as_many_real_processes_start_at_a_time_as_there_are_cores() -> None:
    assert 3 == limits(None, None, emulated=False, cores=3, memory_mb=8000).starting


@pytest.mark.parametrize("emulated", [True, False])
def test_the_smallest_machine_carries_one_turn(emulated: bool) -> None:
    found = limits(None, None, emulated=emulated, cores=1, memory_mb=1)
    assert found.turns >= 1
    assert found.sessions >= found.turns
    assert found.starting >= 1


# --- a turn needs a process ------------------------------------------------------------------------------

NEW, PAST = Need("p", "m", new=True), Need("p", "m", new=False)


@pytest.mark.parametrize(
    ("rule", "need", "own", "spares", "can", "service"),
    [
        ("1 its own process", PAST, Own("m"), [spare(1)], ALL, Use()),
        ("1 also where the CLI can do nothing late", PAST, Own("m"), [], NONE, Use()),
        ("1 also with the default model", replace(PAST, model=None), Own(None), [], NONE, Use()),
        ("2 another model is told", PAST, Own("n"), [spare(1)], ALL, Use(set_model=True)),
        ("2 so is the default one", replace(PAST, model=None), Own("n"), [], ALL, Use(set_model=True)),
        ("3 another model costs a spawn", PAST, Own("n"), [spare(1)], NONE, Spawn()),
        ("4 a new conversation adopts", NEW, None, [spare(1)], ALL, Adopt(1)),
        ("4 what is ready longest", NEW, None, [spare(1, 5), spare(2, 9), spare(3, 7)], ALL, Adopt(2)),
        ("4 ready before older", NEW, None, [spare(1, 9, ready=False), spare(2)], ALL, Adopt(2)),
        ("4 a dead one is passed over", NEW, None, [spare(1, 9, ended=True), spare(2)], ALL, Adopt(2)),
        ("4 of its own profile", NEW, None, [spare(1, 9, profile="q"), spare(2)], ALL, Adopt(2)),
        ("5 what began first", NEW, None, [spare(1, ready=False), spare(2, 3, ready=False)], ALL, Adopt(2)),
        ("6 no spare", NEW, None, [], ALL, Spawn()),
        ("6 only dead ones", NEW, None, [spare(1, ended=True)], ALL, Spawn()),
        ("6 only of another profile", NEW, None, [spare(1, profile="q")], ALL, Spawn()),
        ("6 a conversation is resumed", PAST, None, [spare(1)], ALL, Spawn()),
        ("6 a CLI that cannot be told late", NEW, None, [spare(1)], NONE, Spawn()),
    ],
)
def test_how_a_turn_gets_its_process(
    rule: str, need: Need, own: Own | None, spares: list[Spare], can: Abilities, service: Service
) -> None:
    assert service == serve(need, own, spares, can), rule


# --- upkeep: sessions ------------------------------------------------------------------------------------

TWO = replace(AMPLE, sessions=2)


@pytest.mark.parametrize(
    ("rule", "limit", "seen", "work"),
    [
        ("nothing to do", AMPLE, {"sessions": [held("a")]}, []),
        ("1 the limit is allowed", TWO, {"sessions": [held("a"), held("b")]}, []),
        (
            "1 the surplus, least recently finished first",
            TWO,
            {"sessions": [held("a", 2), held("b", 4), held("c", 1), held("d", 3)]},
            [Park("b"), Park("d")],
        ),
        (
            "1 never one in flight, whenever it finished last",
            TWO,
            {"sessions": [held("a", 99, in_flight=True), held("b", 1), held("c", 2)]},
            [Park("c")],
        ),
        (
            "1 all in flight: nobody goes",
            TWO,
            {"sessions": [held(key, in_flight=True) for key in "abc"]},
            [],
        ),
        (
            "1 a session on its way has its slot",
            TWO,
            {"sessions": [held("a", 2), held("b", 1)], "claiming": 1},
            [Park("a")],
        ),
        ("1 the frozen count too", TWO, {"sessions": [held(k, 9, Tier.FROZEN) for k in "abc"]}, [Park("a")]),
        (
            "2 memory is short by less than a process",
            AMPLE,
            {"sessions": [held("a", 1), held("b", 2)], "memory_left_mb": 99},
            [Park("b")],
        ),
        (
            "2 memory is short by more",
            AMPLE,
            {"sessions": [held(k, i) for i, k in enumerate("abcd")], "memory_left_mb": 49},
            [Park("d"), Park("c")],
        ),
        (
            "2 not while a turn runs",
            AMPLE,
            {"sessions": [held("a", in_flight=True)], "memory_left_mb": 0},
            [],
        ),
        ("2 enough is left", AMPLE, {"sessions": [held("a")], "memory_left_mb": 100}, []),
        ("3 idle for long", AMPLE, {"sessions": [held("a", 600), held("b", 59)]}, [Park("a")]),
        ("3 frozen for long", AMPLE, {"sessions": [held("a", 600, Tier.FROZEN)]}, [Park("a")]),
        ("3 in flight for long", AMPLE, {"sessions": [held("a", 600, in_flight=True)]}, []),
        ("4 idle for a while", AMPLE, {"sessions": [held("a", 60), held("b", 59)]}, [Freeze("a")]),
        ("4 in flight for a while", AMPLE, {"sessions": [held("a", 60, in_flight=True)]}, []),
        ("4 frozen once", AMPLE, {"sessions": [held("a", 60, Tier.FROZEN)]}, []),
        ("4 not without a process", AMPLE, {"sessions": [held("a", 60, Tier.PARKED)]}, []),
    ],
)
def test_what_becomes_of_sessions(rule: str, limit: Limits, seen: dict[str, Any], work: list[Any]) -> None:
    assert work == kept(limit, **seen), rule


# --- upkeep: spares --------------------------------------------------------------------------------------

ONE = replace(AMPLE, spares=1, starting=2)
MANY = replace(AMPLE, spares=5, starting=2)


@pytest.mark.parametrize(
    ("rule", "limit", "seen", "work"),
    [
        (
            "5 a dead one, and its successor",
            ONE,
            {"spares": [spare(1, ended=True)]},
            [KillSpare(1), SpawnSpare("p")],
        ),
        ("5 one that hangs", AMPLE, {"spares": [spare(1, READY_WITHIN + 1, ready=False)]}, [KillSpare(1)]),
        ("5 not one that starts", ONE, {"spares": [spare(1, READY_WITHIN - 1, ready=False)]}, []),
        ("6 memory is short", ONE, {"spares": [spare(1), spare(2)], "memory_left_mb": 0}, [KillSpare(1)]),
        (
            "6 sessions are parked before",
            ONE,
            {"sessions": [held("a")], "spares": [spare(1)], "memory_left_mb": 99},
            [Park("a")],
        ),
        ("7 one is missing", ONE, {}, [SpawnSpare("p")]),
        ("7 none is wanted", AMPLE, {}, []),
        ("7 none is missing", ONE, {"spares": [spare(1)]}, []),
        ("7 one that starts is not missing", ONE, {"spares": [spare(1, ready=False)]}, []),
        (
            "7 for each profile",
            ONE,
            {"profiles": ["p", "q"], "spares": [spare(1)]},
            [SpawnSpare("q")],
        ),
        ("7 for no profile, if the CLI cannot be told late", ONE, {"profiles": []}, []),
        ("7 as many as may start", MANY, {}, [SpawnSpare("p")] * 2),
        ("7 others that start count", MANY, {"starting": 1}, [SpawnSpare("p")]),
        ("7 all cores are busy with starts", MANY, {"starting": 3}, []),
        ("7 not right after an adoption", ONE, {"adopted_at": NOW - SETTLE / 2}, []),
        ("7 a little later", ONE, {"adopted_at": NOW - 2 * SETTLE}, [SpawnSpare("p")]),
        ("7 not while memory is short", ONE, {"memory_left_mb": 99}, []),
        ("7 not at once after a failure", ONE, {"failed": 1, "failed_at": NOW - 1.9}, []),
        ("7 but after a pause", ONE, {"failed": 1, "failed_at": NOW - 2}, [SpawnSpare("p")]),
        ("7 that grows", ONE, {"failed": 4, "failed_at": NOW - 15}, []),
        ("7 to its limit", ONE, {"failed": 5000, "failed_at": NOW - LONGEST_PAUSE}, [SpawnSpare("p")]),
        ("7 beside the sessions", replace(ONE, sessions=1), {"sessions": [held("a")]}, [SpawnSpare("p")]),
    ],
)
def test_what_becomes_of_spares(rule: str, limit: Limits, seen: dict[str, Any], work: list[Any]) -> None:
    assert work == kept(limit, **seen), rule


def test_no_two_things_happen_to_one_session() -> None:
    sessions = [held("a", 700), held("b", 65), held("c", 61)]
    assert [Park("a"), Park("b"), Freeze("c")] == kept(
        replace(AMPLE, sessions=1, park_after=700), sessions=sessions
    )[:3]
