"""The whole queue, or a tenant's part of it: counted, and looked through."""

from __future__ import annotations

from warmwire.broker.wire.messages import UserMessage
from warmwire.broker.wire.names import SessionKey

from tests.broker.conftest import Broker

ONE, TWO, THREE = SessionKey("acme", "s"), SessionKey("acme", "t"), SessionKey("acme2", "s")


async def send(broker: Broker, key: SessionKey, turn: str) -> int:
    message = UserMessage(turn=turn, content="Hello", sent_ms=1)
    return (await broker.store.submit(key, message, {})).sequence


async def test_the_messages_of_a_tenant_are_counted_until_they_are_acked(broker: Broker) -> None:
    assert 0 == await broker.store.queued_of("acme")
    for key, turn in ((ONE, "t1"), (ONE, "t2"), (TWO, "t3"), (THREE, "t4")):
        await send(broker, key, turn)
    assert [3, 1] == [await broker.store.queued_of(tenant) for tenant in ("acme", "acme2")]
    await broker.bus.js.delete_msg(broker.subjects.request_stream, 1)
    assert 2 == await broker.store.queued_of("acme")


async def test_all_messages_are_looked_through_in_order_but_for_what_is_none(broker: Broker) -> None:
    await send(broker, ONE, "t1")
    await broker.bus.js.publish(broker.subjects.requests(TWO), b"nonsense")
    for key, turn in ((THREE, "t2"), (ONE, "t3")):
        await send(broker, key, turn)

    async def looked_through(most: int) -> list[tuple[SessionKey, str]]:
        return [(key, queued.message.turn) async for key, queued in broker.store.all_queued(most)]

    assert [(ONE, "t1"), (THREE, "t2"), (ONE, "t3")] == await looked_through(10)
    assert [(ONE, "t1"), (THREE, "t2")] == await looked_through(3)
