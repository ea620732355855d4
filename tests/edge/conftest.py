"""An edge that really serves, in the test's own loop, with a fake worker behind a real nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from warmwire.edge.app import Server, bind, build, server_config
from warmwire.edge.edge import Edge
from warmwire.edge.settings import EdgeSettings

from tests.client import eventually
from tests.edge.browser import browser, chromium, context, page, serves  # noqa: F401 - fixtures
from tests.edge.fake_worker import FakeWorker, working
from tests.edge.wire import Wire


@dataclass
class Serving:
    """An edge that serves, and a wire for it."""

    edge: Edge
    wire: Wire
    server: Server


@pytest.fixture
async def worker(nats_server: str, prefix: str) -> AsyncIterator[FakeWorker]:
    """A fake worker."""
    async with working(nats_server, prefix) as worker:
        yield worker


@asynccontextmanager
async def serving(settings: EdgeSettings) -> AsyncIterator[Serving]:
    """An edge with these settings."""
    with bind("127.0.0.1", 0) as listening:
        edge = await Edge.started(settings)
        server = Server(server_config(build(edge), settings))
        task = asyncio.create_task(server.serve([listening]))
        wire = Wire("127.0.0.1", listening.getsockname()[1])
        await eventually(lambda: server.started, "the edge serves")
        try:
            yield Serving(edge, wire, server)
        finally:
            await wire.close()
            edge.end_streams()
            server.should_exit = True
            await task
            await edge.stop()


Start = Callable[..., Awaitable[Serving]]


@pytest.fixture
async def start(nats_server: str, worker: FakeWorker) -> AsyncIterator[Start]:
    """Starts an edge with the given settings, once its worker is known to it."""
    async with AsyncExitStack() as stack:

        async def started(**settings: Any) -> Serving:
            given: dict[str, Any] = {
                "nats": nats_server,
                "prefix": worker.subjects.prefix,
                "port": 0,
                **settings,
            }
            serves = await stack.enter_async_context(serving(EdgeSettings(**given)))
            await eventually(lambda: serves.edge.not_ready() is None, "the edge hears its worker")
            return serves

        yield started


@pytest.fixture
async def wire(start: Start) -> Wire:
    """A wire in front of an edge with the usual settings."""
    return (await start()).wire
