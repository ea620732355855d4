"""The routes: what a path means. The work is done in ``edge``, the checks in ``chat``."""

from __future__ import annotations

from typing import Any, cast

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from opentelemetry.trace import get_current_span
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from warmwire.broker.errors import WarmwireError
from warmwire.broker.names import DEFAULT_TENANT, SessionKey

from .chat import ChatRequest, from_body, from_query
from .edge import Edge
from .errors import Kind, Problem, problem_of

CLOSED_REQUEST = 499
"""What nginx logs for a client that left before its answer; nobody receives it."""


def router(edge: Edge) -> APIRouter:
    """All routes of the API."""
    api = APIRouter()
    limit = edge.settings.max_message_bytes

    async def chat(http: Request) -> Response:
        """Send a message; the response is the stream of its turn, ending with `data: [DONE]`."""
        request = await from_body(http, limit)
        return await edge.submit(request.prepared(limit, http.headers.get("idempotency-key")))

    async def chat_by_url(http: Request) -> Response:
        """The same for a browser's EventSource. With `Last-Event-ID` it resumes and sends nothing."""
        query = dict(http.query_params)
        last_event_id = http.headers.get("last-event-id") or query.pop("last_event_id", None)
        if last_event_id:
            return await edge.resume(SessionKey(DEFAULT_TENANT, query.get("session_id", "")), last_event_id)
        return await edge.submit_once(from_query(query).prepared(limit))

    async def healthz() -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    async def readyz() -> Response:
        """A message would be answered."""
        reason = edge.not_ready()
        if reason is not None:
            raise Problem(Kind.NOT_READY, reason)
        return JSONResponse({"status": "ready"})

    path = "/v1/chat/stream"
    api.add_api_route(path, chat, methods=["POST"], tags=["chat"], openapi_extra=_BODY, responses=_STREAM)
    api.add_api_route(
        path, chat_by_url, methods=["GET"], tags=["chat"], openapi_extra=_QUERY, responses=_RESUMED
    )
    api.add_api_route("/healthz", healthz, methods=["GET"], tags=["operation"])
    api.add_api_route(
        "/readyz", readyz, methods=["GET"], tags=["operation"], responses=_answers(Kind.NOT_READY)
    )
    return api


def answer_problems(app: FastAPI) -> None:
    """Every error answer is a problem document."""

    async def ours(_: Request, error: Exception) -> Response:
        return answer(problem_of(cast(WarmwireError, error)))

    async def http(request: Request, error: Exception) -> Response:
        refused = cast(HTTPException, error)
        if refused.status_code == Kind.METHOD_NOT_ALLOWED.status:
            problem = Problem(Kind.METHOD_NOT_ALLOWED, f"{request.method} {request.url.path}")
        else:
            problem = Problem(Kind.NOT_FOUND, request.url.path)
        return answer(problem, dict(refused.headers or {}))

    async def left(_request: Request, _error: Exception) -> Response:
        return Response(status_code=CLOSED_REQUEST)

    async def bug(_request: Request, _error: Exception) -> Response:
        return answer(Problem(Kind.INTERNAL, "see the edge's log"))

    app.add_exception_handler(WarmwireError, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Exception, bug)


def answer(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The problem as a response."""
    kind = problem.kind
    get_current_span().set_attribute("error.type", str(kind))
    retry = {"retry-after": str(kind.retry_after)} if kind.retry_after else {}
    return JSONResponse(
        problem.document(),
        status_code=kind.status,
        media_type="application/problem+json",
        headers={"cache-control": "no-store"} | retry | (headers or {}),
    )


# -- what the OpenAPI document says beyond the types


def _answers(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    by_status: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        known = by_status.setdefault(kind.status, {"description": "", "content": _PROBLEM})
        known["description"] = f"{known['description']}; `{kind}`: {kind.what}".removeprefix("; ")
    return by_status


_PROBLEM: dict[str, Any] = {
    "application/problem+json": {
        "schema": {
            "type": "object",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": {"type": "string", "format": "uri"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "field": {"type": "string"},
                "limit": {"type": "integer"},
            },
        }
    }
}
_EVENTS: dict[str, Any] = {
    "description": "Server-sent events.",
    "headers": {
        "X-Session-Id": {"schema": {"type": "string"}, "description": "The session, also when made here."}
    },
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
_ACCEPTING = (Kind.KEY_REUSED, Kind.SESSION_BUSY, Kind.QUEUE_FULL, Kind.STORE_FULL, Kind.UNAVAILABLE)
_STREAM = {
    200: _EVENTS,
    **_answers(
        Kind.NOT_JSON,
        Kind.MESSAGE_TOO_LARGE,
        Kind.WRONG_MEDIA_TYPE,
        Kind.INVALID_FIELD,
        Kind.UNKNOWN_FIELD,
        *_ACCEPTING,
    ),
}
_RESUMED = {
    200: _EVENTS,
    204: {"description": "`Last-Event-ID` is the end of the turn: everything has been delivered."},
    **_answers(Kind.MESSAGE_TOO_LARGE, Kind.INVALID_FIELD, Kind.UNKNOWN_FIELD, *_ACCEPTING),
}


def _parameter(
    where: str, name: str, schema: dict[str, Any], text: str, *, required: bool = False
) -> dict[str, Any]:
    return {"in": where, "name": name, "schema": schema, "description": text, "required": required}


_FIELDS = ChatRequest.model_json_schema()
_KEY = _parameter(
    "header",
    "Idempotency-Key",
    {"type": "string", "maxLength": 255},
    "The same key in the same session is the same turn: a repetition follows it and sends nothing.",
)
_BODY: dict[str, Any] = {
    "parameters": [_KEY],
    "requestBody": {"required": True, "content": {"application/json": {"schema": _FIELDS}}},
}
_QUERY: dict[str, Any] = {
    "parameters": [
        _parameter(
            "query",
            name,
            {"type": "string"} if name == "message" else schema,
            "",
            required=name == "session_id",
        )
        for name, schema in _FIELDS["properties"].items()
    ]
    + [
        _parameter(
            "query", "last_event_id", {"type": "string"}, "As `Last-Event-ID`, for clients without headers."
        ),
        _parameter(
            "header", "Last-Event-ID", {"type": "string"}, "The id of the last event that was received."
        ),
    ]
}
