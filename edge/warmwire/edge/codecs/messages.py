"""``POST /v1/messages`` and ``GET /v1/models``: for Anthropic's SDKs, and the models for OpenAI's as well."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from warmwire.edge.access.caller import Viewer
from warmwire.edge.chat import json_body, validated
from warmwire.edge.codecs.anthropic import Message, MessagesRequest
from warmwire.edge.codecs.openai import DEFAULT_MODEL
from warmwire.edge.codecs.translated import TranslatedOutbox, TranslatedView
from warmwire.edge.codecs.whole import answered
from warmwire.edge.documents import openapi, openapi_codecs
from warmwire.edge.edge import Edge


class Messages:
    """The routes; their texts are those of the OpenAPI document."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def create(self, http: Request) -> Response:
        """Send a message as Anthropic's SDKs do; the session is X-Session-Id, or `metadata.user_id`."""
        edge = self._edge
        caller = await edge.caller(http)
        asked = validated(MessagesRequest, await json_body(http, edge.settings.max_message_bytes))
        request = await edge.admitted(http, caller, asked.chat(http.headers))
        shape = Message(request.turn, asked.model)
        if not asked.stream:
            return await answered(edge, http, request, caller, shape.whole)
        outbox = TranslatedOutbox(shape, edge.settings.viewer_bytes, last=b"")
        view = TranslatedView(outbox, edge.sessions, request.key, request.turn)
        return await edge.submit_as(request, Viewer(caller), view)

    async def models(self, http: Request) -> Response:
        """The models that may be named: `default` is the CLI's own. A message may name others, too."""
        await self._edge.caller(http)
        found = [_model(DEFAULT_MODEL)]
        ends = {"has_more": False, "first_id": DEFAULT_MODEL, "last_id": DEFAULT_MODEL}
        return JSONResponse({"object": "list", "data": found, **ends})

    async def model(self, http: Request, model: str) -> Response:
        """One model, whatever its name: the CLI judges it when a message names it."""
        await self._edge.caller(http)
        return JSONResponse(_model(model))


def router(edge: Edge) -> APIRouter:
    """The routes."""
    api, routes = APIRouter(), Messages(edge)
    body = openapi.body(MessagesRequest.model_json_schema(), openapi.KEY)
    told = openapi_codecs.MESSAGE_ANSWERED
    openapi.serve(api, "POST /v1/messages", routes.create, told, body, "anthropic")
    openapi.serve(api, "GET /v1/models", routes.models, openapi_codecs.MODELS, tag="openai")
    openapi.serve(api, "GET /v1/models/{model}", routes.model, openapi_codecs.MODEL, tag="openai")
    return api


def _model(name: str) -> dict[str, object]:
    """As OpenAI's SDKs read it, and Anthropic's."""
    openais = {"id": name, "object": "model", "created": 0, "owned_by": "warmwire"}
    return {**openais, "type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
