"""What both clients share, over NATS and over HTTP: cursor, text, what a cancellation does, closing."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Literal, Self

from warmwire.broker.errors import WarmwireError
from warmwire.broker.logs import logger
from warmwire.producer.answer import Answer, Event, failure_of

log = logger(__name__)

INTERRUPT_WITHIN = 5.0
"""Seconds that a cancelled reader waits at most until its turn is told to stop."""

OnCancel = Literal["detach", "interrupt"]
"""What becomes of a turn whose reader's task is cancelled: it goes on, or it is stopped."""


class Closing(ABC):
    """A client: entered as itself, closed when it is left."""

    @abstractmethod
    async def close(self) -> None:
        """Follow nothing any more, and disconnect."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Events(ABC):
    """Events, one by one. An iteration that has ended stays ended."""

    def __init__(self, cursor: str | None) -> None:
        self._cursor = cursor

    @property
    def cursor(self) -> str | None:
        """Resumes just after the last event that the iteration has given."""
        return self._cursor

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        event = await self._next()
        if event is None:
            self.close()
            raise StopAsyncIteration
        self._cursor = event.cursor or self._cursor
        return event

    @abstractmethod
    async def _next(self) -> Event | None:
        """The next event; None at the end."""

    @abstractmethod
    def close(self) -> None:
        """Follow no longer."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TurnEvents(Events):
    """The events of one turn, the last of them the terminal one."""

    def __init__(self, turn: str, session_id: str, cursor: str, on_cancel: OnCancel) -> None:
        super().__init__(cursor)
        self.id = turn
        self.session_id = session_id
        self._on_cancel: OnCancel = on_cancel
        self._to_stop = on_cancel == "interrupt"
        self._beginning = cursor

    @property
    def cursor(self) -> str:
        """Resumes just after the last event that the iteration has given."""
        return self._cursor or self._beginning

    async def __anext__(self) -> Event:
        try:
            event = await super().__anext__()
        except asyncio.CancelledError:
            await self._cancelled()
            raise
        if event.terminal:
            self._to_stop = False
        return event

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            await self._cancelled()
        self.close()

    async def text(self, timeout: float | None = None) -> str:
        """Wait for the end; returns the answer's text, or as much of it as there is when it was interrupted.

        Raises:
            TurnFailed: the turn ended without a complete answer.
            TimeoutError: it took longer than ``timeout`` seconds; what becomes of it, ``on_cancel`` says.
        """
        async with asyncio.timeout(timeout):
            return await self._text()

    async def _text(self) -> str:
        answer = Answer()
        async for event in self:
            answer.add(event)
            if event.type == "turn_failed":
                raise failure_of(event, answer.text)
        return answer.text

    @abstractmethod
    async def interrupt(self) -> None:
        """Stop the turn, also before it has begun; its end is still to come. Raises Unavailable."""

    async def _cancelled(self) -> None:
        if not self._to_stop:
            return
        self._to_stop = False
        try:
            async with asyncio.timeout(INTERRUPT_WITHIN):
                await self.interrupt()
        except (WarmwireError, TimeoutError) as error:  # it is the cancellation that has to go on
            log.warning("the turn of a cancelled reader may go on", turn=self.id, error=str(error))
