"""The recent events of one session, for viewers that come back. Pure."""

from __future__ import annotations

from collections import deque

from warmwire.broker.wire.envelope import Envelope, Position

RING_BYTES = 64 * 1024
"""Bytes of recent events kept per session. Older ones are asked of the owner."""
ENVELOPE_BYTES = 256
"""What an envelope costs in memory beside its event, about."""


class Ring:
    """Between any two events in the ring nothing was missed: what is not known to be whole is cleared."""

    __slots__ = ("_bytes", "_end", "_events", "_start")

    def __init__(self) -> None:
        self._events: deque[Envelope] = deque()
        self._bytes = 0
        self._start: Position | None = None  # the events are all that came after it
        self._end: tuple[int, int] = Position(0, 0)

    def begin(self, start: Position) -> None:
        """What came before ``start`` is not whole any more."""
        self._events.clear()
        self._bytes = 0
        self._start = self._end = start

    def add(self, envelope: Envelope) -> None:
        """The next event; one that is not newer is not kept (a turn's ending, late from its record)."""
        position = envelope[:2]  # as a position, for less: this is on the path of every delta
        if self._start is None:
            self._start = Position(envelope.epoch, envelope.seq - 1)
        elif position <= self._end:
            return
        self._end = position
        self._events.append(envelope)
        self._bytes += len(envelope.event) + ENVELOPE_BYTES
        while self._bytes > RING_BYTES:
            oldest = self._events.popleft()
            self._bytes -= len(oldest.event) + ENVELOPE_BYTES
            self._start = oldest.position

    def after(self, position: Position) -> list[Envelope] | None:
        """All that came after a position; None if the ring does not know it (any more)."""
        if position == self._start:
            return list(self._events)
        for number in range(len(self._events) - 1, -1, -1):
            if self._events[number].position == position:
                return list(self._events)[number + 1 :]
        return None
