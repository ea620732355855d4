"""``POST /v1/tickets``: for browsers, whose EventSource and WebSocket can send no header with a token."""

from __future__ import annotations

from time import time

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from warmwire.edge.chat import SessionId, json_body, validated
from warmwire.edge.documents import openapi
from warmwire.edge.edge import Edge


class Wanted(BaseModel):
    """The body."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"session_id": "s1"}]}
    )

    session_id: SessionId


def router(edge: Edge) -> APIRouter:
    """The one route."""
    api = APIRouter(tags=["tickets"])

    async def issue(http: Request) -> Response:
        """A ticket for one stream of a session: `?ticket=` on a GET stream or a WebSocket."""
        caller = await edge.caller(http)
        session = validated(Wanted, await json_body(http, edge.settings.max_message_bytes)).session_id
        ticket, expires = await edge.access.issue(caller, session)
        content = {"ticket": ticket, "session_id": session, "expires_in": max(0, int(expires - time()))}
        return JSONResponse(content, status_code=201, headers={"cache-control": "no-store"})

    openapi.serve(api, "POST /v1/tickets", issue, openapi.ISSUED, openapi.body(Wanted.model_json_schema()))
    return api
