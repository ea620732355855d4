"""Who is alive, judged from heartbeats by one's own monotonic clock. Pure: time is an argument.

Safety never rests on this: a wrong judgement costs a lost compare-and-swap, not an answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from warmwire.broker.wire.messages import Heartbeat

HEARTBEAT_EVERY = 0.5
"""Seconds between heartbeats."""

DEAD_AFTER = 3.0
"""Seconds of silence after which a worker is held dead."""

DEAF_AFTER = DEAD_AFTER / 2
"""Seconds without a heartbeat of anybody, oneself included, after which one's own ears are at fault."""

KNOWN_WORKERS = 4096
"""Workers remembered; past it the one longest silent is forgotten (and so held dead)."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker's last heartbeat and when it was heard (monotonic seconds)."""

    beat: Heartbeat
    at: float


class Liveness:
    """Hears heartbeats and judges.

    A judge that has listened for less than ``DEAD_AFTER`` seconds without interruption calls nobody dead. To
    hear nobody at all is an interruption, too: the connection is broken, or the judge's own loop stood still.
    """

    def __init__(self, now: float) -> None:
        self._listening_since = now
        self._heard_at = now
        self._seen: dict[str, Seen] = {}

    def heard(self, beat: Heartbeat, now: float) -> None:
        """A heartbeat has arrived."""
        if self._deaf(now):
            self._listening_since = now
        self._heard_at = now
        self._seen.pop(beat.worker, None)
        self._seen[beat.worker] = Seen(beat, now)
        if len(self._seen) > KNOWN_WORKERS:
            del self._seen[next(iter(self._seen))]

    def reconnected(self, now: float) -> None:
        """The connection was gone: what was not heard meanwhile says nothing."""
        self._listening_since = now

    def dead(self, worker: str, now: float) -> bool:
        """Whether the worker may be held dead."""
        if self._deaf(now) or now - self._listening_since < DEAD_AFTER:
            return False
        seen = self._seen.get(worker)
        return seen is None or now - seen.at >= DEAD_AFTER

    def _deaf(self, now: float) -> bool:
        return now - self._heard_at >= DEAF_AFTER

    def alive(self, now: float) -> tuple[Heartbeat, ...]:
        """The last heartbeat of each worker heard lately."""
        return tuple(seen.beat for seen in self.seen(now))

    def seen(self, now: float) -> tuple[Seen, ...]:
        """The same, with the time of each."""
        return tuple(seen for seen in self._seen.values() if now - seen.at < DEAD_AFTER)
