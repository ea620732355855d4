from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from warmwire.worker.cli.dialect import Abilities
from warmwire.worker.pool.policy import (
    EMULATOR_MB,
    LEAST_EMULATOR_TURNS,
    LONGEST_PAUSE,
    READY_WITHIN,
    REAL_MB,
    RECENT,
    RESERVE,
    SETTLE,
    TURNS_PER_CORE,
    Adopt,
    Arrivals,
    Freeze,
    KillSpare,
    Limits,
    Load,
    Need,
    Own,
    Park,
    Service,
    Session,
    Spare,
    Spawn,
    SpawnSpare,
    Tier,
    Use,
    View,
    fitted,
    limits,
    room,
    serve,
    spares_for,
    upkeep,
)

NOW = 1000.0
ALL = Abilities(adopt=True, set_model=True)
NONE = Abilities()
AMPLE = Limits(turns=10, sessions=10, freeze_after=60, park_after=600, reserve_mb=100, process_mb=50)


def held(key: str, idle: float = 0.0, tier: Tier = Tier.WARM, *, in_flight: bool = False) -> Session[str]:
    return Session(key, tier, NOW - idle, in_flight)


def spare(number: int, age: float = 1.0, profile: str = "p", **state: bool) -> Spare:
    return Spare(number, profile, NOW - age, **{"ready": True, **state})


def kept(limit: Limits = AMPLE, **seen: Any) -> list[Any]:
    return upkeep(View(NOW, **seen), limit)


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
    rest = 2 * EMULATOR_MB - 1  # not enough for one more
    found = limits(None, None, emulated=True, cores=2, memory_mb=800 * EMULATOR_MB + rest)
    assert 400 == found.sessions


def test_real_turns_follow_the_cores() -> None:
    assert 2 * TURNS_PER_CORE == limits(None, None, emulated=False, cores=2, memory_mb=10**6).turns


@pytest.mark.parametrize(
    ("cores", "turns", "starting"), [(1.5, 37, 1), (0.5, 12, 1), (0.01, 1, 1), (2.5, 62, 2)]
)
def test_a_part_of_a_core_carries_its_part_of_the_turns(cores: float, turns: int, starting: int) -> None:
    found = limits(None, None, emulated=False, cores=cores, memory_mb=10**6)
    assert (turns, turns, starting) == (found.turns, found.turns_by_cores, found.starting)


def test_real_turns_follow_the_memory_where_that_is_less() -> None:
    assert 8000 // 2 // REAL_MB == limits(None, None, emulated=False, cores=64, memory_mb=8000).turns


def test_as_many_real_processes_start_at_a_time_as_there_are_cores() -> None:
    assert 3 == limits(None, None, emulated=False, cores=3, memory_mb=8000).starting


def test_an_emulators_limits_are_those_of_many_small_processes() -> None:
    assert Limits(
        LEAST_EMULATOR_TURNS,
        max(LEAST_EMULATOR_TURNS, 4000 // EMULATOR_MB),
        starting=12,
        reserve_mb=8001 // RESERVE,
        process_mb=EMULATOR_MB,
        memory_mb=4000,
        turns_by_cores=None,
    ) == limits(None, None, emulated=True, cores=3, memory_mb=8001)


@pytest.mark.parametrize("emulated", [True, False])
def test_the_smallest_machine_carries_one_turn(emulated: bool) -> None:
    found = limits(None, None, emulated=emulated, cores=1, memory_mb=1)
    assert found.turns >= 1
    assert found.sessions >= found.turns
    assert found.starting >= 1


def test_measured_processes_make_room_or_take_it() -> None:
    found = limits(None, None, emulated=False, cores=64, memory_mb=8000)
    assert (4000 // REAL_MB, 4000 // REAL_MB) == (found.sessions, found.turns)
    assert (40, 40, 100) == numbers(fitted(found, 100))
    assert (10, 10, 400) == numbers(fitted(found, 400))
    assert (1, 1, 9000) == numbers(fitted(found, 9000))


def numbers(found: Limits) -> tuple[int, int, int]:
    return found.sessions, found.turns, found.process_mb


def test_however_small_processes_are_the_cores_carry_no_more_turns() -> None:
    found = fitted(limits(None, None, emulated=False, cores=2, memory_mb=8000), 10)
    assert (400, 2 * TURNS_PER_CORE) == (found.sessions, found.turns)


def test_what_is_configured_holds_whatever_is_measured() -> None:
    assert (20, 7, 1000) == numbers(fitted(limits(7, 20, emulated=False, cores=2, memory_mb=8000), 1000))


@pytest.mark.parametrize("nothing", [None, 0])
def test_as_long_as_nothing_is_measured_nothing_changes(nothing: int | None) -> None:
    assert AMPLE == fitted(AMPLE, nothing)


@pytest.mark.parametrize(
    ("rule", "load", "more"),
    [
        ("1 to the limit", Load(3, 0), 7),
        ("1 what has been pulled has its slot", Load(3, 2), 5),
        ("1 never less than none", Load(12, 0), 0),
        ("2 memory is ample", Load(3, 0, memory_left_mb=10_000), 7),
        ("2 two more processes fit", Load(3, 0, memory_left_mb=100 + 2 * 50 + 49), 2),
        ("2 idle processes need no more", Load(3, 0, idle=3, memory_left_mb=99), 3),
        ("2 what has been pulled has its memory", Load(3, 2, memory_left_mb=100 + 3 * 50), 1),
        ("2 none fits", Load(3, 0, memory_left_mb=99), 0),
        ("3 one, if nothing runs", Load(0, 0, memory_left_mb=0), 1),
        ("3 that is on its way already", Load(0, 1, memory_left_mb=0), 0),
    ],
)
def test_room(rule: str, load: Load, more: int) -> None:
    assert more == room(load, AMPLE), rule


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


# --- how many spares -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "rate", "seconds", "least", "most", "many"),
    [
        ("nobody comes", 0.0, 0.4, 1, 8, 1),
        ("nobody comes, and several are wanted", 0.0, 0.4, 3, 8, 3),
        ("as many as begin while one becomes ready", 10.0, 0.4, 1, 8, 4),
        ("any part of one is one", 10.0, 0.41, 1, 8, 5),
        ("not more than may be", 100.0, 0.4, 1, 8, 8),
        ("never fewer than the least", 100.0, 0.4, 9, 8, 9),
        ("where none are wanted there are none", 100.0, 0.4, 0, 8, 0),
        ("before one has been ready", 100.0, 0.0, 1, 8, 1),
    ],
)
def test_spares_follow_the_rate(
    rule: str, rate: float, seconds: float, least: int, most: int, many: int
) -> None:
    assert many == spares_for(rate, seconds, least, most), rule


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    arrivals = Arrivals()
    assert 0.0 == arrivals.rate(NOW)
    for tenth in range(3000):
        arrivals.add(NOW + tenth / 10)
    assert 10.0 == pytest.approx(arrivals.rate(NOW + 300), rel=0.01)
    assert 10.0 / 2.718 == pytest.approx(arrivals.rate(NOW + 300 + RECENT), rel=0.01)
    assert 0.01 > arrivals.rate(NOW + 600)


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
        (
            "2 what is on its way will take its memory",
            AMPLE,
            {"sessions": [held("a", 1), held("b", 2)], "memory_left_mb": 149, "claiming": 1},
            [Park("b")],
        ),
        (
            "2 so will what starts",
            AMPLE,
            {"sessions": [held("a")], "memory_left_mb": 149, "starting": 1},
            [Park("a")],
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

ONE = replace(AMPLE, starting=2)
NONE_WANTED: dict[str, Any] = {"wanted": {}}
MANY: dict[str, Any] = {"wanted": {"p": 5}}


@pytest.mark.parametrize(
    ("rule", "limit", "seen", "work"),
    [
        (
            "5 a dead one, and its successor",
            ONE,
            {"spares": [spare(1, ended=True)]},
            [KillSpare(1), SpawnSpare("p")],
        ),
        (
            "5 one that hangs",
            AMPLE,
            {**NONE_WANTED, "spares": [spare(1, READY_WITHIN + 1, ready=False)]},
            [KillSpare(1)],
        ),
        ("5 not one that starts", ONE, {"spares": [spare(1, READY_WITHIN - 1, ready=False)]}, []),
        ("6 memory is short", ONE, {"spares": [spare(1), spare(2)], "memory_left_mb": 0}, [KillSpare(1)]),
        (
            "6 sessions are parked before",
            ONE,
            {"sessions": [held("a")], "spares": [spare(1)], "memory_left_mb": 99},
            [Park("a")],
        ),
        (
            "7 a burst is over",
            ONE,
            {"spares": [spare(1, 70), spare(2, 90), spare(3, 80)]},
            [KillSpare(2), KillSpare(3)],
        ),
        ("7 perhaps it is not over yet", ONE, {"spares": [spare(1, 59), spare(2, 59)]}, []),
        ("7 the only one stays, however old", ONE, {"spares": [spare(1, 9000)]}, []),
        ("7 of its own profile", ONE, {"spares": [spare(1, 99, profile="q"), spare(2, 99)]}, []),
        ("8 one is missing", ONE, {}, [SpawnSpare("p")]),
        ("8 none is wanted", ONE, NONE_WANTED, []),
        ("8 none is missing", ONE, {"spares": [spare(1)]}, []),
        ("8 one that starts is not missing", ONE, {"spares": [spare(1, ready=False)]}, []),
        (
            "8 for each profile",
            ONE,
            {"wanted": {"p": 1, "q": 1}, "spares": [spare(1)]},
            [SpawnSpare("q")],
        ),
        ("8 as many as may start", ONE, MANY, [SpawnSpare("p")] * 2),
        ("8 others that start count", ONE, {**MANY, "starting": 1}, [SpawnSpare("p")]),
        ("8 all cores are busy with starts", ONE, {**MANY, "starting": 3}, []),
        ("8 not right after an adoption", ONE, {"adopted_at": NOW - SETTLE / 2}, []),
        ("8 unless several are missing", ONE, {**MANY, "adopted_at": NOW}, [SpawnSpare("p")] * 2),
        ("8 a little later", ONE, {"adopted_at": NOW - 2 * SETTLE}, [SpawnSpare("p")]),
        ("8 not while memory is short", ONE, {"memory_left_mb": 99}, []),
        ("8 not at once after a failure", ONE, {"failed": 1, "failed_at": NOW - 1.9}, []),
        ("8 but after a pause", ONE, {"failed": 1, "failed_at": NOW - 2}, [SpawnSpare("p")]),
        ("8 that grows", ONE, {"failed": 4, "failed_at": NOW - 15}, []),
        ("8 to its limit", ONE, {"failed": 5000, "failed_at": NOW - LONGEST_PAUSE}, [SpawnSpare("p")]),
        ("8 beside the sessions", replace(ONE, sessions=1), {"sessions": [held("a")]}, [SpawnSpare("p")]),
    ],
)
def test_what_becomes_of_spares(rule: str, limit: Limits, seen: dict[str, Any], work: list[Any]) -> None:
    assert work == kept(limit, **{"wanted": {"p": 1}, **seen}), rule


def test_no_two_things_happen_to_one_session() -> None:
    sessions = [held("a", 700), held("b", 65), held("c", 61)]
    assert [Park("a"), Park("b"), Freeze("c")] == kept(
        replace(AMPLE, sessions=1, park_after=700), sessions=sessions
    )[:3]
