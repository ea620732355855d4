"""A producer and the fake worker that answers it, over a real nats-server; and an edge between them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from warmwire.producer import Producer
from warmwire.producer.edge_client import EdgeClient

from tests.edge.conftest import Start, start, worker
from tests.edge.fake_worker import FakeWorker

__all__ = ["edge", "producer", "start", "worker"]


@pytest.fixture
async def producer(nats_server: str, worker: FakeWorker) -> AsyncIterator[Producer]:
    """A connected producer."""
    async with Producer.connect(nats_server, worker.subjects.prefix) as producer:
        yield producer


@pytest.fixture
async def edge(start: Start) -> AsyncIterator[EdgeClient]:
    """A client of an edge."""
    serves = await start()
    async with EdgeClient(f"http://127.0.0.1:{serves.wire.port}") as edge:
        yield edge
