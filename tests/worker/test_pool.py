from __future__ import annotations

import pytest

from warmwire.broker.names import SessionKey
from warmwire.worker.pool import (
    EMULATOR_MB,
    LEAST_EMULATOR_TURNS,
    REAL_MB,
    TURNS_PER_CORE,
    Limits,
    limits,
    to_park,
)


def keys(*names: str) -> list[SessionKey]:
    return [SessionKey("default", name) for name in names]


def test_what_is_configured_holds() -> None:
    assert Limits(7, 20) == limits(7, 20, emulated=False, cores=2, memory_mb=8000)


def test_as_many_sessions_as_turns_at_least() -> None:
    assert Limits(7, 7) == limits(7, 3, emulated=False, cores=2, memory_mb=8000)


def test_a_worker_carries_its_emulator_turns_on_any_machine() -> None:
    small = limits(None, None, emulated=True, cores=1, memory_mb=64)
    assert LEAST_EMULATOR_TURNS == small.turns == small.sessions


def test_emulators_are_held_in_half_the_memory() -> None:
    assert 8000 // 2 // EMULATOR_MB == limits(None, None, emulated=True, cores=2, memory_mb=8000).sessions


def test_real_turns_follow_the_cores() -> None:
    assert 2 * TURNS_PER_CORE == limits(None, None, emulated=False, cores=2, memory_mb=10**6).turns


def test_real_turns_follow_the_memory_where_that_is_less() -> None:
    assert 8000 // 2 // REAL_MB == limits(None, None, emulated=False, cores=64, memory_mb=8000).turns


@pytest.mark.parametrize("emulated", [True, False])
def test_the_smallest_machine_carries_one_turn(emulated: bool) -> None:
    found = limits(None, None, emulated=emulated, cores=1, memory_mb=1)
    assert found.turns >= 1
    assert found.sessions >= found.turns


def test_nothing_is_parked_below_the_limit() -> None:
    assert [] == to_park(dict.fromkeys(keys("a", "b"), 1.0), held=2, limit=2)


def test_the_session_that_finished_longest_ago_goes_first() -> None:
    a, b, c = keys("a", "b", "c")
    assert [b, a] == to_park({a: 2.0, b: 1.0, c: 3.0}, held=4, limit=2)


def test_a_session_in_flight_never_goes() -> None:
    (a,) = keys("a")
    assert [a] == to_park({a: 1.0}, held=5, limit=2)
    assert [] == to_park({}, held=5, limit=2)
