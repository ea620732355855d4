"""``EdgeClient``: what ``Producer`` does, over HTTP, where NATS cannot be reached. Extra ``http``."""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, TypeVar
from urllib.parse import quote
from weakref import WeakSet

import httpx2
import msgspec

from warmwire.broker.errors import Unavailable
from warmwire.broker.logs import logger
from warmwire.broker.telemetry import inject
from warmwire.broker.wire.envelope import Cursor
from warmwire.broker.wire.events import TurnQueued
from warmwire.broker.wire.messages import PermissionMode
from warmwire.broker.wire.names import check_name
from warmwire.producer.answer import Event
from warmwire.producer.errors import NotAnEdge, Refused
from warmwire.producer.iteration import Closing, Events, OnCancel, TurnEvents
from warmwire.producer.line import Line
from warmwire.producer.past import PAGE, PastTurn, WaitingTurn, last_of
from warmwire.producer.refusals import error_of
from warmwire.producer.request import Given, checked, verdict
from warmwire.producer.settings import EdgeClientSettings

log = logger(__name__)

UNLIMITED = 1 << 40
"""Bytes: how large a message may be the edge knows."""
TRIES = 3
"""Times that a short request is made whose connection breaks; each of them may be repeated."""

HERE = ("all://127.0.0.1", "all://localhost", "all://[::1]")
"""What is asked without the proxy that the environment names: it knows another machine by these names."""

T = TypeVar("T")
AccessToken = str | Callable[[], str]
"""A token, or what gives one that is good now: it is asked for each connection."""


class _Told(msgspec.Struct):
    """A JSON object, whatever it says. Those below name of theirs what is read."""


class _Stopped(_Told):
    turn: str | None


class _Page(_Told):
    turns: list[PastTurn]
    next: int | None


class _Standing(_Told):
    messages: list[WaitingTurn]


class EdgeClient(Closing):
    """Sends user messages to an edge and gives back their turns; ``async with EdgeClient() as edge``."""

    def __init__(
        self,
        url: str | None = None,
        *,
        access_token: AccessToken | None = None,
        settings: EdgeClientSettings | None = None,
    ) -> None:
        """Without arguments ``WARMWIRE_URL`` and ``WARMWIRE_ACCESS_TOKEN`` say where, and as whom.

        ``url`` goes before ``settings``.
        """
        given = settings or EdgeClientSettings()
        if url is not None:
            given = EdgeClientSettings.model_validate({**given.model_dump(), "url": url})
        stored = given.access_token
        self._token = access_token or (stored.get_secret_value() if stored else None)
        self._settings = given
        timeout = httpx2.Timeout(given.silence, connect=given.connect_within, pool=None)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
        # The system's certificates take 20 ms to load, for nothing where there is no TLS.
        trust: ssl.SSLContext | bool = (
            True if given.url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        )
        self._http = httpx2.AsyncClient(
            base_url=given.url, timeout=timeout, limits=limits, verify=trust, mounts=dict.fromkeys(HERE)
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines: WeakSet[Line] = WeakSet()

    async def send(  # noqa: PLR0913 - the options of a turn are named arguments, for whoever reads the call
        self,
        message: Given,
        *,
        session_id: str | None = None,
        model: str | None = None,
        profile: str | None = None,
        system_prompt: str | None = None,
        permission_mode: PermissionMode | None = None,
        thinking_tokens: int | None = None,
        on_worker_loss: Literal["retry", "fail"] = "retry",
        double_texting: Literal["enqueue", "interrupt", "reject"] = "enqueue",
        on_disconnect: Literal["continue", "cancel"] = "continue",
        idempotency_key: str | None = None,
        token: str | None = None,
        on_cancel: OnCancel = "detach",
    ) -> EdgeTurn:
        """Send a user message; returns once it is accepted. Without a session a new one begins.

        A connection that breaks before the acceptance is known is made again: the message is sent once.
        ``token`` is the user's own; ``on_cancel`` is what becomes of the turn when its reader is cancelled.

        Raises:
            BadInput: naming the field; nothing was published.
            SessionBusy, QueueFull, StoreFull, KeyReused: as ``Producer.send``.
            Refused: what else an edge may say; ``code`` and ``retryable`` say more.
            Unavailable: perhaps accepted; sending again is safe with an ``idempotency_key``.
        """
        session = str(uuid.uuid4()) if session_id is None else check_name("session_id", session_id)
        given = {
            "message": checked(message, UNLIMITED),
            "session_id": session,
            "model": model,
            "profile": profile,
            "system_prompt": system_prompt,
            "permission_mode": permission_mode,
            "thinking_tokens": thinking_tokens,
            "on_worker_loss": on_worker_loss,
            "double_texting": double_texting,
            "on_disconnect": on_disconnect,
        }
        body = json.dumps({name: value for name, value in given.items() if value is not None}).encode()
        headers = {"content-type": "application/json", **inject()}
        headers["idempotency-key"] = str(uuid.uuid4()) if idempotency_key is None else idempotency_key
        if token is not None:
            headers["x-warmwire-token"] = token

        def ask(cursor: str | None) -> httpx2.Request:
            if cursor is None:
                return self._request("POST", "/v1/chat/stream", headers, body)
            return self._resumption(session, cursor)

        line = Line(self._http, self._settings, ask, session)
        cursor = await self._or_close(line, line.begun())
        if cursor is None:
            raise NotAnEdge("it has accepted a message and said no more")
        turn = EdgeTurn(self, line, Cursor.parse(cursor).turn, session, cursor, on_cancel)
        turn.queue()
        return turn

    async def resume(self, session_id: str, cursor: str, *, on_cancel: OnCancel = "detach") -> EdgeTurn:
        """Follow a turn again, from the cursor of the last event that was seen. Never submits.

        Raises:
            BadInput: not a cursor.
            Refused, Unavailable: as ``send``.
        """
        session, at = check_name("session_id", session_id), Cursor.parse(cursor)

        def ask(cursor: str | None) -> httpx2.Request:
            return self._resumption(session, str(cursor))

        line = Line(self._http, self._settings, ask, session, cursor)
        await self._or_close(line, line.opened())
        return EdgeTurn(self, line, at.turn, session, cursor, on_cancel)

    async def watch(self, session_id: str, cursor: str | None = None) -> EdgeWatch:
        """Watch every turn of a session, from a cursor or from now on; nobody needs to have used it yet.

        Raises:
            BadInput: not a cursor.
            Refused, Unavailable: as ``send``.
        """
        session = check_name("session_id", session_id)
        if cursor is not None:
            Cursor.parse(cursor)

        def ask(cursor: str | None) -> httpx2.Request:
            headers = {} if cursor is None else {"last-event-id": cursor}
            return self._request("GET", f"/v1/sessions/{session}/events", headers)

        line = Line(self._http, self._settings, ask, session, cursor, whole_session=True)
        await self._or_close(line, line.opened())
        return EdgeWatch(self, line, session, cursor)

    async def interrupt(self, session_id: str, turn: str | None = None) -> str | None:
        """Stop a turn, or the one at hand; returns the one that stops, None if there is nothing to stop.

        Raises Refused, Unavailable.
        """
        body = {} if turn is None else {"turn": turn}
        return (await self._post(session_id, "interrupt", body, _Stopped)).turn

    async def permit(self, session_id: str, request: str, **said: object) -> None:
        """Answer a question of the CLI's: ``allow``, ``input``, ``reason``, ``turn``.

        Raises as ``Turn.permit``.
        """
        await self._post(session_id, f"permissions/{quote(request, safe='')}", said, _Told)

    async def reach(self) -> None:
        """Is anybody there? Raises Unavailable at once, where ``send`` would wait for somebody to come."""
        await self._answered(lambda: self._request("GET", "/healthz", {}))

    async def past(self, session_id: str, most: int = 50) -> tuple[PastTurn, ...]:
        """The last ``most`` turns of a session that have ended, of those of a day.

        Raises Refused, Unavailable.
        """

        async def page(after: int) -> tuple[list[PastTurn], int | None]:
            found = await self._got(session_id, "/turns", _Page, after=str(after), limit=str(PAGE))
            return found.turns, found.next

        return await last_of(page, most)

    async def waiting(self, session_id: str) -> tuple[WaitingTurn, ...]:
        """The turns of a session that wait or run, in order. Raises Refused, Unavailable."""
        try:
            return tuple((await self._got(session_id, "", _Standing)).messages)
        except Refused as error:
            if error.code == "unknown_session":
                return ()
            raise

    @property
    def connected(self) -> bool:
        """Whether what is followed has a connection at this moment; one that is lost is made again."""
        return not any(line.broken for line in self._lines)

    async def close(self) -> None:
        """Follow nothing any more (iterations end), and disconnect."""
        for line in tuple(self._lines):
            line.end()
        await asyncio.gather(*self._tasks)
        await self._http.aclose()

    # -- requests

    def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None, **query: str
    ) -> httpx2.Request:
        token = self._token() if callable(self._token) else self._token
        given = {**headers, **({"authorization": f"Bearer {token}"} if token else {})}
        return self._http.build_request(method, path, headers=given, content=body, params=query or None)

    def _resumption(self, session: str, cursor: str) -> httpx2.Request:
        return self._request("GET", "/v1/chat/stream", {"last-event-id": cursor}, session_id=session)

    async def _post(self, session: str, what: str, body: Mapping[str, object], kind: type[T]) -> T:
        path = f"/v1/sessions/{check_name('session_id', session)}/{what}"
        headers, content = {"content-type": "application/json", **inject()}, json.dumps(body).encode()
        return await self._told(lambda: self._request("POST", path, headers, content), session, kind)

    async def _got(self, session: str, what: str, kind: type[T], **query: str) -> T:
        path = f"/v1/sessions/{check_name('session_id', session)}{what}"
        return await self._told(lambda: self._request("GET", path, inject(), None, **query), session, kind)

    async def _told(self, request: Callable[[], httpx2.Request], session: str, kind: type[T]) -> T:
        response = await self._answered(request)
        if response.is_error:
            raise error_of(response.status_code, response.content, session)
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.DecodeError as error:
            raise NotAnEdge(f"it sent something else than it was asked for: {error}") from None

    async def _answered(self, request: Callable[[], httpx2.Request]) -> httpx2.Response:
        for _ in range(TRIES - 1):
            try:
                return await self._http.send(request())
            except httpx2.TransportError as error:
                log.debug("the edge did not answer, trying again", error=str(error))
        try:
            return await self._http.send(request())
        except httpx2.TransportError as error:
            raise Unavailable(f"no answer from {self._settings.url}: {error}") from error

    # -- closing

    async def _or_close(self, line: Line, work: Awaitable[T]) -> T:
        self._lines.add(line)
        try:
            return await work
        except BaseException:
            self._let_go(line)
            raise

    def _let_go(self, line: Line) -> None:
        """Close a line beside the rest: who stops reading does not wait for that."""
        task = asyncio.get_running_loop().create_task(line.close())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class EdgeTurn(TurnEvents):
    """An accepted user message, over HTTP: what ``Turn`` is over NATS."""

    def __init__(
        self, edge: EdgeClient, line: Line, turn: str, session: str, cursor: str, on_cancel: OnCancel
    ) -> None:
        super().__init__(turn, session, cursor, on_cancel)
        self._edge = edge
        self._line: Line | None = line
        self._queued: Event | None = None

    def queue(self) -> None:
        """The first event: it is accepted. Made here, as the edge's own gets lost with a connection."""
        queued = TurnQueued(turn=self.id, session_id=self.session_id)
        self._queued = Event(queued.type, queued.encode())

    async def _next(self) -> Event | None:
        queued, self._queued = self._queued, None
        return queued or (None if self._line is None else await self._line.next())

    async def interrupt(self) -> None:
        """Stop the turn, also before it has begun; its end is still to come. Raises Refused, Unavailable."""
        await self._edge.interrupt(self.session_id, self.id)

    async def permit(self, request: str, input: Mapping[str, object] | None = None) -> None:  # noqa: A002
        """Allow what a ``permission_requested`` event asks for. Raises as ``Turn.permit``."""
        verdict(request, allow=True, instead=input)
        said = {} if input is None else {"input": dict(input)}
        await self._edge.permit(self.session_id, request, allow=True, turn=self.id, **said)

    async def deny(self, request: str, reason: str | None = None) -> None:
        """Do not allow it; the model is told the reason, and the turn goes on. Raises as ``permit``."""
        verdict(request, allow=False, reason=reason)
        said = {} if reason is None else {"reason": reason}
        await self._edge.permit(self.session_id, request, allow=False, turn=self.id, **said)

    async def resume(self, cursor: str) -> EdgeTurn:
        """The same turn as a new iteration, from a cursor; this one ends. Raises as ``EdgeClient.resume``."""
        self.close()
        return await self._edge.resume(self.session_id, cursor, on_cancel=self._on_cancel)

    def close(self) -> None:
        """Follow no longer; the turn itself goes on."""
        line, self._line = self._line, None
        if line is not None:
            self._edge._let_go(line)  # noqa: SLF001 - they are one thing in three classes


class EdgeWatch(Events):
    """A session that is being watched, over HTTP: what ``Watch`` is over NATS."""

    def __init__(self, edge: EdgeClient, line: Line, session: str, cursor: str | None) -> None:
        super().__init__(cursor)
        self.session_id = session
        self._edge = edge
        self._line: Line | None = line

    @property
    def cursor(self) -> str | None:
        """Resumes just after the last event that the iteration has given."""
        return self._cursor or (self._line.cursor if self._line else None)

    async def _next(self) -> Event | None:
        return None if self._line is None else await self._line.next()

    def close(self) -> None:
        """Watch no longer."""
        line, self._line = self._line, None
        if line is not None:
            self._edge._let_go(line)  # noqa: SLF001 - they are one thing in three classes
