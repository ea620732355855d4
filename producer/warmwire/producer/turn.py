"""One accepted user message on its way to its answer, as an iteration of events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

from warmwire.broker.envelope import Cursor
from warmwire.broker.events import TurnQueued
from warmwire.broker.messages import Permission
from warmwire.broker.names import SessionKey
from warmwire.broker.reader import Item

from .answer import Answer, Event, event_of
from .errors import Lagging, TurnFailed
from .request import Request, verdict
from .submit import Followed, Sessions


class Turn:
    """An accepted user message. Iterating it yields its events, the last of them the terminal one.

    Unread events are kept up to a number of bytes, past which it ends with ``Lagging``, whose cursor resumes.
    """

    def __init__(self, sessions: Sessions, key: SessionKey, turn: str, buffer: int) -> None:
        self.id = turn
        self.session_id = key.session
        self._sessions = sessions
        self._key = key
        self._buffer = buffer
        self._followed: Followed | None = None
        self._waiting: deque[Event] = deque()
        self._bytes = 0
        self._woken = asyncio.Event()
        self._done = False
        self._cursor = str(Cursor(turn, 0, 0))
        self._lagging: str | None = None

    @classmethod
    async def submit(cls, sessions: Sessions, request: Request, buffer: int) -> Self:
        """Publish the message; ``buffer`` is in bytes. Raises as ``Sessions.submit``."""
        turn = cls(sessions, request.key, request.turn, buffer)
        queued = TurnQueued(turn=turn.id, session_id=turn.session_id)
        turn._keep(Event(queued.type, queued.encode()))
        turn._followed = await sessions.submit(request, turn._take)
        return turn

    @classmethod
    async def resumed(cls, sessions: Sessions, key: SessionKey, cursor: Cursor, buffer: int) -> Self:
        """Follow a turn from a cursor, or the one that runs if that turn is not known. Raises Unavailable."""
        told = await sessions.judge(key, cursor)
        turn = cls(sessions, key, told.turn if isinstance(told, Cursor) else cursor.turn, buffer)
        if isinstance(told, Cursor):
            turn._followed = await sessions.follow(key, told, turn._take)
        elif told is not None:
            turn._take(told)
        if turn._followed is None or turn._followed.ended:
            turn._finish()
        return turn

    @property
    def cursor(self) -> str:
        """Resumes just after the last event that the iteration has given."""
        return self._cursor

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._waiting:
            if self._lagging is not None:
                raise Lagging(self._lagging)
            if self._done:
                self.close()
                raise StopAsyncIteration
            self._woken.clear()
            await self._woken.wait()
        event = self._waiting.popleft()
        self._bytes -= len(event.raw)
        self._cursor = event.cursor or self._cursor
        return event

    async def text(self) -> str:
        """Wait for the end; returns the answer's text, or as much of it as there is when it was interrupted.

        Raises:
            TurnFailed: the turn ended without a complete answer.
        """
        answer = Answer()
        async for event in self:
            answer.add(event)
            if event.type == "turn_failed":
                data = event.data
                raise TurnFailed(data["code"], data["message"], answer.text, retryable=data["retryable"])
        return answer.text

    async def interrupt(self) -> None:
        """Stop the turn, also before it has begun; its end is still to come. Raises Unavailable."""
        await self._sessions.interrupt(self._key, self.id)

    async def permit(self, request: str, input: Mapping[str, Any] | None = None) -> None:  # noqa: A002
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
        return await self.resumed(self._sessions, self._key, at, self._buffer)

    def close(self) -> None:
        """Follow no longer; the turn itself goes on. An iteration ends after what has already come."""
        self._finish()
        if self._followed is not None:
            self._followed.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, item: Item) -> None:
        if not self._done:
            event = event_of(item, self.id)
            self._keep(event)
            if event.terminal:
                self._finish()

    def _keep(self, event: Event) -> None:
        if self._waiting and self._bytes + len(event.raw) > self._buffer:
            self._lagging = self._waiting[-1].cursor or self._cursor
            self.close()
            return
        self._waiting.append(event)
        self._bytes += len(event.raw)
        self._woken.set()

    def _finish(self) -> None:
        self._done = True
        self._woken.set()
