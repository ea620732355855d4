"""Roles of two versions at a time: what one does not know of another's is ignored, other `v` are refused."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from time import time_ns
from typing import Any

import pytest

from warmwire.broker.wire.envelope import EnvelopeWriter
from warmwire.broker.wire.messages import OwnerRecord, UserMessage
from warmwire.broker.wire.names import DEFAULT_TENANT, SessionKey, turn_id_for
from warmwire.edge.settings import EdgeSettings
from warmwire.producer import Producer

from tests.client import eventually
from tests.conftest import SECONDS
from tests.edge.conftest import Serving, serving
from tests.edge.fake_worker import FakeWorker, working
from tests.edge.test_metrics import at, samples
from tests.edge.wire import Wire
from tests.system.product import Product, end_of, ended, producing

KEY = SessionKey(DEFAULT_TENANT, "s1")
FUTURE: dict[str, Any] = {"of_a_later_version": {"x": [1, None]}}


@pytest.fixture
async def product(nats_server: str, tmp_path: Path) -> AsyncIterator[Product]:
    async with producing(nats_server, tmp_path) as product:
        await product.work()
        yield product


@pytest.fixture
async def faked(nats_server: str) -> AsyncIterator[tuple[Serving, FakeWorker]]:
    """An edge, and a worker that says what a test wants."""
    async with working(nats_server, f"t{secrets.token_hex(6)}") as worker:
        settings = EdgeSettings(nats=nats_server, prefix=worker.subjects.prefix, port=0)
        async with serving(settings) as edge:
            await eventually(lambda: edge.edge.not_ready() is None, "the edge hears its worker")
            yield edge, worker


async def refused(wire: Wire) -> float:
    """How many messages were refused so far, by any role of this process."""
    return at(await samples(wire), "warmwire_alien_messages_total")


async def sent(product: Product, **changed: Any) -> None:
    """A user message in the queue, changed as another version would write it."""
    message = UserMessage(turn=f"t{time_ns()}", content="Hello", sent_ms=time_ns() // 1_000_000)
    data = json.dumps(json.loads(message.encode()) | changed).encode()
    subject = product.edge.sessions._subjects.requests(KEY)
    await product.edge._bus.js.publish(subject, data)


async def test_a_message_with_what_a_later_version_adds_is_answered(product: Product) -> None:
    before = await refused(product.wire)
    watch = await product.wire.watch("s1")
    await sent(product, **FUTURE)
    assert "turn_completed" == (await watch.until("turn_completed"))[-1][0]
    assert before == await refused(product.wire)


@pytest.mark.parametrize(
    ("changed", "named"), [({"v": 2}, "UserMessage.v:"), ({"options": {"model": 1}}, "options.model:")]
)
async def test_a_message_of_another_version_ends_for_its_sender_and_the_next_is_answered(
    product: Product, changed: dict[str, Any], named: str
) -> None:
    before = await refused(product.wire)
    watch = await product.wire.watch("s1")
    await sent(product, **changed)
    end = end_of(await watch.until("turn_failed"))
    assert ("unreadable_message", False) == (end["code"], end["retryable"])
    assert named in end["message"]
    assert "turn_completed" == (await product.ask("Hello"))[-1][0]
    assert before + 1 == await refused(product.wire)


async def test_a_message_of_another_version_ends_for_a_producer_whoever_pulls_it(product: Product) -> None:
    await product.work()
    await product.ask("Hello")
    async with Producer.connect(product.given["nats"], product.given["prefix"]) as producer:
        watch = await producer.watch("s1")
        for _ in range(4):
            await sent(product, v=2)
        ends: list[str] = []
        async with asyncio.timeout(30 * SECONDS):
            async for event in watch:
                ends += [event.data["code"]] if event.type == "turn_failed" else []
                if len(ends) == 4:
                    break
    assert {"unreadable_message"} == set(ends)


async def test_who_sends_what_could_not_be_read_once_more_is_told_the_same_end(product: Product) -> None:
    watch = await product.wire.watch("s1")
    await sent(product, v=2, turn=turn_id_for(DEFAULT_TENANT, "s1", "a-key"))
    told = end_of(await watch.until("turn_failed"))
    body = {"session_id": "s1", "message": "Hello"}
    again = await product.wire.post(body, {"idempotency-key": "a-key"})
    assert told == end_of(await ended(again))


async def test_a_message_without_a_turn_is_refused_and_counted_and_the_next_is_answered(
    product: Product,
) -> None:
    before = await refused(product.wire)
    await sent(product, turn=1)
    assert "turn_completed" == (await product.ask("Hello"))[-1][0]
    assert before + 1 == await refused(product.wire)


async def test_an_event_of_a_kind_that_nobody_knows_reaches_the_viewer_and_breaks_nothing(
    faked: tuple[Serving, FakeWorker],
) -> None:
    edge, worker = faked
    answer = await edge.wire.post({"session_id": "s1", "message": "Hello"})
    turn = await worker.next_turn()
    await turn.start()
    await turn.publish(b'{"type":"from_the_future","x":1}')
    await turn.delta("Hi")
    await turn.complete()
    seen = await answer.until("[DONE]")
    assert ("from_the_future", {"type": "from_the_future", "x": 1}) == next(
        (type_, data) for type_, data, _ in seen if type_ == "from_the_future"
    )
    assert "turn_completed" == seen[-2][0]


async def test_an_envelope_with_what_a_later_version_adds_is_shown(
    faked: tuple[Serving, FakeWorker],
) -> None:
    edge, worker = faked
    watch = await edge.wire.watch("s1")
    await watch.frame()
    envelope = json.loads(await claimed(worker)) | FUTURE
    await worker.bus.publish(worker.subjects.events(KEY), json.dumps(envelope).encode())
    assert "message_start" == (await watch.until("message_start"))[-1][0]


async def test_an_event_of_another_version_is_refused_and_counted(
    faked: tuple[Serving, FakeWorker],
) -> None:
    edge, worker = faked
    before = await refused(edge.wire)
    watch = await edge.wire.watch("s1")
    await watch.frame()
    envelope = await claimed(worker)
    await worker.bus.publish(worker.subjects.events(KEY), envelope.replace(b'"v":1', b'"v":2'))
    await worker.bus.publish(worker.subjects.events(KEY), envelope)
    seen = await watch.until("message_start")
    assert 1 == len([type_ for type_, _, _ in seen if type_ == "message_start"])
    assert before + 1 == await refused(edge.wire)


async def claimed(worker: FakeWorker) -> bytes:
    """The first event of a worker that has claimed the session."""
    epoch = await worker.store.claim(KEY, OwnerRecord(worker=worker.id, nonce="n"), 0)
    return EnvelopeWriter(epoch, "t1", 1).wrap(1, b'{"type":"message_start"}')
