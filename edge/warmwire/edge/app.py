"""One edge process: bind, connect, serve, and leave in order.

Leaving, on SIGTERM or SIGINT; a second signal ends the process at once:

1. ``/readyz`` says no: a balancer sends nobody new.
2. Viewers of whole sessions, who would stay for ever, are sent elsewhere, each after a while of its own.
3. The port is closed; other edges on it take the new connections.
4. Streams of a turn go on for ``drain_timeout`` seconds, as most turns end in that time.
5. What is left is finished where it stands; its viewers come back elsewhere with their cursor.
6. The connection to NATS closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from importlib.metadata import version
from time import monotonic

import uvicorn
import uvloop
from fastapi import APIRouter, FastAPI

from warmwire.broker import role
from warmwire.broker.logs import logger
from warmwire.edge import assets, problems, routes, sessions, tickets, websocket
from warmwire.edge.access.limits import FILES_BESIDE, connections_possible
from warmwire.edge.chat import ESCAPED, ROOM
from warmwire.edge.codecs import completions, messages, ui_chat
from warmwire.edge.connection import Bounds, Protocol, ServerConfig
from warmwire.edge.delivery.stream import Writes
from warmwire.edge.documents import openapi
from warmwire.edge.edge import Edge
from warmwire.edge.errors import AddressError
from warmwire.edge.guard import Guard, check_exposure
from warmwire.edge.settings import EdgeSettings
from warmwire.edge.tracing import Traced
from warmwire.edge.websocket import Protocol as WebSocketProtocol

log = logger(__name__)

SOCKET_BUFFER = 128 * 1024
"""Bytes that the kernel may hold per connection; left to itself it takes megabytes for who does not read."""
BACKLOG = 2048
"""Connections that may wait to be accepted."""
LAST_WRITES = 2
"""Seconds that responses get to be written after their end."""
ROUTERS: list[Callable[[Edge], APIRouter]] = [
    routes.router,
    sessions.router,
    completions.router,
    messages.router,
    ui_chat.router,
    websocket.router,
    tickets.router,
]
"""The routes of the API, and who has them. One line adds what another module has."""


def build(edge: Edge) -> FastAPI:
    """The application, around an edge."""
    app = FastAPI(
        title="warmwire",
        version=version("warmwire"),
        description="Chat over server-sent events: every delta the moment it is made.",
        docs_url=None,  # it would load its scripts from elsewhere
        redoc_url=None,
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
        },  # our own span is the caller's one child
        redirect_slashes=False,
    )
    for router in ROUTERS:
        app.include_router(router(edge))
    app.include_router(assets.router())
    problems.answer_problems(app)
    app.add_middleware(Traced)
    app.add_middleware(Guard, settings=edge.settings)
    plain = app.openapi
    app.openapi = lambda: openapi.secured(plain(), optional=edge.access.open)  # type: ignore[method-assign]
    return app


class Server(uvicorn.Server):
    """uvicorn's, which leaves signals to ``serve``: it would end by the signal instead of exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


async def serve(settings: EdgeSettings, listening: socket.socket) -> int:
    """Serve until a signal; returns the exit code."""
    edge = await Edge.started(settings)
    server = Server(server_config(build(edge), settings))
    leave = asyncio.Event()

    def on_signal() -> None:
        if leave.is_set():
            os._exit(1)
        leave.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    serving = asyncio.create_task(server.serve([listening]))
    leaving = asyncio.create_task(leave.wait())
    log.info("edge ready", host=settings.host, port=listening.getsockname()[1])
    await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    edge.drain()
    server.should_exit = True
    await _let_streams_end(edge, settings.drain_timeout)
    await serving
    await edge.stop()
    log.info("edge has left")
    return 0


async def _let_streams_end(edge: Edge, within: float) -> None:
    deadline = monotonic() + within
    while edge.viewers and monotonic() < deadline:  # noqa: ASYNC110 - once in a process's life
        await asyncio.sleep(0.05)
    edge.end_streams()


def server_config(app: FastAPI, settings: EdgeSettings) -> ServerConfig:
    """How uvicorn is run."""
    config = ServerConfig(
        app,
        http=Protocol,
        ws=WebSocketProtocol,
        ws_max_size=settings.max_message_bytes * ESCAPED + ROOM,
        ws_ping_interval=settings.keepalive,
        ws_ping_timeout=settings.viewer_patience,
        ws_per_message_deflate=False,  # tens of kilobytes per connection, and deltas do not shrink
        lifespan="off",
        log_config=None,
        log_level="warning",  # below that it writes whole URLs, with tickets in them
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=round(settings.idle_timeout),
        timeout_graceful_shutdown=round(settings.drain_timeout + LAST_WRITES),
    )
    config.bounds, config.writes = bounds(settings), Writes()
    return config


def bounds(settings: EdgeSettings) -> Bounds:
    """The bounds of connections: as many as are wanted, if this process may open that many files."""
    wanted = settings.max_connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    most = wanted if soft == resource.RLIM_INFINITY else connections_possible(wanted, soft)
    if most < wanted:
        log.warning(
            "fewer connections than wanted: this process may open so many files", most=most, files=soft
        )
    return Bounds(
        connections=most,
        head_bytes=settings.max_header_bytes,
        head_within=settings.header_timeout,
        body_within=settings.body_timeout,
        idle=settings.idle_timeout,
    )


def bind(host: str, port: int) -> socket.socket:
    """The address, shared with other edges on it.

    Raises:
        AddressError: in use by something else, not ours to take, or not of this machine.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER
            )  # inherited by connections
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise AddressError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listening


def main(settings: EdgeSettings) -> int:
    """Run an edge until a signal; returns the exit code."""

    def work() -> int:
        with bind(settings.host, settings.port) as listening:
            check_exposure(settings, listening.getsockname()[0])
            return uvloop.run(serve(settings, listening))

    return role.run("edge", work)
