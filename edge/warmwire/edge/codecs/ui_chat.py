"""``/v1/ui/chat``: for the Vercel AI SDK's ``useChat`` with its own transport."""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic

from fastapi import APIRouter, Request
from starlette.responses import Response

from warmwire.broker.wire.envelope import Cursor
from warmwire.broker.wire.names import SessionKey
from warmwire.edge.access.caller import Need, Viewer
from warmwire.edge.chat import SessionPath, json_body, validated
from warmwire.edge.codecs import ui_message
from warmwire.edge.codecs.translated import TranslatedOutbox, TranslatedView
from warmwire.edge.codecs.ui_message import UiMessage, UiRequest
from warmwire.edge.delivery.stream import EventStream
from warmwire.edge.documents import openapi, openapi_codecs
from warmwire.edge.edge import Edge
from warmwire.edge.errors import Kind, Problem

OWED = 60.0
"""Seconds for which a page whose stream broke may still get a turn that has ended meanwhile."""
OWED_LIMIT = 10_000
"""Sessions of which that is remembered; past it the oldest is forgotten, and resumes only what runs."""


class Owed:
    """Turns of which a page has not had the end, because its stream broke. Time is in seconds."""

    def __init__(self) -> None:
        self._turns: OrderedDict[SessionKey, tuple[str, float]] = OrderedDict()

    def add(self, key: SessionKey, turn: str, now: float) -> None:
        """A stream begins, or broke: it may come back before that is noticed."""
        self.settle(key)
        self._turns[key] = turn, now
        while len(self._turns) > OWED_LIMIT or next(iter(self._turns.values()))[1] < now - OWED:
            self._turns.popitem(last=False)

    def settle(self, key: SessionKey) -> None:
        """The page has what there is."""
        self._turns.pop(key, None)

    def turn(self, key: SessionKey, now: float) -> str | None:
        """The turn of the session that broke last, if that was lately."""
        turn, at = self._turns.get(key, (None, 0.0))
        return turn if now - at <= OWED else None


class UiChat:
    """The routes; their texts are those of the OpenAPI document."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._owed = Owed()

    async def send(self, http: Request) -> Response:
        """Send the last message of a chat as `DefaultChatTransport` does; the session is the chat's `id`."""
        edge = self._edge
        caller = await edge.caller(http)
        chat = validated(UiRequest, await json_body(http, edge.settings.max_message_bytes)).chat()
        request = await edge.admitted(http, caller, chat)
        view = self._view(request.key, request.turn, chat.rollup_ms)
        viewer = Viewer(caller, chat.rollup_ms)
        return self._told(await edge.submit_as(request, viewer, view), view)

    async def resume(self, http: Request, session_id: SessionPath) -> Response:
        """Show the turn that runs from its beginning, as `useChat({resume: true})` asks; never submits."""
        edge = self._edge
        caller = await edge.caller(http)
        key = SessionKey(caller.tenant, session_id)
        try:
            await edge.access.admit(caller, key, Need.READ)
        except Problem as problem:
            if problem.kind is not Kind.UNKNOWN_SESSION:
                raise
            return _nothing(key)  # a chat that has not begun
        running = await edge.sessions.waiting(key)
        turn = running[0].message.turn if running else self._owed.turn(key, monotonic())
        if turn is None or not isinstance(await edge.sessions.judge(key, Cursor(turn, 0, 0)), Cursor):
            return _nothing(key)
        view = self._view(key, turn)
        response = await edge.follow_as(view, Viewer(caller))
        if running or view.end is None or view.end.type != "turn_interrupted":
            return self._told(response, view)
        assert isinstance(response, EventStream)  # noqa: S101 - it is no other, and is not to be sent
        response.drop()
        return _nothing(key)

    def _view(self, key: SessionKey, turn: str, rollup_ms: int = 0) -> TranslatedView:
        edge = self._edge
        outbox = TranslatedOutbox(UiMessage(turn), edge.settings.viewer_bytes, rollup_ms / 1000)
        return TranslatedView(outbox, edge.sessions, key, turn)

    def _told(self, response: Response, view: TranslatedView) -> Response:
        def over() -> None:
            if view.told_all:
                self._owed.settle(view.key)
            else:
                self._owed.add(view.key, view.turn, monotonic())

        self._owed.add(view.key, view.turn, monotonic())
        response.headers.update(ui_message.HEADERS)
        if isinstance(response, EventStream):
            response.at_end(over)
        return response


def router(edge: Edge) -> APIRouter:
    """The routes."""
    api, routes = APIRouter(tags=["ai-sdk"]), UiChat(edge)
    asked = openapi.body(openapi_codecs.UI_FIELDS, openapi.KEY)
    openapi.serve(api, "POST /v1/ui/chat", routes.send, openapi_codecs.UI_STREAM, asked)
    openapi.serve(api, "GET /v1/ui/chat/{session_id}/stream", routes.resume, openapi_codecs.UI_RESUMED)
    return api


def _nothing(key: SessionKey) -> Response:
    return Response(status_code=204, headers={"x-session-id": key.session})
