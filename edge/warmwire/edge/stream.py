"""One viewer: what it still has to be sent, and the connection that it goes out on.

The feed's callback puts frames in; one coroutine per connection writes what has gathered, in one piece.
Nothing here waits for anybody else's connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from warmwire.broker.envelope import Envelope
from warmwire.broker.reader import Item

from .sse import DONE, KEEP_ALIVE, Encoder

log = structlog.get_logger(__name__)

HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",  # no proxy may gather it for compression
    "x-accel-buffering": "no",  # nginx: pass on at once
}


CUT = "warmwire.cut"
"""An ASGI extension: its ``close`` closes the connection at once, unsent bytes and all."""


class Viewer:
    """What one connection still has to be sent, bounded to ``limit`` bytes."""

    __slots__ = (
        "_bytes",
        "_encoder",
        "_limit",
        "_open",
        "_waiting",
        "_woken",
        "cut",
        "ended",
        "gone",
        "last_said",
        "turn",
    )

    def __init__(self, turn: str, encoder: Encoder, limit: int) -> None:
        self.turn = turn
        self.ended = False
        self.gone = False
        self.last_said = 0.0
        self.cut: Callable[[], None] = _nothing
        self._encoder = encoder
        self._limit = limit
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._open = False
        self._woken = asyncio.Event()

    def show(self, item: Item) -> None:
        """The sink of a follower: one event of the turn."""
        self.put(self._encoder.frame(item, self.turn))
        if isinstance(item, Envelope) and item.terminal:
            self.put(DONE)
            self.end()

    def put(self, frame: bytes) -> None:
        """Send it when its turn comes. Before the first is sent the bound is what an owner keeps."""
        if self.ended or self.gone:
            return
        if self._open and self._waiting and self._bytes + len(frame) > self._limit:
            self._too_slow()
            return
        self._waiting.append(frame)
        self._bytes += len(frame)
        self._woken.set()

    def end(self) -> None:
        """Nothing more is to come: finish the response once everything is sent."""
        self.ended = True
        self._woken.set()

    def leave(self) -> None:
        """The client is gone."""
        self.gone = True
        self._waiting.clear()
        self._woken.set()

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent."""
        return not self._waiting

    async def take(self) -> tuple[bytes, bool]:
        """All that has gathered, and whether more may come; waits for it."""
        while not (self._waiting or self.ended or self.gone):
            self._woken.clear()
            await self._woken.wait()
        waiting, self._waiting, self._bytes, self._open = self._waiting, [], 0, True
        return waiting[0] if len(waiting) == 1 else b"".join(waiting), not self.ended

    def _too_slow(self) -> None:
        # The place of the ladder: merging and snapshots will come before this last rung.
        # The client has the ids of what it was sent and comes back with the last of them.
        log.warning("viewer is too slow, disconnected", turn=self.turn, waiting=self._bytes)
        self.leave()
        self.cut()


class EventStream(Response):
    """Writes a viewer's frames as they come. ``stop`` is called when it is over, whatever ended it."""

    def __init__(
        self, viewer: Viewer, headers: dict[str, str], keepalive: float, stop: Callable[[], None]
    ) -> None:
        super().__init__(headers=HEADERS | headers)
        del self.headers["content-length"]
        self._viewer = viewer
        self._keepalive = keepalive
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        viewer = self._viewer
        viewer.cut = scope.get("extensions", {}).get(CUT, {}).get("close", _nothing)
        watcher = asyncio.create_task(_until_disconnect(receive))
        watcher.add_done_callback(lambda _: viewer.leave())
        silence = _Silence(viewer, self._keepalive)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._write(send)
        finally:
            silence.stop()
            watcher.cancel()
            self._stop()

    async def _write(self, send: Send) -> None:
        viewer, now = self._viewer, asyncio.get_running_loop().time
        more = True
        while more:
            body, more = await viewer.take()
            if viewer.gone:
                return
            viewer.last_said = now()
            await send({"type": "http.response.body", "body": body, "more_body": more})


class _Silence:
    """Says something when nothing else was said for a while: one timer per connection, none per event."""

    def __init__(self, viewer: Viewer, every: float) -> None:
        self._viewer = viewer
        self._every = every
        self._loop = asyncio.get_running_loop()
        viewer.last_said = self._loop.time()
        self._timer = self._loop.call_later(every, self._look)

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        viewer, now = self._viewer, self._loop.time()
        if now - viewer.last_said >= self._every and viewer.idle:
            viewer.put(KEEP_ALIVE)
            viewer.last_said = now
        due = viewer.last_said + self._every
        self._timer = self._loop.call_at(due if due > now else now + self._every, self._look)


def _nothing() -> None:
    """For servers that cannot cut a connection: the response just ends."""


async def _until_disconnect(receive: Receive) -> None:
    message: dict[str, Any] = {}
    while message.get("type") != "http.disconnect":
        message = dict(await receive())
