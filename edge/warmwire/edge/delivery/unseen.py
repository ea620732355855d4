"""Turns that nobody sees any more and that ask to be stopped then (``on_disconnect: cancel``)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from warmwire.broker.logs import logger
from warmwire.broker.wire.names import SessionKey
from warmwire.edge.delivery.presence import Presence
from warmwire.producer.submit import Sessions

log = logger(__name__)

SWEEP = 10_000
"""Waiting and running messages that are looked through when an edge has gone; what is beyond goes on."""


class Unseen:
    """Interrupts them after ``grace`` seconds: viewers may have been sent elsewhere."""

    def __init__(
        self,
        sessions: Sessions,
        presence: Presence,
        grace: float,
        begin: Callable[[Callable[[], Awaitable[object]], str], None],
    ) -> None:
        self._sessions = sessions
        self._presence = presence
        self._grace = grace
        self._begin = begin
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Interrupt nothing more."""
        self._stopping.set()

    def viewer_left(self, key: SessionKey, turn: str | None = None) -> None:
        """A viewer of the session has gone by itself; perhaps the last one of a turn that minds that."""
        if not self._presence.here(key):
            self._begin(lambda: self._look_after(key, turn), "stop a turn that nobody sees")

    def edge_left(self) -> None:
        """Another edge has gone, whose viewers may not have come back anywhere."""
        self._begin(self._sweep, "stop the turns that nobody sees since an edge has gone")

    async def _look_after(self, key: SessionKey, turn: str | None) -> None:
        if await self._minding(key, turn) and not await self._stops_within(self._grace):
            await self._look(key, turn)

    async def _sweep(self) -> None:
        if await self._stops_within(self._grace):
            return
        for key, turn in await self._sessions.viewed(SWEEP):
            await self._look(key, turn)

    async def _look(self, key: SessionKey, turn: str | None) -> None:
        """Interrupts what minds, unless a viewer is there, at whichever edge."""
        if self._presence.here(key) or await self._presence.everywhere(key):
            return
        for minding in await self._minding(key, turn):
            log.info("nobody sees the turn any more, interrupting it", session=str(key), turn=minding)
            await self._sessions.interrupt(key, minding)

    async def _stops_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._stopping.wait()
        except TimeoutError:
            return False

    async def _minding(self, key: SessionKey, turn: str | None) -> list[str]:
        """The turns (or that one) that are to stop when their last viewer has left."""
        messages = [queued.message for queued in await self._sessions.waiting(key)]
        return [
            message.turn
            for message in messages
            if message.options.on_disconnect == "cancel" and turn in (None, message.turn)
        ]
