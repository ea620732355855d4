"""A way to a server on which connections are cut: each after a few bytes, until there were enough."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

ABORT = struct.pack("ii", 1, 0)
"""``SO_LINGER``: what was not sent is dropped and the other side is told so (RST)."""


class ChaosProxy:
    """Use ``cutting``. ``cuts`` counts; ``left`` are still to come."""

    def __init__(self, host: str, port: int, cuts: int, most: int, seed: int) -> None:
        self.cuts = 0
        self.left = cuts
        self.port = 0
        self._target = host, port
        self._most = most
        self._random = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection. Of those that come while it stops the loop tells a moment later."""
        if self._stopped:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())  # also of one that was cancelled before it began

    async def stop(self) -> None:
        """Cut what is left."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        up = asyncio.create_task(self._copy(reader, back, None))
        budget = self._random.randrange(self._most)
        down = asyncio.create_task(self._copy(there, writer, budget))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for copying in (up, down):
                copying.cancel()
            back.close()  # before the wait, which may be cancelled
            await asyncio.gather(up, down, return_exceptions=True)

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int | None
    ) -> None:
        """Pass on what comes, or as many bytes of it as may pass; then the end, rude every other time."""
        while data := await reader.read(65536):
            if budget is not None and self.left and len(data) > budget:
                self.left, self.cuts = self.left - 1, self.cuts + 1
                writer.write(data[:budget])
                if self.cuts % 2:
                    connection: socket.socket = writer.get_extra_info("socket")
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
                else:
                    await writer.drain()
                return
            writer.write(data)
            await writer.drain()
            budget = None if budget is None else budget - len(data)


@asynccontextmanager
async def cutting(
    host: str, port: int, *, cuts: int, most: int, seed: int = 0, at: int = 0
) -> AsyncIterator[ChaosProxy]:
    """A proxy that cuts so many connections, each before it has carried ``most`` bytes to the client.

    ``at``: the port it listens on; 0 takes a free one.
    """
    proxy = ChaosProxy(host, port, cuts, most, seed)
    server = await asyncio.start_server(proxy.begin, "127.0.0.1", at)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.stop()
        await server.wait_closed()
