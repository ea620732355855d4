"""The chat page: a few files, served as they are, with headers that let nothing else in."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable, Iterator
from hashlib import sha256
from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import Response

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "cache-control": "no-cache",  # kept by the browser, asked about each time: a new version is seen at once
    "content-security-policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "vary": "accept-encoding",
    "x-content-type-options": "nosniff",
}


def router() -> APIRouter:
    """The page's routes: ``/``, and its files below ``/page/``. They are read once."""
    pages = APIRouter(include_in_schema=False)
    for path, media_type, content in page_files():
        pages.add_api_route(path, _route(content, media_type), methods=["GET", "HEAD"])
    return pages


def page_files() -> Iterator[tuple[str, str, bytes]]:
    """Path, media type and content of each file."""
    found = {file.name: file.read_bytes() for file in files("warmwire.edge").joinpath("page").iterdir()}
    for name, content in sorted(found.items()):
        media_type = TYPES["." + name.rpartition(".")[2]]
        if name == "index.html":
            yield "/", media_type, _preloading(content, sorted(found))
        else:
            yield f"/page/{name}", media_type, content


def _preloading(index: bytes, names: list[str]) -> bytes:
    """Names every module, so that a browser need not read one to hear of the next."""
    modules = [name for name in names if name.endswith(".js") and name not in ("page.js", "theme.js")]
    links = "\n  ".join(f'<link rel="modulepreload" href="/page/{name}">' for name in modules)
    return index.replace(b"<!-- modules -->", links.encode())


def _route(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    tag = f'"{sha256(content).hexdigest()[:16]}"'
    headers = HEADERS | {"etag": tag}
    packed = gzip.compress(content, mtime=0)

    async def page(http: Request) -> Response:
        if http.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        if "gzip" in http.headers.get("accept-encoding", ""):
            return Response(packed, media_type=media_type, headers=headers | {"content-encoding": "gzip"})
        return Response(content, media_type=media_type, headers=headers)

    return page
