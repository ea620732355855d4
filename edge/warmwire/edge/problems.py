"""What is wrong, as an answer: every error is a problem document. What it says is in ``errors``."""

from __future__ import annotations

from typing import cast

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from opentelemetry.trace import get_current_span
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match

from warmwire.broker import telemetry
from warmwire.broker.errors import WarmwireError
from warmwire.edge.delivery import sse
from warmwire.edge.delivery.stream import HEADERS
from warmwire.edge.errors import CLOSED_REQUEST, Kind, Problem, problem_of

SDK_ROUTES = ("/v1/chat/completions", "/v1/messages", "/v1/models")
"""Routes for the SDKs of others, which look for what is wrong in a place of their own."""
_SDK_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


def answer_problems(app: FastAPI) -> None:
    """Every error answer is a problem document."""

    async def ours(request: Request, error: Exception) -> Response:
        problem = problem_of(cast(WarmwireError, error))
        if problem.retry_after and _resumes(request):
            return later(problem.retry_after)
        return answer(problem, for_sdks=request.url.path.startswith(SDK_ROUTES))

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


def answer(problem: Problem, headers: dict[str, str] | None = None, *, for_sdks: bool = False) -> Response:
    """The problem as a response; ``for_sdks``: readable for the SDKs of OpenAI and Anthropic, too."""
    kind = problem.kind
    get_current_span().set_attribute("error.type", str(kind))
    telemetry.refusals.add(1, {"kind": str(kind)})
    return JSONResponse(
        {**problem.document(), **(_for_sdks(problem) if for_sdks else {})},
        status_code=kind.status,
        media_type="application/problem+json",
        headers=problem.headers() | (headers or {}),
    )


def _for_sdks(problem: Problem) -> dict[str, object]:
    kind = problem.kind
    type_ = _SDK_TYPES.get(kind.status, "api_error" if kind.status >= 500 else "invalid_request_error")
    return {"error": {"message": problem.detail, "type": type_, "param": problem.field, "code": str(kind)}}
