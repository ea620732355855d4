"""``POST /v1/chat/completions``: a turn for OpenAI's clients, as a stream or in one piece."""

from __future__ import annotations

from collections.abc import Callable
from time import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from warmwire.broker.reading.reader import Item
from warmwire.broker.wire.envelope import Envelope
from warmwire.broker.wire.names import SessionKey
from warmwire.edge.access.caller import Viewer
from warmwire.edge.chat import json_body, validated
from warmwire.edge.codecs import openai
from warmwire.edge.codecs.openai import Completion, CompletionRequest
from warmwire.edge.codecs.whole import answered
from warmwire.edge.delivery.outbox import Encoder, Outbox
from warmwire.edge.delivery.viewing import GuideView
from warmwire.edge.documents import openapi, openapi_codecs
from warmwire.edge.edge import Edge
from warmwire.producer.submit import Sessions


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


class Completions:
    """The route; its text is that of the OpenAPI document."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def complete(self, http: Request) -> Response:
        """Send a message as OpenAI's clients do; the session is that of X-Session-Id, or of `user`."""
        edge = self._edge
        caller = await edge.caller(http)
        asked = validated(CompletionRequest, await json_body(http, edge.settings.max_message_bytes))
        request = await edge.admitted(http, caller, asked.chat(http.headers))
        completion = asked.completion(request.turn, time())
        if not asked.stream:
            return await answered(edge, http, request, caller, completion.whole)
        view = CompletionView(
            edge.outbox(), edge.sessions, request.key, request.turn, edge.stop_turn, completion
        )
        return await edge.submit_as(request, Viewer(caller), view)


def router(edge: Edge) -> APIRouter:
    """The route."""
    api = APIRouter(tags=["openai"])
    body = openapi.body(CompletionRequest.model_json_schema(), openapi.KEY)
    complete = Completions(edge).complete
    openapi.serve(api, "POST /v1/chat/completions", complete, openapi_codecs.COMPLETED, body)
    return api
