"""What a request must look like before anybody asks who sends it: the Host and the Origin that it names.

A page of another site may make its visitor's browser send requests here, over names that it lets point here,
too (DNS rebinding). Browsers say where a page is from, so what comes from elsewhere is refused:
https://fetch.spec.whatwg.org/#http-cors-protocol, https://www.w3.org/TR/fetch-metadata/
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from warmwire.broker.errors import Misconfigured
from warmwire.broker.logs import logger
from warmwire.edge.errors import Kind, Problem
from warmwire.edge.problems import answer
from warmwire.edge.settings import EdgeSettings

log = logger(__name__)

GUARDED = ("/v1/", "/chat/")
"""What is for pages of the edge, and of allowed origins, alone. The rest holds nothing of anybody's."""
PROBES = ("/healthz", "/readyz")
"""What is asked for by whatever name."""
EXPOSED = "x-session-id, retry-after, www-authenticate"
"""Headers of answers that pages of allowed origins may read."""
PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, DELETE",
    "access-control-allow-headers": "authorization, content-type, idempotency-key, last-event-id, "
    "traceparent, tracestate, x-session-id, x-warmwire-token",
    "access-control-max-age": "600",
    "vary": "origin",
}

_PORTS = {"http": 80, "https": 443}
_ELSEWHERE = ("cross-site", "same-site")


class Guard:
    """ASGI middleware: refuses what comes from pages elsewhere, and answers those of allowed origins."""

    def __init__(self, app: ASGIApp, settings: EdgeSettings) -> None:
        self._app = app
        self._origins = settings.origins
        self._hosts = None if settings.auth != "off" else settings.hosts | {settings.host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        problem = self._problem(scope, headers)
        if problem is not None:
            await answer(problem)(scope, receive, send)
            return
        origin = headers.get("origin")
        if origin is None or origin.lower() not in self._origins or scope["type"] == "websocket":
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            preflight = Response(status_code=204, headers=PREFLIGHT | {"access-control-allow-origin": origin})
            await preflight(scope, receive, send)
        else:
            await self._app(scope, receive, _answering(send, origin))

    def _problem(self, scope: Scope, headers: Mapping[str, str]) -> Problem | None:
        path: str = scope["path"]
        host, hosts = headers.get("host"), self._hosts if path not in PROBES else None
        if hosts is not None and host is not None and not is_ours(host, hosts):
            detail = "without authentication an edge is asked for as localhost or by an IP address, "
            return Problem(Kind.FOREIGN_HOST, f"{detail}else by a name in --allowed-hosts", "host")
        if path.startswith(GUARDED) and is_foreign(headers, self._origins):
            return Problem(Kind.FOREIGN_ORIGIN, "its origin is not in --allowed-origins", "origin")
        return None


def is_ours(host: str, hosts: frozenset[str]) -> bool:
    """Whether a Host header names this edge. An address does: what rebinds is always a name. Pure."""
    name, _ = _split(host, 0)
    return name == "localhost" or name.endswith(".localhost") or name in hosts or _is_address(name)


def is_foreign(headers: Mapping[str, str], origins: frozenset[str]) -> bool:
    """Whether a page of another origin, which is not allowed, has made a browser send this. Pure."""
    origin = headers.get("origin")
    if origin is None:  # as with images; no browser lets a page write this header
        return headers.get("sec-fetch-site") in _ELSEWHERE
    if origin.lower() in origins:
        return False
    scheme, _, rest = origin.partition("://")
    default = _PORTS.get(scheme.lower(), 0)
    asks = _split(rest, default)
    return not asks[0] or asks != _split(headers.get("host", ""), default)


def check_exposure(settings: EdgeSettings, ip: str) -> None:
    """Without authentication an edge listens on loopback alone, unless wanted. Raises Misconfigured."""
    if settings.auth != "off" or ip_address(ip).is_loopback:
        return
    if not settings.insecure_no_auth:
        raise Misconfigured(refusal(ip))
    log.warning("authentication is off: whoever reaches this address may read and write everything", ip=ip)


def refusal(host: str) -> str:
    """Why that address is not listened on, and what to do."""
    return (
        f"{host} is reached from other machines, and authentication is off: set WARMWIRE_AUTH=jwt with a key "
        "(docs/security.md), or --insecure-no-auth to let everybody in"
    )


def _answering(send: Send, origin: str) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["access-control-allow-origin"] = origin
            headers["access-control-expose-headers"] = EXPOSED
            headers.add_vary_header("origin")
        await send(message)

    return with_headers


def _split(netloc: str, default: int) -> tuple[str, int]:
    """Name and port; what cannot be read is nobody's name."""
    try:
        parts = urlsplit(f"//{netloc}")
        name, port = parts.hostname, parts.port
    except ValueError:
        return "", -1
    return name or "", port or default


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
