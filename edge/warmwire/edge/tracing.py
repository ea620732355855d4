"""One server span per request to the API. Without an OpenTelemetry SDK it costs next to nothing."""

from __future__ import annotations

from opentelemetry.trace import SpanKind
from starlette.types import ASGIApp, Receive, Scope, Send

from warmwire.broker.telemetry import extract, tracer

API = "/v1/"
"""What is traced begins so; pages and probes are not."""


class Traced:
    """ASGI middleware. The caller's ``traceparent`` gets this span as its one child of ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(API):
            await self._app(scope, receive, send)
            return
        context = extract({name.decode(): value.decode("latin-1") for name, value in scope["headers"]})
        method = scope["method"]
        attributes = {"http.request.method": method, "url.path": scope["path"], "url.scheme": scope["scheme"]}
        with tracer().start_as_current_span(
            method, context=context, kind=SpanKind.SERVER, attributes=attributes
        ) as span:
            await self._app(scope, receive, send)
            route = scope.get("route")
            if route is not None:
                span.update_name(f"{method} {route.path}")
                span.set_attribute("http.route", route.path)
