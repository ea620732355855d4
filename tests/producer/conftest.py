"""A producer and the fake worker that answers it, over a real nats-server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from warmwire.producer import Producer

from tests.edge.conftest import prefix, worker
from tests.edge.fake_worker import FakeWorker

__all__ = ["prefix", "producer", "worker"]


@pytest.fixture
async def producer(nats_server: str, worker: FakeWorker) -> AsyncIterator[Producer]:
    """A connected producer."""
    async with Producer.connect(nats_server, worker.subjects.prefix) as producer:
        yield producer
