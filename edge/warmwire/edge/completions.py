"""``POST /v1/chat/completions``: a turn for OpenAI's clients, as a stream or in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import time

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive

from warmwire.broker.envelope import Envelope
from warmwire.broker.names import SessionKey
from warmwire.broker.reader import Item
from warmwire.producer.answer import Answer, event_of
from warmwire.producer.request import Request as Prepared
from warmwire.producer.submit import Sessions

from . import openai, openapi
from .caller import Need, Viewer
from .chat import json_body, validated
from .credentials import with_credential
from .edge import Edge
from .errors import Kind, Problem
from .openai import Completion, CompletionRequest
from .outbox import Encoder, Outbox
from .viewing import GuideView, TurnView

CLOSED_REQUEST = 499


class CompletionView(GuideView):
    """One turn as chunks; like the guide's, it takes nothing back."""

    def __init__(
        self,
        outbox: Outbox,
        sessions: Sessions,
        key: SessionKey,
        turn: str,
        stop_turn: Callable[[SessionKey, str], None],
        completion: Completion,
    ) -> None:
        self.encoder = Encoder(completion.delta)
        super().__init__(outbox, sessions, key, turn, stop_turn)
        self._completion = completion

    def open(self) -> None:
        """Who answers."""
        self.outbox.put(self._completion.begin())

    def elsewhere(self) -> bytes:
        """This edge leaves; a stream that just ended would pass for a whole answer."""
        return openai.error("edge_leaving", "this edge is leaving; the turn goes on")

    def expired(self) -> bytes:
        """Its token is good no longer."""
        return openai.error("token_expired", "the token has expired: come back with a new one")

    def _put_delta(self, event: bytes, item: Item) -> None:  # noqa: ARG002 - there are no cursors here
        self.outbox.put(self._completion.text(event))

    def _end(self, item: Envelope) -> None:
        if self.channel.behind:
            return
        failed = item.type == "turn_failed"
        self.outbox.put(openai.failure(item) if failed else self._completion.end(item))
        self.outbox.end()

    def _fail(self, why: str, cursor: str) -> None:  # noqa: ARG002 - there are no cursors here
        self.outbox.put(openai.error("text_void", why))
        self.outbox.end()


class WholeView(TurnView):
    """One turn that is waited for: its text, and its end."""

    def __init__(self, outbox: Outbox, sessions: Sessions, key: SessionKey, turn: str) -> None:
        super().__init__(outbox, sessions, key, turn)
        self.answer = Answer()
        self.over = asyncio.Event()
        self.end: Envelope | None = None

    def show(self, item: Item) -> None:
        """An event."""
        self.answer.add(event_of(item, self.turn))
        if isinstance(item, Envelope) and item.terminal:
            self.end = item
            self.over.set()


class Completions:
    """The route; its text is that of the OpenAPI document."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def complete(self, http: Request) -> Response:
        """Send a message as OpenAI's clients do; the session is that of X-Session-Id, or of `user`."""
        edge, limit = self._edge, self._edge.settings.max_message_bytes
        caller = await edge.caller(http)
        asked = validated(CompletionRequest, await json_body(http, limit))
        chat = asked.chat(http.headers)
        request = chat.prepared(limit, http.headers.get("idempotency-key"), caller.tenant)
        request = with_credential(request, http.headers, edge.settings)
        await edge.access.admit(caller, request.key, Need.SEND)
        completion, viewer = asked.completion(request.turn, time()), Viewer(caller)
        if not asked.stream:
            return await self._whole(http, request, viewer, completion)
        view = CompletionView(
            edge.outbox(), edge.sessions, request.key, request.turn, edge.stop_turn, completion
        )
        return await edge.submit_as(request, viewer, view)

    async def _whole(
        self, http: Request, request: Prepared, viewer: Viewer, completion: Completion
    ) -> Response:
        edge = self._edge
        view = WholeView(edge.outbox(), edge.sessions, request.key, request.turn)
        left = edge.admission.stream(viewer.caller)
        edge.entered(view.outbox, view.over.set)
        edge.presence.enter(request.key)
        try:
            await edge.follow_new(request, view)
            await _first(view.over, http.receive)
        finally:
            view.stop()
            edge.deliveries.forget(view.turn)
            edge.presence.leave(request.key)
            edge.left(view.outbox)
            left()
        return self._answer(view, completion)

    def _answer(self, view: WholeView, completion: Completion) -> Response:
        if view.end is None:
            if view.over.is_set():
                raise Problem(Kind.UNAVAILABLE, "this edge is leaving; the turn goes on")
            self._edge.left_early(view.key, view.turn)
            return Response(status_code=CLOSED_REQUEST)
        if view.end.type == "turn_failed":
            found = msgspec.json.decode(view.end.event)
            again = Kind.TURN_FAILED.retry_after if found.get("retryable") else 0
            raise Problem(Kind.TURN_FAILED, f"{found['code']}: {found['message']}", retry_after=again)
        body = msgspec.json.encode(completion.whole(view.answer.text, view.end))
        return Response(body, media_type="application/json", headers={openai.SESSION: view.key.session})


def router(edge: Edge) -> APIRouter:
    """The route."""
    api = APIRouter(tags=["openai"])
    how = openapi.how(openapi.COMPLETED, openapi.body(CompletionRequest.model_json_schema(), openapi.KEY))
    api.add_api_route("/v1/chat/completions", Completions(edge).complete, methods=["POST"], **how)
    return api


async def _first(over: asyncio.Event, receive: Receive) -> None:
    """Wait until the turn is over, or its client has left."""
    ended, gone = asyncio.create_task(over.wait()), asyncio.create_task(_until_disconnect(receive))
    try:
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
        gone.cancel()


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
