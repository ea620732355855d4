"""The routes: what a path means. The work is done in ``edge``, the checks in ``chat``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from opentelemetry.trace import get_current_span
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match

from warmwire.broker import telemetry
from warmwire.broker.errors import Unavailable, WarmwireError
from warmwire.broker.exposition import CONTENT_TYPE
from warmwire.broker.names import SessionKey
from warmwire.producer.resume import NOWHERE

from . import openai, openapi, sse
from .caller import Need, Viewer
from .chat import Rollup, from_body, from_query, validated
from .edge import Edge, cursor_of
from .errors import CLOSED_REQUEST, Kind, Problem, problem_of
from .stream import HEADERS

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


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


def answer_problems(app: FastAPI) -> None:
    """Every error answer is a problem document."""

    async def ours(request: Request, error: Exception) -> Response:
        problem = problem_of(cast(WarmwireError, error))
        if problem.retry_after and _resumes(request):
            return later(problem.retry_after)
        return answer(problem, for_others=openai.reads_refusals(request.url.path))

    async def http(request: Request, error: Exception) -> Response:
        refused = cast(HTTPException, error)
        if refused.status_code == Kind.METHOD_NOT_ALLOWED.status:
            problem = Problem(Kind.METHOD_NOT_ALLOWED, f"{request.method} {request.url.path}")
            return answer(problem, {"allow": ", ".join(methods_of(app, request))})
        return answer(Problem(Kind.NOT_FOUND, request.url.path), dict(refused.headers or {}))

    async def left(_request: Request, _error: Exception) -> Response:
        return Response(status_code=CLOSED_REQUEST)

    async def bug(_request: Request, _error: Exception) -> Response:
        return answer(Problem(Kind.INTERNAL, "see the edge's log"))

    app.add_exception_handler(WarmwireError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Exception, bug)


def methods_of(app: FastAPI, request: Request) -> list[str]:
    """The methods of a path. Starlette names those of one route alone, and each of ours has one."""
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in app.routes)
    ]


def later(seconds: int) -> Response:
    """For who comes back with a cursor: an error status would end a browser's EventSource for good."""
    return Response(sse.come_back(seconds * 1000), headers=HEADERS)


def _resumes(request: Request) -> bool:
    return request.method == "GET" and (
        "last-event-id" in request.headers or "last_event_id" in request.query_params
    )


def answer(problem: Problem, headers: dict[str, str] | None = None, *, for_others: bool = False) -> Response:
    """The problem as a response; ``for_others``: readable for the SDKs of others, too."""
    kind = problem.kind
    get_current_span().set_attribute("error.type", str(kind))
    telemetry.refusals.add(1, {"kind": str(kind)})
    return JSONResponse(
        problem.document() | (openai.refusal(problem) if for_others else {}),
        status_code=kind.status,
        media_type="application/problem+json",
        headers=problem.headers() | (headers or {}),
    )
