"""A session as a whole: what is known of it, its turns that have ended, and the end of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from warmwire.broker.errors import NoResponder
from warmwire.broker.logs import logger
from warmwire.broker.nats.asking import OWNER_WITHIN
from warmwire.broker.nats.bus import Bus
from warmwire.broker.nats.store import Store
from warmwire.broker.wire.messages import Close, UserMessage
from warmwire.broker.wire.names import SessionKey, Subjects
from warmwire.producer.past import Ended, ended_turns
from warmwire.producer.submit import Sessions

log = logger(__name__)

STOP_WITHIN = 5.0
"""Seconds that turns may take to stop before a session is deleted, and its owner to let it go."""
LOOK_EVERY = 0.05
"""Seconds between two looks at whether they have."""


class Management:
    """Looks after whole sessions."""

    def __init__(self, bus: Bus, subjects: Subjects, sessions: Sessions) -> None:
        self._bus = bus
        self._subjects = subjects
        self._store = Store(bus, subjects)
        self._sessions = sessions

    async def standing(self, key: SessionKey) -> list[UserMessage] | None:
        """The messages that wait or run, in order; None when nobody has used it. Raises Unavailable."""
        queued, owned = await asyncio.gather(self._store.queued(key), self._store.owner(key))
        if not queued and owned is None and not await self._has_past(key):
            return None
        return [each.message for each in queued]

    async def ended_turns(self, key: SessionKey, after: int, most: int) -> tuple[list[Ended], int | None]:
        """As ``past.ended_turns``."""
        return await ended_turns(self._store, key, after, most)

    async def delete(self, key: SessionKey) -> bool:
        """Stop its turns, let its process go, forget all that is stored; False when there was nothing.

        Raises Unavailable: some of it may be left; delete it again.
        """
        if await self.standing(key) is None:
            return False
        for queued in reversed(await self._store.queued(key)):  # the last first: none begins meanwhile
            await self._sessions.interrupt(key, queued.message.turn)
        await self._until(lambda: self._stopped(key), "its turns have not stopped", key)
        if await self._closes(key):
            await self._until(lambda: self._let_go(key), "its owner has not let it go", key)
        await self._store.purge(key)
        return True

    async def _has_past(self, key: SessionKey) -> bool:
        return await self._store.last_turn(key) is not None or await self._store.transcript_end(key) > 0

    async def _stopped(self, key: SessionKey) -> bool:
        return await self._store.head(key) is None

    async def _let_go(self, key: SessionKey) -> bool:
        owned = await self._store.owner(key)
        return owned is None or owned.record.worker is None

    async def _closes(self, key: SessionKey) -> bool:
        try:
            await self._bus.request(self._subjects.control(key), Close().encode(), OWNER_WITHIN)
        except NoResponder:
            return False
        return True

    async def _until(self, done: Callable[[], Awaitable[bool]], else_: str, key: SessionKey) -> None:
        deadline = monotonic() + STOP_WITHIN
        while not await done():
            if monotonic() > deadline:
                log.warning("deleting the session all the same", session=str(key), because=else_)
                return
            await asyncio.sleep(LOOK_EVERY)
