"""Who is watching a session: here, and at all edges together."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter

from warmwire.broker.errors import BadInput, Unavailable
from warmwire.broker.logs import logger
from warmwire.broker.nats.bus import Arrived, Bus, Subscription
from warmwire.broker.tasks import Tasks
from warmwire.broker.wire.messages import Message, decode
from warmwire.broker.wire.names import SessionKey, Subjects

log = logger(__name__)

HEARD_WITHIN = 0.1
"""Seconds in which the other edges answer; who needs longer is not counted."""


class Watching(Message):
    """An edge's answer: how many viewers the session has there."""

    edge: str
    viewers: int


class Presence:
    """Counts the viewers of each session. ``start`` it, and ``stop`` it."""

    def __init__(self, bus: Bus, subjects: Subjects) -> None:
        self._bus = bus
        self._subjects = subjects
        self.edge = f"e-{secrets.token_hex(8)}"
        self._here: Counter[SessionKey] = Counter()
        self._subscription: Subscription | None = None
        self._tasks = Tasks()

    async def start(self) -> None:
        """Answer whoever asks. Raises Unavailable."""
        self._subscription = await self._bus.subscribe(self._subjects.all_viewers, self._asked)

    async def stop(self) -> None:
        """Answer no more."""
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        await self._tasks.stop()

    def enter(self, key: SessionKey) -> None:
        """One viewer more."""
        self._here[key] += 1

    def leave(self, key: SessionKey) -> None:
        """One viewer less."""
        self._here[key] -= 1
        if not self._here[key]:
            del self._here[key]

    def here(self, key: SessionKey) -> int:
        """The session's viewers at this edge."""
        return self._here.get(key, 0)

    async def everywhere(self, key: SessionKey) -> int:
        """The session's viewers at all edges that answer in time. Raises Unavailable."""
        answers: dict[str, int] = {}

        def answered(message: Arrived) -> None:
            try:
                watching = decode(Watching, message.data)
            except BadInput as error:  # "nobody listens", or nonsense
                log.debug("no answer about viewers", error=str(error))
            else:
                answers[watching.edge] = watching.viewers

        inbox = self._bus.new_inbox()
        subscription = await self._bus.subscribe(inbox, answered)
        try:
            await self._bus.publish(self._subjects.viewers(key), b"", reply=inbox)
            await asyncio.sleep(HEARD_WITHIN)
        finally:
            await subscription.unsubscribe()
        answers[self.edge] = self.here(key)
        return sum(answers.values())

    def _asked(self, message: Arrived) -> None:
        try:
            viewers = self.here(self._subjects.session_of(message.subject))
        except BadInput as error:
            log.warning("asked about what is no session", subject=message.subject, error=str(error))
            return
        if viewers and message.reply:
            self._tasks.begin(self._answer(message.reply, viewers), "say who is watching")

    async def _answer(self, inbox: str, viewers: int) -> None:
        try:
            await self._bus.publish(inbox, Watching(edge=self.edge, viewers=viewers).encode())
        except Unavailable as error:
            log.info("could not say who is watching", error=str(error))
