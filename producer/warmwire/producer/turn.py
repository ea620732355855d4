"""Over NATS: a turn, or all turns of a session, as an iteration of events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Self

from warmwire.broker.reading.reader import Item
from warmwire.broker.wire.envelope import Cursor
from warmwire.broker.wire.events import TurnQueued
from warmwire.broker.wire.messages import Permission
from warmwire.broker.wire.names import SessionKey
from warmwire.producer.answer import Event, event_of
from warmwire.producer.errors import Lagging
from warmwire.producer.iteration import Events, OnCancel, TurnEvents
from warmwire.producer.request import Request, verdict
from warmwire.producer.resume import NOWHERE
from warmwire.producer.submit import Followed, Sessions, Watched


class Inbox:
    """Events that have come and were not read yet: given by callback, taken by one task.

    Keeps up to ``limit`` bytes. Past it the reader gets what is there, then ``Lagging``.
    """

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


class Turn(TurnEvents):
    """An accepted user message. Iterating it yields its events, the last of them the terminal one.

    Unread events are kept up to a number of bytes, past which it ends with ``Lagging``, whose cursor resumes.
    """

    def __init__(
        self, sessions: Sessions, key: SessionKey, turn: str, buffer: int, on_cancel: OnCancel = "detach"
    ) -> None:
        beginning = str(Cursor(turn, 0, 0))
        super().__init__(turn, key.session, beginning, on_cancel)
        self._sessions = sessions
        self._key = key
        self._buffer = buffer
        self._followed: Followed | None = None
        self._inbox = Inbox(buffer, beginning)

    @classmethod
    async def submit(
        cls, sessions: Sessions, request: Request, buffer: int, on_cancel: OnCancel = "detach"
    ) -> Self:
        """Publish the message; ``buffer`` is in bytes. Raises as ``Sessions.submit``."""
        turn = cls(sessions, request.key, request.turn, buffer, on_cancel)
        queued = TurnQueued(turn=turn.id, session_id=turn.session_id)
        turn._inbox.put(Event(queued.type, queued.encode()))
        turn._followed = await sessions.submit(request, turn._take)
        return turn

    @classmethod
    async def resumed(
        cls,
        sessions: Sessions,
        key: SessionKey,
        cursor: Cursor,
        buffer: int,
        on_cancel: OnCancel = "detach",
    ) -> Self:
        """Follow a turn from a cursor, or the one that runs if that turn is not known. Raises Unavailable."""
        told = await sessions.judge(key, cursor)
        known = told.turn if isinstance(told, Cursor) else cursor.turn
        turn = cls(sessions, key, known, buffer, on_cancel)
        if isinstance(told, Cursor):
            turn._followed = await sessions.follow(key, told, turn._take)
        elif told is not None:
            turn._take(told)
        if turn._followed is None or turn._followed.ended:
            turn._inbox.finish()
        return turn

    async def _next(self) -> Event | None:
        return await self._inbox.take()

    async def interrupt(self) -> None:
        """Stop the turn, also before it has begun; its end is still to come. Raises Unavailable."""
        await self._sessions.interrupt(self._key, self.id)

    async def permit(self, request: str, input: Mapping[str, object] | None = None) -> None:  # noqa: A002
        """Allow what a ``permission_requested`` event asks for; ``input`` is what the tool gets instead.

        Raises:
            BadInput: the input is too large, or no JSON.
            NotAsked: nobody has asked that in this turn.
            QuestionClosed: it is open no longer: the first answer counts, and only in time.
            Unavailable: the session's owner does not answer.
        """
        await self._answer(verdict(request, allow=True, turn=self.id, instead=input))

    async def deny(self, request: str, reason: str | None = None) -> None:
        """Do not allow it; the model is told the reason, and the turn goes on. Raises as ``permit``."""
        await self._answer(verdict(request, allow=False, turn=self.id, reason=reason))

    async def _answer(self, answer: Permission) -> None:
        await self._sessions.permit(self._key, answer)

    async def resume(self, cursor: str) -> Self:
        """The same turn as a new iteration, from a cursor; this one ends.

        Raises:
            BadInput: not a cursor.
            Unavailable: the session's owner does not answer.
        """
        at = Cursor.parse(cursor)
        self.close()
        return await self.resumed(self._sessions, self._key, at, self._buffer, self._on_cancel)

    def close(self) -> None:
        """Follow no longer; the turn itself goes on. An iteration ends after what has already come."""
        self._inbox.finish()
        if self._followed is not None:
            self._followed.stop()

    def _take(self, item: Item) -> None:
        event = event_of(item, self.id)
        if not self._inbox.put(event):
            self.close()
        elif event.terminal:
            self._inbox.finish()


class Watch(Events):
    """A session that is being watched. The iteration ends with ``close``, or when the producer is closed.

    Unread events are kept up to a number of bytes, past which it ends with ``Lagging``, whose cursor resumes.
    """

    def __init__(self, key: SessionKey, cursor: Cursor | None, buffer: int) -> None:
        super().__init__(str(cursor) if cursor else None)
        self.session_id = key.session
        self._inbox = Inbox(buffer, str(cursor or NOWHERE))
        self._turn = (cursor or NOWHERE).turn
        self._watched: Watched | None = None

    @classmethod
    async def begun(cls, sessions: Sessions, key: SessionKey, cursor: Cursor | None, buffer: int) -> Self:
        """Watch from a cursor, or from now on; ``buffer`` is in bytes. Raises Unavailable."""
        watch = cls(key, cursor, buffer)
        watch._watched = await sessions.watch(key, cursor, watch._take)
        watch._cursor = watch._cursor or str(watch._watched.cursor)
        if watch._inbox.done:  # more than it keeps has come already
            watch._watched.stop()
        return watch

    async def _next(self) -> Event | None:
        return await self._inbox.take()

    def close(self) -> None:
        """Watch no longer. The iteration ends after what has already come."""
        self._inbox.finish()
        if self._watched is not None:
            self._watched.stop()

    def _take(self, item: Item) -> None:
        event = event_of(item, self._turn)
        self._turn = event.turn or self._turn
        if not self._inbox.put(event):
            self.close()
