"""What a worker shows on its ``--metrics-port``."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from warmwire.broker.errors import Misconfigured
from warmwire.broker.exposition import REQUEST_BYTES, Exposed

from tests.edge.test_metrics import at, samples
from tests.edge.wire import Wire
from tests.system.product import end_of, producing


async def test_a_turn_shows_in_every_stage(nats_server: str, tmp_path: Path) -> None:
    async with producing(nats_server, tmp_path) as product, AsyncExitStack() as closing:
        worker = await product.work(metrics_port=0)
        assert worker.metrics is not None
        shown = Wire("127.0.0.1", worker.metrics.port)
        closing.push_async_callback(shown.close)
        before = await samples(shown)
        assert end_of(await product.ask("Hello"))["type"] == "turn_completed"
        after = await samples(shown)

        def more(name: str, **labels: str) -> float:
            return at(after, name, **labels) - at(before, name, **labels)

        count = "warmwire_ttft_seconds_count"
        assert more(count, stage="queue") == 1
        assert more(count, stage="process", tier="spawned") == 1
        assert more(count, stage="cli", tier="spawned") == 1
        assert more(count, stage="worker", tier="spawned") == 1
        assert more("warmwire_processes_provided_total", how="spawned") == 1
        assert more("warmwire_events_sent_total") >= 20


async def test_only_metrics_are_there(nats_server: str, tmp_path: Path) -> None:
    async with producing(nats_server, tmp_path) as product, AsyncExitStack() as closing:
        worker = await product.work(metrics_port=0)
        assert worker.metrics is not None
        shown = Wire("127.0.0.1", worker.metrics.port)
        closing.push_async_callback(shown.close)
        assert (await shown.request("GET", "/v1/chat/stream")).status == 404
        assert (await shown.request("POST", "/metrics")).status == 404
        too_long = await shown.raw(b"GET /" + b"x" * 2 * REQUEST_BYTES)
        assert await too_long.body() == b""


async def test_a_port_that_is_taken_is_named() -> None:
    first = Exposed("127.0.0.1", 0, "test")
    await first.start()
    with pytest.raises(Misconfigured, match=f"port {first.port} .--metrics-port."):
        await Exposed("127.0.0.1", first.port, "test").start()
    await first.stop()
