"""One viewer over HTTP: the response that its outbox goes out on. Nothing here waits for anybody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl

from warmwire.broker.logs import logger
from warmwire.broker.telemetry import rungs
from warmwire.edge.delivery.outbox import Outbox
from warmwire.edge.delivery.sse import KEEP_ALIVE

log = logger(__name__)

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",  # no proxy may gather it for compression
    "x-accel-buffering": "no",  # nginx: pass on at once
}
CUT = "warmwire.cut"
"""An ASGI extension: ``close`` cuts the connection at once, unsent bytes and all; ``direct`` is a Direct."""
SLOW = 0.05
"""Seconds that a write may take before the viewer counts as one that does not keep up."""


class Progress:
    """How a connection takes what it is sent: for rung 1 and rung 3 of the ladder."""

    __slots__ = ("_outbox", "last_said", "writing_since")

    def __init__(self, outbox: Outbox, now: float) -> None:
        self._outbox = outbox
        self.last_said = now
        self.writing_since: float | None = None

    def begin(self, now: float) -> None:
        """A write begins."""
        self.last_said = self.writing_since = now

    def end(self, now: float) -> None:
        """It has been taken."""
        self._outbox.slow = now - self.last_said > SLOW
        self.writing_since = None

    def stuck(self, now: float, patience: float) -> bool:
        """Whether a write has not been taken for that many seconds."""
        return self.writing_since is not None and now - self.writing_since > patience

    def give_up(self, cut: Callable[[], None]) -> None:
        """The last rung: whoever takes nothing is cut off, and comes back with a cursor."""
        rungs["cut"].value += 1
        log.warning("viewer takes nothing, disconnected")
        self._outbox.leave()
        cut()


class Writes:
    """What goes out on all connections when this pass of the event loop is over.

    To write in between would have our code and the kernel's push each other out of the caches for each event;
    and what one pass brings for one connection goes out in one piece. It is no more than one read of NATS's
    socket holds; the next pass finds ``write_paused`` where a connection did not take it.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[asyncio.WriteTransport, list[bytes]] = {}

    def add(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Write it when the pass is over."""
        waiting = self._waiting
        if not waiting:
            asyncio.get_running_loop().call_soon(self._write)
        if (parts := waiting.get(transport)) is None:
            waiting[transport] = [data]
        else:
            parts.append(data)

    def flush(self, transport: asyncio.WriteTransport) -> None:
        """Write what waits for this one now."""
        if (parts := self._waiting.pop(transport, None)) is not None:
            _write(transport, parts)

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for transport, parts in waiting.items():
            _write(transport, parts)


def _write(transport: asyncio.WriteTransport, parts: list[bytes]) -> None:
    if not transport.is_closing():
        transport.write(parts[0] if len(parts) == 1 else b"".join(parts))


class Direct:
    """Writes parts of a response whose head has been sent, as uvicorn would, to the connection itself."""

    __slots__ = ("_transport", "_writes", "flow")
    _frame = _chunk = b""  # the last one, which many viewers may get

    def __init__(self, transport: asyncio.WriteTransport, flow: FlowControl, writes: Writes) -> None:
        self._transport = transport
        self._writes = writes
        self.flow = flow

    def write(self, body: bytes) -> None:
        """One chunk; an empty one would be the last."""
        self.flush()
        if body and not self._transport.is_closing():
            self._transport.write(_chunk(body))

    def write_soon(self, body: bytes) -> bool:
        """As ``write``, when this pass of the loop is over; False, and nothing, if earlier parts wait."""
        if self.flow.write_paused:
            return False
        if body is not Direct._frame:
            Direct._frame, Direct._chunk = body, _chunk(body)
        self._writes.add(self._transport, Direct._chunk)
        return True

    def flush(self) -> None:
        """Now, because something is to be written past this."""
        self._writes.flush(self._transport)


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


class EventStream(Response):
    """Writes an outbox as it fills. ``stop`` is called when it is over, whatever ended it."""

    def __init__(
        self,
        outbox: Outbox,
        headers: dict[str, str],
        keepalive: float,
        patience: float,
        stop: Callable[[], None],
    ) -> None:
        super().__init__(headers=HEADERS | headers)
        del self.headers["content-length"]
        self._outbox = outbox
        self._keepalive = keepalive
        self._patience = patience
        self._stops = [stop]
        self._cut: Callable[[], None] = _nothing
        self._direct: Direct | None = None

    def at_end(self, stop: Callable[[], None]) -> None:
        """Call this, too, when it is over."""
        self._stops.append(stop)

    def drop(self) -> None:
        """It is over, or is not sent after all."""
        for stop in self._stops:
            stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope.get("extensions", {}).get(CUT, {})
        self._cut, self._direct = connection.get("close", _nothing), connection.get("direct")
        leaving = asyncio.create_task(until_disconnect(receive))
        leaving.add_done_callback(lambda _: self._outbox.leave())
        progress = Progress(self._outbox, asyncio.get_running_loop().time())
        silence = Silence(self._keepalive, lambda now: self._look(progress, now))
        # A task of its own: in this one each wake-up would walk through all the middleware around us.
        writing = asyncio.create_task(self._write(send, progress))
        try:
            await writing
        finally:
            writing.cancel()
            silence.stop()
            leaving.cancel()
            self.drop()

    async def _write(self, send: Send, progress: Progress) -> None:
        outbox, now, direct = self._outbox, asyncio.get_running_loop().time, self._direct
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if direct is not None:
            outbox.allow_at_once(self._at_once(direct, progress))
        more = True
        while more:
            taken, more = await outbox.take()
            if outbox.gone:
                return
            body = taken[0][0] if len(taken) == 1 else b"".join([frame for frame, _, _ in taken])
            progress.begin(now())
            if more and direct is not None:  # past the middleware, whose part in this is several coroutines
                direct.write(body)
                if direct.flow.write_paused:
                    await direct.flow.drain()
            else:
                if direct is not None:
                    direct.flush()
                await send({"type": "http.response.body", "body": body, "more_body": more})
            progress.end(now())

    def _at_once(self, direct: Direct, progress: Progress) -> Callable[[bytes], bool]:
        now = asyncio.get_running_loop().time

        def write(frame: bytes) -> bool:
            if progress.writing_since is not None or not direct.write_soon(frame):
                return False
            progress.last_said = now()
            return True

        return write

    def _look(self, progress: Progress, now: float) -> float:
        """Says something where nothing was said for a while; returns when to look again."""
        outbox = self._outbox
        if progress.stuck(now, self._patience):
            progress.give_up(self._cut)
        elif now - progress.last_said >= self._keepalive and outbox.idle and progress.writing_since is None:
            outbox.put(KEEP_ALIVE)
            progress.last_said = now
        return progress.last_said + self._keepalive


class Silence:
    """Calls ``look`` when nothing was said for a while: one timer per connection, none per event.

    ``look`` is given the time and returns when it is due next.
    """

    def __init__(self, every: float, look: Callable[[float], float]) -> None:
        self._every = every
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(every, self._due)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _due(self) -> None:
        now = self._loop.time()
        due = self._look(now)
        self._timer = self._loop.call_at(due if due > now else now + self._every, self._due)


def _nothing() -> None:
    """For servers that cannot cut a connection: the response just ends."""


async def until_disconnect(receive: Receive) -> None:
    """Its client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
