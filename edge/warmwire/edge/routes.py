"""The routes: what a path means. The work is done in ``edge``, the checks in ``chat``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from warmwire.broker.errors import Unavailable
from warmwire.broker.exposition import CONTENT_TYPE
from warmwire.broker.wire.names import SessionKey
from warmwire.edge.access.caller import Need, Viewer
from warmwire.edge.chat import Rollup, from_body, from_query, validated
from warmwire.edge.documents import openapi
from warmwire.edge.edge import Edge, cursor_of
from warmwire.edge.errors import Kind, Problem
from warmwire.producer.resume import NOWHERE


def router(edge: Edge) -> APIRouter:
    """The routes of the API that are about one message, and those for operators."""
    api = APIRouter()
    limit = edge.settings.max_message_bytes

    async def chat(http: Request) -> Response:
        """Send a message; the response is the stream of its turn, ending with `data: [DONE]`."""
        caller = await edge.caller(http)
        request = await from_body(http, limit)
        prepared = await edge.admitted(http, caller, request)
        return await edge.submit(prepared, Viewer(caller, request.rollup_ms))

    async def chat_by_url(http: Request) -> Response:
        """The same for a browser's EventSource. With `Last-Event-ID` it resumes and sends nothing."""
        return await by_url(http, edge, guide=False)

    async def guide_chat(http: Request) -> Response:
        """As the guide has it: message and session in the query or the body; text deltas alone."""
        caller = await edge.caller(http)
        if http.headers.get("content-type", "").startswith("application/json"):
            request = await from_body(http, limit)
        else:
            request = from_query(http.query_params)
        prepared = await edge.admitted(http, caller, request)
        return await edge.submit(prepared, Viewer(caller, request.rollup_ms, guide=True))

    async def guide_chat_by_url(http: Request) -> Response:
        """The same for a browser's EventSource. With `Last-Event-ID` it resumes and sends nothing."""
        return await by_url(http, edge, guide=True)

    async def healthz() -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    async def readyz() -> Response:
        """A message would be answered."""
        reason = edge.not_ready()
        if reason is not None:
            raise Problem(Kind.NOT_READY, reason)
        return JSONResponse({"status": "ready"})

    openapi.serve(api, "POST /v1/chat/stream", chat, openapi.STREAM, openapi.BODY, "chat")
    openapi.serve(api, "GET /v1/chat/stream", chat_by_url, openapi.RESUMED, openapi.QUERY, "chat")
    openapi.serve(api, "POST /chat/stream", guide_chat, openapi.STREAM, openapi.EITHER, "guide")
    openapi.serve(api, "GET /chat/stream", guide_chat_by_url, openapi.RESUMED, openapi.QUERY, "guide")
    openapi.serve(api, "GET /healthz", healthz, openapi.HEALTHY, tag="operation")
    openapi.serve(api, "GET /readyz", readyz, openapi.READY, tag="operation")
    api.add_api_route("/metrics", showing_metrics(edge), include_in_schema=False)
    return api


def showing_metrics(edge: Edge) -> Callable[[Request], Awaitable[Response]]:
    """The route for Prometheus."""

    async def metrics(http: Request) -> Response:
        """What this edge has counted, and what it sees of the whole product."""
        await edge.access.check_metrics(http)
        return Response(await edge.metrics.text(), media_type=CONTENT_TYPE)

    return metrics


async def by_url(http: Request, edge: Edge, *, guide: bool) -> Response:
    """What an EventSource asks for: a message sent once, and resumed ever after."""
    caller = await edge.caller(http, tickets=True)
    query = dict(http.query_params)
    query.pop("ticket", None)
    in_url = query.pop("last_event_id", None)
    last_event_id = http.headers.get("last-event-id") or in_url
    if last_event_id:
        viewer = Viewer(caller, validated(Rollup, query).rollup_ms, guide)
        key = SessionKey(caller.tenant, query.get("session_id", ""))
        try:
            await edge.access.admit(caller, key, Need.READ)
            await edge.access.redeem(caller, (cursor_of(last_event_id) or NOWHERE).turn, resumes=True)
        except Unavailable as error:
            return edge.empty(key, error, viewer)
        return await edge.resume(key, last_event_id, viewer)
    request = from_query(query)
    prepared = await edge.admitted(http, caller, request)
    await edge.access.redeem(caller, prepared.turn, resumes=False)
    return await edge.submit_once(prepared, Viewer(caller, request.rollup_ms, guide))
