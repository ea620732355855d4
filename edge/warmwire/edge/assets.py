"""The chat page: a few files, served as they are, with headers that let nothing else in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import Response

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/answer.js": ("answer.js", "text/javascript; charset=utf-8"),
    "/stream.js": ("stream.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "cache-control": "no-cache",  # kept by the browser, asked about each time: a new version is seen at once
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def router() -> APIRouter:
    """The page's routes. The files are read once."""
    pages = APIRouter(include_in_schema=False)
    for path, (name, media_type) in FILES.items():
        content = files("warmwire.edge").joinpath("page", name).read_bytes()
        pages.add_api_route(path, _route(content, media_type), methods=["GET", "HEAD"])
    return pages


def _route(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    tag = f'"{sha256(content).hexdigest()[:16]}"'
    headers = HEADERS | {"etag": tag}

    async def page(http: Request) -> Response:
        if http.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return page
