"""A connection that breaks, between the real client and a real server."""

import asyncio
import gc

import pytest

from warmwire.broker.errors import Unavailable
from warmwire.broker.nats import bus as nats

from tests.conftest import SECONDS
from tests.system.cluster import Proxy, until


async def test_a_request_fails_with_its_connection_and_not_at_its_own_time_limit(nats_server: str) -> None:
    proxy = Proxy(int(nats_server.rsplit(":", 1)[1]))
    await proxy.start()
    bus = await nats.connect(proxy.url, "test")
    asked = list[str]()
    await bus.subscribe("test.silence", lambda message: asked.append(message.reply))
    request = asyncio.create_task(bus.request("test.silence", b"", within=60 * SECONDS))
    await until(lambda: asked, "the question")
    proxy.mend()
    with pytest.raises(Unavailable):
        async with asyncio.timeout(10 * SECONDS):
            await request
    await until(lambda: bus.connected, "the connection")
    await bus.close()
    await proxy.stop()


async def test_a_server_that_hangs_up_on_who_comes_back_leaves_no_socket_open(nats_server: str) -> None:
    proxy = Proxy(int(nats_server.rsplit(":", 1)[1]))
    await proxy.start()
    bus = await nats.connect(proxy.url, "test")
    await proxy.stop()
    callers = list[asyncio.StreamWriter]()

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", int(proxy.url.rsplit(":", 1)[1]))
    await until(lambda: len(callers) >= 3, "three attempts to come back")
    gc.collect()  # what is open and forgotten says so here, and the test fails
    await bus.close()
    server.close()
