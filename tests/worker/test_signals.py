"""What signals do to a worker's process."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.client import Asked, Client, connected, eventually
from tests.system.cluster import Cluster, Worker


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, emulator={"DELTAS": "30", "RATE": "10"}) as cluster:
        yield cluster


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with connected(cluster.url, "ww") as client:
        yield client


async def busy(cluster: Cluster, client: Client, **environment: str) -> tuple[Worker, Asked]:
    """A worker and the turn that it runs."""
    (worker,) = await cluster.start_workers(1, environment=environment)
    asked = await client.send("s1", "Hello")
    await eventually(lambda: asked.text, "the answer begins")
    return worker, asked


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
async def test_a_turn_that_runs_ends_first(cluster: Cluster, client: Client, number: signal.Signals) -> None:
    worker, asked = await busy(cluster, client)
    worker.signal(number)
    assert ("turn_completed", 1) == ((await asked.ended())["type"], asked.events[-1]["attempt"])
    assert 0 == await worker.ended()


async def test_a_signal_after_a_drain_that_was_asked_for_does_not_force(
    cluster: Cluster, client: Client
) -> None:
    worker, asked = await busy(cluster, client)
    worker.signal(signal.SIGUSR1)
    await eventually(lambda: "worker drains" in worker.said, "it drains")
    worker.signal(signal.SIGTERM)
    assert ("turn_completed", 1) == ((await asked.ended())["type"], asked.events[-1]["attempt"])
    assert 0 == await worker.ended()


async def test_a_second_signal_forces(cluster: Cluster, client: Client) -> None:
    worker, asked = await busy(
        cluster, client, WARMWIRE_EMULATOR_DELTAS="1000"
    )  # it ends no sooner by itself
    for _ in range(2):
        worker.signal(signal.SIGTERM)
        await eventually(lambda: "worker drains" in worker.said or not worker.running, "it drains")
    assert 1 == await worker.ended()
    assert asked.end is None
