"""Events that have come and were not read yet: bounded, fed by callback, read by one task."""

from __future__ import annotations

import asyncio
from collections import deque

from warmwire.producer.answer import Event
from warmwire.producer.errors import Lagging


class Inbox:
    """Keeps up to ``limit`` bytes. Past it the reader gets what is there, then ``Lagging``."""

    def __init__(self, limit: int, cursor: str) -> None:
        self._limit = limit
        self._last = cursor
        self._waiting: deque[Event] = deque()
        self._bytes = 0
        self._woken = asyncio.Event()
        self._lagging = False
        self.done = False

    def put(self, event: Event) -> bool:
        """Keep an event; False when there is no room for it, and the end has come."""
        if self.done:
            return True
        if self._waiting and self._bytes + len(event.raw) > self._limit:
            self._lagging = True
            self.finish()
            return False
        self._waiting.append(event)
        self._bytes += len(event.raw)
        self._last = event.cursor or self._last
        self._woken.set()
        return True

    def finish(self) -> None:
        """Nothing more comes."""
        self.done = True
        self._woken.set()

    async def take(self) -> Event | None:
        """The next event; None after the last one. Raises Lagging."""
        while not self._waiting:
            if self._lagging:
                raise Lagging(self._last)
            if self.done:
                return None
            self._woken.clear()
            await self._woken.wait()
        event = self._waiting.popleft()
        self._bytes -= len(event.raw)
        return event
