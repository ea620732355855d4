"""Sends events: a short send window for deltas, at once for everything else.

One wake-up per delta at every hop is what a delta costs most. Deltas that fall within the window share one; the first
delta of a turn and whatever is not a delta go at once and take with them what waits.
"""

from __future__ import annotations

import asyncio

import structlog

from warmwire.broker.bus import Bus
from warmwire.broker.errors import Unavailable

log = structlog.get_logger(__name__)

WAITING_LIMIT = 16 * 1024 * 1024
"""Bytes that may wait to be sent. Past it events are dropped: readers see the hole and ask the owner."""


class Sender:
    """Publishes events in the order given. ``start`` before use, ``stop`` sends what waits."""

    def __init__(self, bus: Bus, window: float) -> None:
        self._bus = bus
        self._window = window
        self._waiting: list[tuple[str, bytes]] = []
        self._bytes = 0
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._pump(), name="sender")

    def send(self, subject: str, data: bytes, *, at_once: bool) -> None:
        """Hand over one event; never blocks. Without ``at_once`` it may wait for the window, in seconds."""
        if self._bytes > WAITING_LIMIT:
            self.dropped += 1
            return
        self._bytes += len(data)
        self._waiting.append((subject, data))
        if at_once:
            self._wake.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._window, self._wake.set)

    async def stop(self) -> None:
        """Send what waits and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.flush()

    async def flush(self) -> None:
        """Give all that waits to the connection now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting, self._bytes = self._waiting, [], 0
        try:
            for subject, data in batch:
                await self._bus.publish(subject, data)
        except Unavailable as error:
            self.dropped += len(batch)
            log.warning(
                "events could not be sent; readers will ask for them", events=len(batch), error=str(error)
            )

    async def _pump(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()
