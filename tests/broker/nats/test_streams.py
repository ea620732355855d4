"""Streams: made once, checked by everybody, and clear words where the server cannot give them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from nats.js import api

from warmwire.broker.errors import Misconfigured, Unavailable
from warmwire.broker.nats import streams
from warmwire.broker.nats.bus import Arrived
from warmwire.broker.nats.streams import ACK_PENDING, ACK_WAIT, CONSUMER, QUEUED_PER_SESSION
from warmwire.broker.wire.messages import OwnerRecord
from warmwire.broker.wire.names import Subjects

from tests.broker.conftest import Broker, Connect

NOW_MS = 1_764_000_000_042


async def test_they_are_made_and_found_again(bare: Broker) -> None:
    await streams.ensure(bare.bus, bare.subjects, 1, NOW_MS)
    await streams.ensure(bare.bus, bare.subjects, 1, NOW_MS + 1)
    names = {info.config.name for info in await bare.bus.js.streams_info()}
    subjects = bare.subjects
    assert {subjects.request_stream, subjects.state_stream, subjects.log_stream} <= names


async def test_several_roles_may_make_them_at_the_same_moment(bare: Broker) -> None:
    await asyncio.gather(
        *(streams.ensure(bare.bus, bare.subjects, 1, NOW_MS + number) for number in range(8))
    )


async def test_the_server_keeps_the_limits_that_are_wanted(broker: Broker) -> None:
    queue = (await broker.bus.js.stream_info(broker.subjects.request_stream)).config
    assert api.RetentionPolicy.WORK_QUEUE == queue.retention
    assert QUEUED_PER_SESSION == queue.max_msgs_per_subject
    assert queue.discard_new_per_subject
    assert not queue.max_age
    workers = (await broker.bus.js.consumer_info(broker.subjects.request_stream, CONSUMER)).config
    assert (ACK_WAIT, ACK_PENDING, -1) == (workers.ack_wait, workers.max_ack_pending, workers.max_deliver)


async def test_a_stream_of_a_version_that_knew_fewer_records_takes_the_new_ones_and_keeps_the_old(
    bare: Broker,
) -> None:
    state = streams.wanted_streams(bare.subjects, 1, NOW_MS)[1]
    await bare.bus.js.add_stream(replace(state, subjects=(state.subjects or [])[:1]))
    epoch = await bare.store.claim(bare.key, OwnerRecord(worker="w", nonce="n"), 0)
    await streams.ensure(bare.bus, bare.subjects, 1, NOW_MS + 1)
    await bare.store.ask_interrupt(bare.key, "turn")
    owned = await bare.store.owner(bare.key)
    assert owned is not None
    assert (NOW_MS, NOW_MS) == (epoch, owned.sequence)


async def test_epochs_begin_at_the_time_the_stream_was_made(bare: Broker) -> None:
    """So a stream that is lost and made again gives no epoch that has been."""
    await streams.ensure(bare.bus, bare.subjects, 1, NOW_MS)
    assert NOW_MS == await bare.store.claim(bare.key, OwnerRecord(worker="w", nonce="n"), 0)


@pytest.mark.parametrize(
    ("stream", "field", "value"),
    [
        (0, "retention", api.RetentionPolicy.LIMITS),
        (0, "max_msgs_per_subject", 17),
        (0, "max_bytes", 4096),
        (0, "max_age", 3600),
        (0, "storage", api.StorageType.MEMORY),
        (0, "duplicate_window", 1),
        (0, "subjects", ["{prefix}.req.one.*"]),
        (1, "max_msgs_per_subject", 2),
        (1, "allow_msg_ttl", None),
        (1, "max_age", 3600),
        (2, "max_msgs_per_subject", 1),
        (2, "max_bytes", 4096),
    ],
)
async def test_one_that_is_different_ends_the_start_and_says_what_to_do(
    bare: Broker, stream: int, field: str, value: object
) -> None:
    wanted = streams.wanted_streams(bare.subjects, 1, NOW_MS)[stream]
    if isinstance(value, list):
        value = [text.format(prefix=bare.subjects.prefix) for text in value]
    different = replace(wanted, **{field: value})  # type: ignore[arg-type]
    await bare.bus.js.add_stream(different)
    with pytest.raises(Misconfigured, match=f"stream {wanted.name} exists with another .*{field}") as caught:
        await streams.ensure(bare.bus, bare.subjects, 1, NOW_MS)
    assert "remove it, or set another --prefix" in str(caught.value)


class TestAConsumerThatIsDifferent:
    async def made(self, broker: Broker, **changes: object) -> None:
        await broker.bus.js.add_stream(streams.wanted_streams(broker.subjects, 1, NOW_MS)[0])
        different = replace(streams.wanted_consumer(broker.subjects), **changes)  # type: ignore[arg-type]
        await broker.bus.js.add_consumer(broker.subjects.request_stream, different)

    async def test_is_set_right(self, bare: Broker) -> None:
        await self.made(bare, ack_wait=30.0, max_ack_pending=10, max_deliver=3)
        await streams.ensure(bare.bus, bare.subjects, 1, NOW_MS)
        workers = (await bare.bus.js.consumer_info(bare.subjects.request_stream, CONSUMER)).config
        assert (ACK_WAIT, ACK_PENDING, -1) == (workers.ack_wait, workers.max_ack_pending, workers.max_deliver)

    async def test_ends_the_start_where_it_cannot_be_changed(self, bare: Broker) -> None:
        await self.made(bare, max_waiting=1)
        with pytest.raises(Misconfigured, match=r"refuses consumer workers of .*max waiting.*remove"):
            await streams.ensure(bare.bus, bare.subjects, 1, NOW_MS)


async def test_copies_that_a_single_server_cannot_keep_end_the_start(bare: Broker) -> None:
    with pytest.raises(Misconfigured, match=r"cannot keep 3 copies.*--replicas 1"):
        await streams.ensure(bare.bus, bare.subjects, 3, NOW_MS)


async def test_a_server_without_jetstream_ends_the_start(without_jetstream: str, connect_to: Connect) -> None:
    bus = (await connect_to(without_jetstream)).bus
    with pytest.raises(Misconfigured, match="no JetStream: start it with -js"):
        await streams.ensure(bus, Subjects(), 1, NOW_MS)


async def test_a_server_without_room_ends_the_start(without_room: str, connect_to: Connect) -> None:
    bus = (await connect_to(without_room)).bus
    with pytest.raises(Misconfigured, match=r"no room for stream WW_REQ: .* 1024 MiB; .*max_file_store"):
        await streams.ensure(bus, Subjects(), 1, NOW_MS)


async def test_a_server_whose_disk_fails_may_be_asked_again(failing: str, connect_to: Connect) -> None:
    bus = (await connect_to(failing)).bus
    with pytest.raises(Unavailable, match=r"could not make stream WW_REQ: .*its log says why") as caught:
        await streams.ensure(bus, Subjects(), 1, NOW_MS)
    assert caught.value.retryable


async def test_subjects_that_another_stream_takes_end_the_start(bare: Broker) -> None:
    taken = api.StreamConfig(name=f"X{bare.subjects.prefix}", subjects=[f"{bare.subjects.prefix}.req.*.*"])
    await bare.bus.js.add_stream(taken)
    with pytest.raises(Misconfigured, match=r"refuses stream .*overlap"):
        await streams.ensure(bare.bus, bare.subjects, 1, NOW_MS)


async def test_a_server_that_is_not_ready_yet_may_be_asked_again(
    without_jetstream: str, connect_to: Connect
) -> None:
    bus = (await connect_to(without_jetstream)).bus
    error = {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}
    answers: list[asyncio.Task[None]] = []

    def refuse(message: Arrived) -> None:
        answer = json.dumps({"error": error}).encode()
        answers.append(asyncio.create_task(bus.publish(message.reply, answer)))

    await bus.subscribe("$JS.API.>", refuse)
    with pytest.raises(Unavailable, match="temporarily unavailable") as caught:
        await streams.ensure(bus, Subjects(), 1, NOW_MS)
    assert caught.value.retryable
