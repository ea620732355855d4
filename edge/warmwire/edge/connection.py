"""A connection before and between requests: how many, how large a head, how long each part may take.

uvicorn bounds none of this with httptools. One timer per connection is set anew only when a part ends earlier
than the timer would go off; while a response is on its way there is none.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from enum import Enum

import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from warmwire.broker import telemetry
from warmwire.broker.logs import logger
from warmwire.edge.delivery.stream import CUT, Direct, Writes
from warmwire.edge.errors import Kind, Problem

log = logger(__name__)

ALWAYS = ("/healthz", "/readyz", "/metrics")
"""Answered also when there are too many connections: who looks after the edge must be able to see it."""
EXCESS = 256
"""Connections past the limit that are heard, so that they can be told; the next is told unheard."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one process's connections. Times are in seconds."""

    connections: int
    head_bytes: int
    head_within: float
    body_within: float
    idle: float


class ServerConfig(uvicorn.Config):
    """uvicorn's, with the bounds, and with what goes out together."""

    bounds: Bounds
    writes: Writes


class Part(Enum):
    """What a connection is at."""

    HEAD = "head"
    BODY = "body"
    IDLE = "idle"
    RESPONSE = "response"


class Protocol(HttpToolsProtocol):
    """uvicorn's, bounded; and with a way to cut a connection: closing would wait for who does not read."""

    config: ServerConfig
    cycle: RequestResponseCycle | None  # type: ignore[assignment]  # none before the first request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """Begin to watch the time; close at once what is far too much."""
        super().connection_made(transport)
        self._app, self._bounds = self.app, self.config.bounds
        self._direct = Direct(transport, self.flow, self.config.writes)
        self._part, self._reading, self._head = Part.HEAD, False, 0
        self._refused: Problem | None = None
        self._due = self._set_for = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._excess = len(self.connections) > self._bounds.connections
        if len(self.connections) > self._bounds.connections + EXCESS:
            self._refuse(self._too_many())
        else:
            self._begin(Part.HEAD, self._bounds.head_within)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head that has not ended; httptools would keep any length of it."""
        in_head = self._part is Part.HEAD
        super().data_received(data)
        if in_head and self._part is Part.HEAD:
            self._head += len(data)
            if self._head > self._bounds.head_bytes:
                self._refuse(self._large_head())

    def handle_websocket_upgrade(self) -> None:
        """From here on the WebSocket has times of its own."""
        self._stop_timer()
        if self._refused is not None:
            self._refuse(self._refused)
        else:
            super().handle_websocket_upgrade()

    # -- from the parser

    def on_message_begin(self) -> None:
        """A request begins. Each gets the extension."""
        super().on_message_begin()
        self.scope["extensions"] = {CUT: {"close": self.transport.abort, "direct": self._direct}}
        self._reading, self._head = True, 0
        self._begin(Part.HEAD, self._bounds.head_within)

    def on_headers_complete(self) -> None:
        """Its head is here: the application gets it, or a short answer."""
        self._refused = self._problem()
        self.app = self._app if self._refused is None else _Refusal(self._refused)
        self._begin(Part.BODY, self._bounds.body_within)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of it is here."""
        super().on_message_complete()
        self._reading = False
        self._settle()

    def on_response_complete(self) -> None:
        """A response has been written."""
        super().on_response_complete()
        self._settle()

    # -- ours

    def _problem(self) -> Problem | None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._bounds.head_bytes:
            return self._large_head()
        over = self._excess and len(self.connections) > self._bounds.connections
        if over and self.url.partition(b"?")[0].decode("latin-1") not in ALWAYS:
            return self._too_many()
        return None

    def _large_head(self) -> Problem:
        most = self._bounds.head_bytes
        return Problem(Kind.HEADERS_TOO_LARGE, f"the request's head may have {most} bytes", limit=most)

    def _too_many(self) -> Problem:
        most = self._bounds.connections
        return Problem(Kind.EDGE_FULL, f"this edge serves {most} connections", limit=most)

    def _settle(self) -> None:
        """A request or a response has ended: is the other still on its way?"""
        if self._reading or self._part is Part.HEAD:
            return  # what is being read keeps its time, whatever was answered
        if self.cycle is None or self.cycle.response_complete:
            self._begin(Part.IDLE, self._bounds.idle)
        else:
            self._part = Part.RESPONSE

    def _begin(self, part: Part, within: float) -> None:
        self._part = part
        self._due = self.loop.time() + within
        if self._timer is None or self._due < self._set_for:
            self._set_timer()

    def _set_timer(self) -> None:
        self._stop_timer()
        self._set_for = self._due
        self._timer = self.loop.call_at(self._due, self._look)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._part is Part.RESPONSE or self.transport.is_closing():
            return
        if self.loop.time() < self._due - 0.001:  # uvloop's timers count whole milliseconds
            self._set_timer()
            return
        log.info("connection is too slow, closed", part=self._part.value)
        if self._part is Part.IDLE or (self._part is Part.HEAD and not self._reading):
            self.transport.close()  # nothing was asked
        elif self._may_answer():
            within = self._bounds.head_within if self._part is Part.HEAD else self._bounds.body_within
            detail = f"the request's {self._part.value} did not come within {within:g} seconds"
            self._refuse(Problem(Kind.REQUEST_TIMEOUT, detail, limit=round(within)))
        else:
            self.transport.abort()

    def _may_answer(self) -> bool:
        """Whether nothing of another response, or of this one, has been written and is not complete."""
        cycle = self.cycle
        if cycle is None or (self._part is Part.HEAD and cycle.response_complete):
            return True
        return self._part is Part.BODY and not cycle.response_started and not self.pipeline

    def _refuse(self, problem: Problem) -> None:
        """Without the application, and then close."""
        telemetry.refusals.add(1, {"kind": str(problem.kind)})
        self._stop_timer()
        if not self.transport.is_closing():
            self.transport.write(_raw(problem))
            self.transport.close()


class _Refusal:
    """An application that says no."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        telemetry.refusals.add(1, {"kind": str(problem.kind)})

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(name.encode(), value.encode()) for name, value in _headers(self._problem).items()]
        await send({"type": "http.response.start", "status": self._problem.kind.status, "headers": headers})
        await send({"type": "http.response.body", "body": _body(self._problem)})


def _body(problem: Problem) -> bytes:
    return json.dumps(problem.document()).encode()


def _headers(problem: Problem) -> dict[str, str]:
    return problem.headers() | {
        "content-type": "application/problem+json",
        "content-length": str(len(_body(problem))),
        "connection": "close",
    }


def _raw(problem: Problem) -> bytes:
    head = "".join(f"{name}: {value}\r\n" for name, value in _headers(problem).items())
    return f"HTTP/1.1 {problem.kind.status} \r\n{head}\r\n".encode() + _body(problem)
