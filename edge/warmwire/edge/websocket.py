"""``/v1/chat/ws``: any number of sessions over one connection. And ``/chat/ws``, as the guide has it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial

from fastapi import APIRouter, Request, WebSocket
from fastapi.responses import JSONResponse
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from warmwire.broker.errors import BadInput, WarmwireError
from warmwire.broker.logs import logger
from warmwire.broker.wire.envelope import Cursor
from warmwire.broker.wire.events import TurnQueued
from warmwire.broker.wire.names import SessionKey
from warmwire.edge import frames
from warmwire.edge.access.auth import subprotocol_of
from warmwire.edge.access.caller import Caller, Need, Viewer
from warmwire.edge.access.credentials import with_credential
from warmwire.edge.chat import ROLLUP_LIMIT, ChatRequest
from warmwire.edge.delivery import sse
from warmwire.edge.delivery.outbox import Encoder, Outbox
from warmwire.edge.delivery.stream import CUT, Progress, Silence
from warmwire.edge.delivery.viewing import GuideSocketView, SessionView
from warmwire.edge.documents import asyncapi
from warmwire.edge.edge import Edge
from warmwire.edge.errors import Kind, Problem, problem_of
from warmwire.edge.frames import Close

log = logger(__name__)

SESSIONS_LIMIT = 100
"""Sessions that one connection may watch; past it a frame that would watch one more is refused."""
BAD_FRAMES_LIMIT = 20
"""Frames in a row that are no requests, after which a connection is closed."""
WAITING_LIMIT = 16
"""Messages that may wait on ``/chat/ws``, where one is answered after the other."""


class Protocol(WebSocketsSansIOProtocol):
    """uvicorn's, with a way to cut a connection: closing would wait for a viewer that does not read."""

    async def run_asgi(self) -> None:
        """Give the application the extension."""
        extensions = dict(self.scope.get("extensions") or {})
        self.scope["extensions"] = {**extensions, CUT: {"close": self.transport.abort}}
        await super().run_asgi()


class Line:
    """A connection's way out: writes an outbox as it fills, and closes with a code."""

    def __init__(self, socket: WebSocket, edge: Edge) -> None:
        self._socket = socket
        self._patience = edge.settings.viewer_patience
        self._cut: Callable[[], None] = (socket.scope.get("extensions") or {}).get(CUT, {}).get("close")

    async def write(self, outbox: Outbox) -> None:
        """Until the outbox has ended and is empty, or the client is gone."""
        now = asyncio.get_running_loop().time
        progress = Progress(outbox, now())
        watch = Silence(self._patience / 4, lambda at: self._look(progress, at))
        more = True
        try:
            while more and not outbox.gone:
                taken, more = await outbox.take()
                for frame, _, _ in taken:
                    progress.begin(now())
                    await self._socket.send({"type": "websocket.send", "text": frame.decode()})
                    progress.end(now())
        except (WebSocketDisconnect, RuntimeError, OSError):
            outbox.leave()  # Starlette raises RuntimeError for what is sent after the end
        finally:
            watch.stop()

    async def close(self, code: int, reason: str) -> None:
        """Say why, and close."""
        try:
            await self._socket.close(code, reason)
        except (WebSocketDisconnect, RuntimeError, OSError):
            log.debug("the client was faster")

    def _look(self, progress: Progress, now: float) -> float:
        if progress.stuck(now, self._patience):
            progress.give_up(self._cut)
        return now + self._patience / 4


class Connection:
    """One WebSocket: its sessions share one bounded outbox."""

    encoder = Encoder(frames.encode)

    def __init__(self, edge: Edge, socket: WebSocket, viewer: Viewer) -> None:
        self._edge = edge
        self._socket = socket
        self._caller = viewer.caller
        self._outbox = edge.outbox(viewer.rollup_ms)
        self._views: dict[SessionKey, SessionView] = {}
        self._ending = Close.UNAVAILABLE  # the outbox ends by itself only when it cannot go on
        self._bad = 0
        self._asked = False

    async def run(self) -> None:
        """Serve it, from the handshake to the end."""
        await self._socket.accept(subprotocol_of(self._socket))
        edge, outbox = self._edge, self._outbox
        edge.entered(outbox, lambda: self._end(Close.LEAVING), endless=True)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(edge.age(), self._end, Close.ROTATE)
        silence = loop.call_later(edge.settings.silent_timeout, self._end_if_silent)
        expiry = edge.at_expiry(self._caller, partial(self._end, Close.EXPIRED))
        writing = asyncio.create_task(self._write())
        try:
            await self._read()
        finally:
            timer.cancel()
            silence.cancel()
            if expiry is not None:
                expiry.cancel()
            left_by_itself = not outbox.ended
            outbox.leave()
            await asyncio.wait({writing})
            edge.left(outbox)
            for key in tuple(self._views):
                self._unwatch(key, left=left_by_itself)

    async def _write(self) -> None:
        line = Line(self._socket, self._edge)
        await line.write(self._outbox)
        if self._outbox.ended:
            await line.close(self._ending.code, self._ending.reason)

    def _end_if_silent(self) -> None:
        if not self._asked:
            self._end(Close.SILENT)

    def _end(self, why: Close) -> None:
        self._ending = why
        if why is Close.EXPIRED:
            self._outbox.put(frames.error(Problem(Kind.TOKEN_EXPIRED, why.reason), None))
        elif why is not Close.BAD_FRAMES:
            self._outbox.put(frames.answer("reconnect", None, retry_ms=random.randint(*sse.LEAVING)))
        self._outbox.end()

    # -- requests

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if not self._outbox.ended:
                await self._handle(message.get("text"))

    async def _handle(self, text: str | None) -> None:
        request = None
        try:
            if text is None:
                raise Problem(Kind.NOT_JSON, "frames are text")
            request = frames.read(text)
            self._bad, self._asked = 0, True
            if not isinstance(request, frames.Ping):
                self._edge.admission.request(self._caller)
            await self._obey(request)
        except WarmwireError as error:
            problem = problem_of(error)
            self._bad += request is None
            self._outbox.put(frames.error(problem, request))
            if self._bad >= BAD_FRAMES_LIMIT:
                self._end(Close.BAD_FRAMES)

    async def _obey(self, request: frames.Request) -> None:
        match request:
            case frames.Send():
                await self._send(request)
            case frames.Stop(session_id=session, turn=turn):
                key = await self._admitted(session, Need.CHANGE)
                stopped = await self._edge.sessions.interrupt(key, turn)
                self._confirm("interrupting", request, session_id=session, turn=stopped)
            case frames.Permit(session_id=session):
                answer = request.answer
                await self._edge.sessions.permit(await self._admitted(session, Need.CHANGE), answer)
                self._confirm("answered", request, session_id=session, request=answer.request)
            case frames.Watch(session_id=session, cursor=cursor):
                view = await self._watch(await self._admitted(session, Need.WATCH), cursor, again=True)
                self._confirm("watching", request, session_id=session, cursor=str(view.cursor))
            case frames.Unwatch(session_id=session):
                self._unwatch(SessionKey(self._caller.tenant, session), left=True)
                self._confirm("unwatched", request, session_id=session)
            case frames.Ping():
                self._outbox.put(frames.answer("pong", request))

    def _confirm(self, type_: str, request: frames.Frame, /, **fields: str | None) -> None:
        """Who wants to know has given an id."""
        if request.id is not None:
            self._outbox.put(frames.answer(type_, request, **fields))

    async def _send(self, request: frames.Send) -> None:
        settings, tenant = self._edge.settings, self._caller.tenant
        chat = request.prepared(settings.max_message_bytes, request.idempotency_key, tenant)
        chat = with_credential(chat, self._socket.headers, settings)
        await self._edge.access.admit(self._caller, chat.key, Need.CONVERSE)
        view = await self._watch(chat.key, None, again=False)
        session = view.key.session
        with view.held():  # its first event may be here before we know that it was accepted
            await self._edge.publish_in(view, chat)
            queued = TurnQueued(turn=chat.turn, session_id=session).encode()
            self._outbox.put(frames.event(session, str(Cursor(chat.turn, 0, 0)), queued))
            self._confirm("accepted", request, session_id=session, turn=chat.turn)

    async def _admitted(self, session: str, need: Need) -> SessionKey:
        key = SessionKey(self._caller.tenant, session)
        await self._edge.access.admit(self._caller, key, need)
        return key

    # -- sessions

    async def _watch(self, key: SessionKey, cursor: str | None, *, again: bool) -> SessionView:
        if key in self._views:
            if not again:
                return self._views[key]
            self._unwatch(key, left=False)
        if len(self._views) >= SESSIONS_LIMIT:
            detail = f"one connection watches up to {SESSIONS_LIMIT} sessions"
            raise Problem(Kind.INVALID_FIELD, detail, "session_id", SESSIONS_LIMIT)
        view = SessionView(self._outbox, self._edge.sessions, key, self.encoder)
        readable = cursor is None or _parsed(cursor) is not None
        await view.watch(_parsed(cursor), readable=readable)
        self._views[key] = view
        self._edge.presence.enter(key)
        return view

    def _unwatch(self, key: SessionKey, *, left: bool) -> None:
        view = self._views.pop(key, None)
        if view is not None:
            view.stop()
            self._edge.presence.leave(key)
            if left:
                self._edge.left_early(key)


class GuideConnection:
    """``/chat/ws``: the first text names the session, each further one is a message. Deltas come back."""

    def __init__(self, edge: Edge, socket: WebSocket, caller: Caller) -> None:
        self._edge = edge
        self._socket = socket
        self._caller = caller
        self._expired = False
        self._line = Line(socket, edge)
        self._texts: asyncio.Queue[str | None] = asyncio.Queue(WAITING_LIMIT)
        self._outbox: Outbox | None = None

    async def run(self) -> None:
        """Serve it."""
        await self._socket.accept(subprotocol_of(self._socket))
        expiry = self._edge.at_expiry(self._caller, self._expire)
        reading = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(self._edge.settings.silent_timeout):
                session = await self._texts.get()
            if session is not None:
                await self._converse(SessionKey(self._caller.tenant, session))
            if self._expired:
                await self._line.close(Close.EXPIRED.code, Close.EXPIRED.reason)
        except TimeoutError:
            await self._line.close(Close.SILENT.code, Close.SILENT.reason)
        except WarmwireError as error:
            problem = problem_of(error)
            close = Close.UNAVAILABLE if problem.retry_after else Close.REFUSED
            await self._line.close(close.code, _reason(problem.detail))
        finally:
            reading.cancel()
            if expiry is not None:
                expiry.cancel()

    def _expire(self) -> None:
        self._expired = True
        if self._outbox is not None:
            self._outbox.leave()
        if not self._texts.full():  # else somebody is about to look
            self._texts.put_nowait(None)

    async def _converse(self, key: SessionKey) -> None:
        await self._edge.access.admit(self._caller, key, Need.CONVERSE)
        while (message := await self._texts.get()) is not None:
            if self._expired:
                return
            self._edge.admission.request(self._caller)
            view = await self._turn(ChatRequest(message=message, session_id=key.session))
            if view.failed is not None:
                await self._line.close(Close.TURN_FAILED.code, _reason(view.failed))
                return

    async def _turn(self, chat: ChatRequest) -> GuideSocketView:
        edge = self._edge
        request = chat.prepared(edge.settings.max_message_bytes, None, self._caller.tenant)
        request = with_credential(request, self._socket.headers, edge.settings)
        outbox = self._outbox = edge.outbox()
        view = GuideSocketView(outbox, edge.sessions, request.key, request.turn, edge.stop_turn)
        edge.presence.enter(request.key)
        edge.entered(outbox, outbox.leave)
        try:
            await edge.follow_new(request, view, alone=True)
            await self._line.write(outbox)
        finally:
            self._outbox = None
            view.stop()
            edge.deliveries.forget(request.turn)
            edge.left(outbox)
            edge.presence.leave(request.key)
            if outbox.gone and not view.ended:
                edge.left_early(request.key, request.turn)
        return view

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                if self._outbox is not None:
                    self._outbox.leave()
                await self._texts.put(None)
                return
            await self._texts.put(message.get("text") or "")


def router(edge: Edge) -> APIRouter:
    """Both WebSocket routes."""
    api = APIRouter()

    async def chat(socket: WebSocket) -> None:
        async with _caller(edge, socket) as caller:
            if caller is not None:
                await Connection(edge, socket, Viewer(caller, _rollup(socket))).run()

    async def guide_chat(socket: WebSocket) -> None:
        async with _caller(edge, socket) as caller:
            if caller is not None:
                await GuideConnection(edge, socket, caller).run()

    async def described(http: Request) -> Response:
        return JSONResponse(asyncapi.document(http.app.version))

    api.add_api_websocket_route("/v1/chat/ws", chat)
    api.add_api_websocket_route("/chat/ws", guide_chat)
    api.add_api_route("/asyncapi.json", described, include_in_schema=False)
    return api


@asynccontextmanager
async def _caller(edge: Edge, socket: WebSocket) -> AsyncIterator[Caller | None]:
    """Who connects; None when nobody is let in, and told so: a browser sees no status, but a close code."""
    with ExitStack() as held:
        let_in: Caller | None = None
        try:
            caller = await edge.caller(socket, tickets=True)
            held.callback(edge.admission.stream(caller))
            await edge.access.redeem(caller, "socket", resumes=False)
            let_in = caller
        except WarmwireError as error:
            problem = problem_of(error)
            close = Close.UNAVAILABLE if problem.retry_after else Close.UNAUTHENTICATED
            await socket.accept(subprotocol_of(socket))
            await Line(socket, edge).close(close.code, _reason(f"{problem.kind}: {problem.detail}"))
        yield let_in


def _rollup(socket: WebSocket) -> int:
    given = socket.query_params.get("rollup_ms", "0")
    return min(int(given), ROLLUP_LIMIT) if given.isdecimal() and len(given) < 9 else 0


def _parsed(cursor: str | None) -> Cursor | None:
    try:
        return Cursor.parse(cursor) if cursor else None
    except BadInput:
        return None


def _reason(text: str) -> str:
    """What fits into a close frame: 123 bytes."""
    return text.encode()[:120].decode(errors="ignore")
