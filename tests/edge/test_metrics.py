"""What an edge shows to Prometheus."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from warmwire.edge.settings import EdgeSettings

from tests.client import on_own_streams
from tests.conftest import SECONDS
from tests.edge.access.tokens import bearer, with_secret
from tests.edge.conftest import Start, serving
from tests.edge.fake_worker import FakeWorker
from tests.edge.wire import Wire

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def samples(wire: Wire) -> Samples:
    """What is shown now, by name and labels."""
    answer = await wire.request("GET", "/metrics")
    assert answer.status == 200
    text = (await answer.body()).decode()
    return {
        (sample.name, tuple(sorted((k, v) for k, v in sample.labels.items() if v))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def at(found: Samples, name: str, **labels: str) -> float:
    return found.get((name, tuple(sorted(labels.items()))), 0.0)


async def test_a_turn_counts_once_with_its_ending_and_its_time_to_the_first_delta(
    wire: Wire, worker: FakeWorker
) -> None:
    before = await samples(wire)
    worker.answer_all("Hi")
    await (await wire.post({"session_id": "s1", "message": "Hello"})).until("[DONE]")
    after = await samples(wire)

    def more(name: str, **labels: str) -> float:
        return at(after, name, **labels) - at(before, name, **labels)

    assert more("warmwire_turns_total", ending="completed") == 1
    assert more("warmwire_ttft_seconds_count", stage="accept") == 1
    assert more("warmwire_ttft_seconds_count", stage="viewer") == 1
    assert more("warmwire_ttft_seconds_bucket", stage="viewer", le="+Inf") == 1
    assert more("warmwire_events_shown_total") >= 3


async def test_the_guides_route_counts_its_first_delta_too(wire: Wire, worker: FakeWorker) -> None:
    before = await samples(wire)
    worker.answer_all("Hi")
    answer = await wire.send("POST", "/chat/stream", {"session_id": "s1", "message": "Hello"})
    await answer.body()
    after = await samples(wire)
    count = "warmwire_ttft_seconds_count"
    assert at(after, count, stage="viewer") - at(before, count, stage="viewer") == 1


async def test_heartbeats_show_the_whole_product(wire: Wire) -> None:
    found = await samples(wire)
    assert at(found, "warmwire_workers", state="serving") == 1
    assert at(found, "warmwire_free_slots") > 0
    assert at(found, "warmwire_ready") == 1
    assert at(found, "warmwire_nats_connected") == 1
    assert at(found, "warmwire_resident_bytes") > 1e6


async def test_what_no_worker_takes_is_seen_with_its_age(nats_server: str, prefix: str) -> None:
    settings = EdgeSettings(nats=nats_server, prefix=prefix, port=0, metrics_port=0)
    async with on_own_streams(nats_server, prefix), serving(settings) as serves:
        await (await serves.wire.send("POST", "/v1/sessions/s1/messages", {"message": "Hello"})).body()
        found = await samples(serves.wire)
        async with asyncio.timeout(15 * SECONDS):  # the server counts what waits a moment later
            while at(found, "warmwire_queue_messages") != 1:
                await asyncio.sleep(0.1)
                found = await samples(serves.wire)
        assert 0 <= at(found, "warmwire_queue_age_seconds") < 3600
        assert at(found, "warmwire_ready") == 0
        assert serves.edge.metrics.port is not None
        alone = Wire("127.0.0.1", serves.edge.metrics.port)
        assert await samples(alone)
        await alone.close()


async def test_with_authentication_metrics_take_their_own_scope(start: Start, tmp_path: Path) -> None:
    wire = (await start(**with_secret(tmp_path))).wire
    for headers, status in (
        ({}, 401),
        (bearer(scope="chat:read chat:write sessions:admin"), 403),
        (bearer(scope="metrics:read"), 200),
    ):
        answer = await wire.request("GET", "/metrics", headers)
        assert answer.status == status
        await answer.body()


async def test_a_refusal_is_counted_by_its_kind(wire: Wire) -> None:
    before = await samples(wire)
    await (await wire.request("GET", "/nowhere")).body()
    after = await samples(wire)
    kind = {"kind": "not_found"}
    assert at(after, "warmwire_refusals_total", **kind) - at(before, "warmwire_refusals_total", **kind) == 1
