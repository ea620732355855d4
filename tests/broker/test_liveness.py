"""Liveness: who may be held dead, and by whom."""

from __future__ import annotations

import pytest

from warmwire.broker.liveness import DEAD_AFTER, KNOWN_WORKERS, Liveness
from warmwire.broker.messages import Heartbeat


def beat(worker: str = "w", free: int = 1) -> Heartbeat:
    return Heartbeat(worker=worker, version="1", free=free, running=0, sessions=0)


@pytest.mark.parametrize(
    ("claim", "heard_at", "reconnected_at", "now", "dead"),
    [
        ("never heard, but who listens has only begun", None, None, 102.9, False),
        ("never heard in all the time", None, None, 103.0, True),
        ("heard just now", 110.0, None, 110.0, False),
        ("silent for almost long enough", 110.0, None, 112.9, False),
        ("silent for long enough", 110.0, None, 113.0, True),
        ("silent, but who listens was away just now", 110.0, 112.0, 114.9, False),
        ("silent, and who listens has listened again for long enough", 110.0, 112.0, 115.0, True),
        ("heard again after the reconnection", 113.0, 112.0, 115.9, False),
    ],
)
def test_a_worker_is_held_dead(
    claim: str, heard_at: float | None, reconnected_at: float | None, now: float, dead: bool
) -> None:
    liveness = Liveness(100.0)
    if heard_at is not None:
        liveness.heard(beat(), heard_at)
    if reconnected_at is not None:
        liveness.reconnected(reconnected_at)
    assert dead == liveness.dead("w", now), claim


def test_the_last_heartbeat_of_each_living_worker_counts() -> None:
    liveness = Liveness(100.0)
    liveness.heard(beat("a", free=5), 100.0)
    liveness.heard(beat("b", free=7), 101.0)
    liveness.heard(beat("a", free=2), 101.5)
    assert (beat("b", free=7), beat("a", free=2)) == liveness.alive(102.0)
    assert (beat("a", free=2),) == liveness.alive(101.0 + DEAD_AFTER)
    assert () == liveness.alive(101.5 + DEAD_AFTER)


def test_of_too_many_workers_the_one_longest_silent_is_forgotten() -> None:
    liveness = Liveness(0.0)
    for number in range(KNOWN_WORKERS + 1):
        liveness.heard(beat(f"w{number}"), 100.0)
        liveness.heard(beat("w1"), 100.0)
    assert KNOWN_WORKERS == len(liveness.alive(100.0))
    assert liveness.dead("w0", 100.0)
    assert not liveness.dead("w1", 100.0)
