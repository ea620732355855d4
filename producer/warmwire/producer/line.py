"""A stream of an edge as one iteration of events, however often its connection breaks."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic

import httpx2

from warmwire.broker.errors import Unavailable
from warmwire.broker.logs import logger
from warmwire.broker.wire.events import TurnQueued
from warmwire.producer.answer import Event
from warmwire.producer.errors import NotAnEdge
from warmwire.producer.refusals import error_of, passes
from warmwire.producer.settings import EdgeClientSettings
from warmwire.producer.sse import Frame, Parser

log = logger(__name__)

DONE = "[DONE]"
QUEUED = str(TurnQueued.model_fields["type"].default)
REFUSAL_LIMIT = 64 * 1024
"""Bytes of a refusal that are read, at most."""
STABLE = 5.0
"""Seconds after which a connection counts as a good one, though no event has come over it."""

Asking = Callable[[str | None], httpx2.Request]
"""The request that begins the stream, or continues it after a cursor."""


class Line:
    """See the module. Events that were given are never given again.

    ``whole_session``: no event ends it. Of one turn it is not given that it is queued: who has asked knows.
    """

    def __init__(
        self,
        http: httpx2.AsyncClient,
        settings: EdgeClientSettings,
        ask: Asking,
        session: str,
        cursor: str | None = None,
        *,
        whole_session: bool = False,
    ) -> None:
        self.cursor = cursor
        self.broken = False  # there is no connection; not while the edge sends us elsewhere
        self._http = http
        self._settings = settings
        self._ask = ask
        self._session = session
        self._whole_session = whole_session
        self._ready: deque[Event] = deque()
        self._over = False
        self._begun = cursor is not None
        self._response: httpx2.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._parser = Parser()
        self._failures = 0
        self._retry: int | None = None
        self._waiting: asyncio.Timeout | None = None
        self._failing_since = 0.0
        self._connected_at = 0.0

    async def begun(self) -> str | None:
        """Wait for a cursor to go on from; None if none ever comes. Raises as ``next``."""
        while self.cursor is None and not self._over:
            await self._step(self._connect if self._response is None else self._read)
        return self.cursor

    async def opened(self) -> None:
        """Wait until the edge has agreed. Raises as ``next``."""
        while self._response is None and not self._over:
            await self._step(self._connect)

    async def next(self) -> Event | None:
        """The next event; None at the end.

        Raises:
            WarmwireError: as ``refusals.error_of`` has it.
            NotAnEdge: what answers speaks otherwise.
            Unavailable: connections have failed for as long as the settings' ``patience``.
        """
        while not self._ready and not self._over:
            await self._step(self._connect if self._response is None else self._read)
        return self._ready.popleft() if self._ready else None

    async def close(self) -> None:
        """Leave the connection. Whoever waits for an event is told that there is none."""
        self.end()
        if self._waiting is None:
            await self._leave()

    def end(self) -> None:
        """The same beside the rest, for a line that somebody may be waiting at."""
        if not self._over and self._waiting is not None:
            self._waiting.reschedule(0)
        self._over, self.broken = True, False

    async def _step(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(None) as self._waiting:
                await self._tried(step)
        except TimeoutError:  # of ``end``: there is no other
            await self._leave()
        finally:
            self._waiting = None

    async def _tried(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except httpx2.TransportError as error:
            await self._leave()
            await self._pause(error)

    # -- connecting

    async def _connect(self) -> None:
        response = await self._http.send(self._ask(self.cursor), stream=True)
        if response.status_code == 204:
            self._over = True
        elif response.status_code == 200:
            kind = response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                await response.aclose()
                raise NotAnEdge(f"it sent {kind or 'nothing'} in place of text/event-stream")
            self._response, self._chunks, self._parser = response, response.aiter_bytes(), Parser()
            self._begun, self._connected_at, self.broken = True, monotonic(), False
            return
        else:
            await self._refused(response)
        await response.aclose()

    async def _refused(self, response: httpx2.Response) -> None:
        try:
            body = await _beginning(response)
        finally:
            await response.aclose()
        error = error_of(response.status_code, body, self._session, _size_of(response.request))
        if not passes(response.status_code, body, begun=self._begun):
            raise error
        await self._pause(error, _seconds(response.headers.get("retry-after")))

    async def _leave(self) -> None:
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            await response.aclose()

    # -- reading

    async def _read(self) -> None:
        assert self._chunks is not None  # noqa: S101 - there is a response
        chunk = await anext(self._chunks, None)
        if chunk is None:  # whole, but not done: the edge sends us elsewhere, or a proxy has ended it
            await self._leave()
            if not self._over:
                await self._pause(None, None if self._retry is None else self._retry / 1000)
            return
        for frame in self._parser.feed(chunk):
            self._take(frame)
        if self._ready or monotonic() - self._connected_at > STABLE:
            self._failures = 0

    def _take(self, frame: Frame) -> None:
        self._retry = frame.retry  # counts where it is the last that was said
        if frame.data == DONE:
            self._over = not self._whole_session
        elif frame.id is not None:
            self.cursor = frame.id or self.cursor
            if frame.data and (self._whole_session or frame.event != QUEUED):
                self._ready.append(Event(frame.event, frame.data.encode(), frame.id))

    # -- after a failure

    async def _pause(self, error: Exception | None, at_least: float | None = None) -> None:
        if self._over:
            return
        self.broken = error is not None
        settings = self._settings
        if not self._failures:
            self._failing_since = monotonic()
        if monotonic() - self._failing_since > settings.patience:
            where = f"; resume from {self.cursor}" if self.cursor else ""
            raise Unavailable(f"no answer from {settings.url}: {_cause(error)}{where}") from error
        most = min(settings.longest_pause, settings.first_pause * 2**self._failures)
        self._failures = min(self._failures + 1, 32)
        log.debug("the connection to the edge is made again", because=_cause(error))
        await asyncio.sleep((at_least or 0) + random.uniform(0, most))


def _cause(error: Exception | None) -> str:
    if error is None:
        return "the stream has ended early"
    return str(error) or type(error).__name__


async def _beginning(response: httpx2.Response) -> bytes:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > REFUSAL_LIMIT:
            break
    return body


def _size_of(request: httpx2.Request) -> int:
    return int(request.headers.get("content-length", 0))


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None
