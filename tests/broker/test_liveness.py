"""Liveness: who may be held dead, and by whom."""

from __future__ import annotations

import pytest

from warmwire.broker.liveness import DEAD_AFTER, HEARTBEAT_EVERY, KNOWN_WORKERS, Liveness
from warmwire.broker.wire.messages import Heartbeat


def beat(worker: str = "w", free: int = 1) -> Heartbeat:
    return Heartbeat(worker=worker, version="1", free=free, running=0, sessions=0)


@pytest.mark.parametrize(
    ("claim", "heard_at", "away", "now", "dead"),
    [
        ("never heard, but who listens has only begun", None, None, 102.5, False),
        ("never heard in all the time", None, None, 103.0, True),
        ("heard just now", 110.0, None, 110.0, False),
        ("silent for almost long enough", 110.0, None, 112.5, False),
        ("silent for long enough", 110.0, None, 113.0, True),
        ("silent, and so is everybody else", 110.0, (110.0, 200.0), 113.0, False),
        ("silent, but who listens has heard nobody until just now", 110.0, (110.0, 113.0), 113.0, False),
        (
            "silent, and who listens has listened again for almost long enough",
            110.0,
            (110.0, 113.0),
            115.5,
            False,
        ),
        ("silent, and who listens has listened again for long enough", 110.0, (110.0, 113.0), 116.0, True),
    ],
)
def test_a_worker_is_held_dead(
    claim: str, heard_at: float | None, away: tuple[float, float] | None, now: float, dead: bool
) -> None:
    """Another worker, perhaps the judge itself, beats all the time; who is ``away`` does not hear it."""
    liveness = Liveness(100.0)
    moment = 100.0
    while moment <= now:
        if away is None or not away[0] < moment < away[1]:
            liveness.heard(beat("other"), moment)
        if moment == heard_at:
            liveness.heard(beat(), moment)
        moment += HEARTBEAT_EVERY
    assert dead == liveness.dead("w", now), claim


@pytest.mark.parametrize(("now", "dead"), [(114.5, False), (115.0, True)])
def test_who_was_disconnected_for_a_moment_judges_later(now: float, dead: bool) -> None:
    liveness = Liveness(100.0)
    liveness.heard(beat(), 111.0)
    liveness.reconnected(112.0)
    liveness.heard(beat("other"), 112.0)
    for moment in (113.0, 114.0, 115.0):
        liveness.heard(beat("other"), moment)
    assert dead == liveness.dead("w", now)


def test_the_last_heartbeat_of_each_living_worker_counts() -> None:
    liveness = Liveness(100.0)
    liveness.heard(beat("a", free=5), 100.0)
    liveness.heard(beat("b", free=7), 101.0)
    liveness.heard(beat("a", free=2), 101.5)
    assert (beat("b", free=7), beat("a", free=2)) == liveness.alive(102.0)
    assert (beat("a", free=2),) == liveness.alive(101.0 + DEAD_AFTER)
    assert () == liveness.alive(101.5 + DEAD_AFTER)


def test_of_too_many_workers_the_one_longest_silent_is_forgotten() -> None:
    liveness = Liveness(97.0)
    for moment in (98.0, 99.0):
        liveness.heard(beat("w1"), moment)
    for number in range(KNOWN_WORKERS + 1):
        liveness.heard(beat(f"w{number}"), 100.0)
        liveness.heard(beat("w1"), 100.0)
    assert KNOWN_WORKERS == len(liveness.alive(100.0))
    assert liveness.dead("w0", 100.0)
    assert not liveness.dead("w1", 100.0)
