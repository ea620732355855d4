"""The floor: the barest way from a CLI's pipe to a viewer's socket, in uvloop. No sessions that outlive it,
no broker, no events, nothing that may fail. Started by `streams.py`; prints its port.

    python bench/floor.py SOURCE
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import ClassVar, cast

import uvloop

HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
CHUNK = 1 << 18


class Source:
    """A CLI process; what it writes goes to one socket as it is."""

    def __init__(self, command: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([command], stdin=pipe, stdout=pipe, bufsize=0)
        assert self.process.stdout is not None
        self.output = self.process.stdout.fileno()
        os.set_blocking(self.output, False)
        self.viewer: asyncio.Transport | None = None
        asyncio.get_running_loop().add_reader(self.output, self.copy)

    def copy(self) -> None:
        """From the pipe to the socket."""
        data = os.read(self.output, CHUNK)
        if self.viewer is not None:
            self.viewer.write(data)
            if b'"type":"result"' in data:
                self.viewer.close()
                self.viewer = None

    def ask(self, text: str, viewer: asyncio.Transport) -> None:
        """A user message, to be answered to a viewer."""
        self.viewer = viewer
        self.tell(text)

    def tell(self, text: str) -> None:
        """A user message."""
        line = {"type": "user", "message": {"role": "user", "content": text}, "uuid": "u"}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")


class Viewer(asyncio.Protocol):
    """One connection: a POST whose body came with it."""

    sources: ClassVar[dict[str, Source]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        asked = json.loads(data.partition(b"\r\n\r\n")[2])
        source = self.sources.get(asked["session_id"])
        if source is None:
            source = self.sources[asked["session_id"]] = Source(sys.argv[1])
        self.transport.write(HEADERS)
        source.ask(asked["message"], self.transport)


async def main(viewer: type[Viewer] = Viewer) -> None:
    server = await asyncio.get_running_loop().create_server(viewer, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
