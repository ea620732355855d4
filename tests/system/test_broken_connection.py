"""A connection that breaks, between the real client and a real server."""

import asyncio

import pytest

from warmwire.broker import bus as nats
from warmwire.broker.errors import Unavailable

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
