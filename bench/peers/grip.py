"""What stands behind pushpin: it has requests held, and publishes what the source says. Prints its port.

    python -m bench.peers.grip SOURCE PUBLISH

PUBLISH is pushpin's address for ZeroMQ publishers. An XPUB socket hears when pushpin has subscribed to a
channel; the source is asked then, so nothing is lost. What one read of a pipe brings is one item.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import zmq
from fastapi import FastAPI, Response

from bench.baseline import Chat, serve
from bench.peers.lines import Lines

UNBOUNDED = 0
"""What waits for pushpin must not be dropped by ZeroMQ."""
LINGER = 1000
"""Milliseconds that are left to what waits when it ends."""

publisher: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.XPUB)
sources: dict[str, Published] = {}
waiting: dict[bytes, tuple[str, str]] = {}
numbers = count()


def text(value: bytes) -> bytes:
    """As a tnetstring, which is what pushpin's parts speak to each other."""
    return b"%d:%s," % (len(value), value)


def holding(key: bytes, value: bytes) -> bytes:
    """A dictionary of one entry, the same way."""
    entry = text(key) + value
    return b"%d:%s}" % (len(entry), entry)


class Published(Lines):
    """A source whose events go to a channel."""

    channel = b""

    def show(self, events: list[bytes]) -> None:
        content = b"".join(b"data: %s\n\n" % event for event in events)
        item = holding(b"formats", holding(b"http-stream", holding(b"content", text(content))))
        publisher.send_multipart([self.channel, b"T" + item], zmq.NOBLOCK, copy=True)
        hear()

    def finish(self) -> None:
        item = holding(b"formats", holding(b"http-stream", holding(b"action", text(b"close"))))
        publisher.send_multipart([self.channel, b"T" + item], zmq.NOBLOCK)


def hear() -> None:
    """To what pushpin has subscribed; the socket's file says only once that there is something."""
    while int(publisher.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
        said = publisher.recv()
        if said[:1] == b"\x01" and said[1:] in waiting:
            session, message = waiting.pop(said[1:])
            source = sources[session]
            source.channel = said[1:]
            source.tell(message)


@asynccontextmanager
async def heard(_: FastAPI) -> AsyncIterator[None]:
    """Listen to pushpin while it runs."""
    publisher.setsockopt(zmq.SNDHWM, UNBOUNDED)
    publisher.setsockopt(zmq.LINGER, LINGER)
    publisher.connect(sys.argv[2])
    asyncio.get_running_loop().add_reader(int(publisher.getsockopt(zmq.FD)), hear)
    yield
    publisher.close()


app = FastAPI(lifespan=heard)


@app.post("/v1/chat/stream")
async def chat(asked: Chat) -> Response:
    """Held by pushpin, as a stream of a channel of its own."""
    if asked.session_id not in sources:
        sources[asked.session_id] = Published(sys.argv[1])
    channel = f"{asked.session_id}-{next(numbers):09d}"
    waiting[channel.encode()] = asked.session_id, asked.message
    return Response(media_type="text/event-stream", headers={"Grip-Hold": "stream", "Grip-Channel": channel})


if __name__ == "__main__":
    serve(app)
