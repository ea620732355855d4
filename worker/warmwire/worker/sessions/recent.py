"""The turns that a worker has ended of late, as its heartbeat tells of them. Pure: time is an argument."""

from __future__ import annotations

from collections import deque

from warmwire.broker.wire.events import TurnEnd, TurnFailed
from warmwire.broker.wire.messages import Recently, SlowTurn
from warmwire.broker.wire.names import SessionKey

TURNS = 200
"""Turns that percentiles are taken of, the last ones."""
SLOWEST = 5
"""Slow ones that are named."""
WITHIN = 300.0
"""Seconds after which a slow one is old news."""


class Recent:
    """Hears of each end. ``told`` is replaced as a whole, so any thread may read it."""

    def __init__(self) -> None:
        self.told = Recently()
        self._ttfts: deque[int] = deque(maxlen=TURNS)
        self._slow: list[tuple[float, SlowTurn]] = []
        self._ended = self._failed = 0
        self.busy_ms = 0
        """What all of them took."""
        self.last_failure = ""
        """The code of the last one that failed."""

    def ended(self, key: SessionKey, end: TurnEnd, now: float) -> None:
        """A turn has ended."""
        self._ended += 1
        self.busy_ms += end.duration_ms
        if isinstance(end, TurnFailed):
            self._failed += 1
            self.last_failure = end.code
        if end.ttft_ms is not None:
            self._ttfts.append(end.ttft_ms)
            slow = SlowTurn(turn=end.turn, session=str(key), ttft_ms=end.ttft_ms)
            self._slow = [(at, each) for at, each in [*self._slow, (now, slow)] if now - at < WITHIN]
            self._slow = sorted(self._slow, key=lambda each: -each[1].ttft_ms)[:SLOWEST]
        in_order = sorted(self._ttfts)
        self.told = Recently(
            ended=self._ended,
            failed=self._failed,
            ttft_ms=tuple(
                in_order[int(share * (len(in_order) - 1))] for share in (0.5, 0.95, 1.0) if in_order
            ),
            slowest=tuple(each for _, each in self._slow),
        )
