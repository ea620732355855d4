"""Pulling: for as many messages as there is room for, and for as long as somebody wants them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

import pytest
from structlog.testing import capture_logs

from warmwire.broker.errors import Unavailable
from warmwire.broker.nats.bus import Arrived, Subscription
from warmwire.broker.nats.pull import ENOUGH, GRACE, OPEN_FOR, Pulled, Puller
from warmwire.broker.nats.streams import CONSUMER
from warmwire.broker.wire.messages import UserMessage
from warmwire.broker.wire.names import SessionKey

from tests.broker.conftest import Broker, Connect, Server
from tests.client import eventually


class Worker:
    """Who pulls: it has room for so many messages, and keeps what it was given."""

    def __init__(self, broker: Broker, room: int) -> None:
        self.broker = broker
        self.capacity = room
        self.given: list[Pulled] = []
        self.asked: list[int] = []
        self.later = 0.0
        self.stands_still = 0.0
        self.puller = Puller(broker.bus, broker.subjects, self.room, self.given.append, self.clock)

    def room(self) -> int:
        return self.capacity - len(self.given)

    def clock(self) -> float:
        return self.stands_still or monotonic() + self.later

    async def listen(self) -> None:
        """Overhear what is asked of the server."""
        stream = self.broker.subjects.request_stream

        def heard(message: Arrived) -> None:
            self.asked.append(json.loads(message.data)["batch"])

        await self.broker.bus.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{CONSUMER}", heard)

    async def has(self, count: int) -> None:
        await eventually(lambda: len(self.given) == count, f"{count} messages")


@asynccontextmanager
async def working(broker: Broker, room: int) -> AsyncIterator[Worker]:
    worker = Worker(broker, room)
    await worker.listen()
    await worker.puller.start()
    yield worker
    await worker.puller.stop()


async def submit(broker: Broker, count: int, session: str = "s") -> None:
    for number in range(count):
        message = UserMessage(turn=f"t{number}", content=f"{number}", sent_ms=1)
        await broker.store.submit(SessionKey("acme", session), message, {"traceparent": "00"})


async def state(broker: Broker) -> tuple[int, int]:
    """Messages that are with workers, and open requests."""
    info = await broker.bus.js.consumer_info(broker.subjects.request_stream, CONSUMER)
    return info.num_ack_pending or 0, info.num_waiting or 0


async def test_a_message_comes_with_all_that_is_known_of_it(broker: Broker) -> None:
    async with working(broker, 1) as worker:
        await submit(broker, 1)
        await worker.has(1)
        pulled = worker.given[0]
        assert broker.subjects.requests(broker.key) == pulled.subject
        assert "0" == json.loads(pulled.data)["content"]
        assert "00" == pulled.headers["traceparent"]
        assert (1, 1) == (pulled.sequence, pulled.deliveries)
        await broker.bus.publish(pulled.ack, b"+ACK")
        await broker.bus.flush()
        assert await broker.store.head(broker.key) is None


async def test_messages_of_a_session_come_in_order(broker: Broker) -> None:
    await submit(broker, 10)
    async with working(broker, 10) as worker:
        await worker.has(10)
        assert sorted(pulled.sequence for pulled in worker.given) == [each.sequence for each in worker.given]


async def test_no_more_is_asked_for_than_there_is_room(broker: Broker) -> None:
    await submit(broker, 10)
    async with working(broker, 3) as worker:
        await worker.has(3)
        assert (3, 0) == await state(broker)
        assert [3] == worker.asked


async def test_more_is_asked_for_as_soon_as_there_is_room(broker: Broker) -> None:
    await submit(broker, 10)
    async with working(broker, 3) as worker:
        await worker.has(3)
        worker.capacity = 5
        worker.puller.more_room()
        await worker.has(5)
        assert [3, 2] == worker.asked


async def test_what_is_asked_for_already_is_not_asked_for_again(broker: Broker) -> None:
    async with working(broker, 3) as worker:
        await eventually(lambda: worker.asked == [3], "the first request")
        worker.capacity = 4
        worker.puller.more_room()
        await eventually(lambda: worker.asked == [3, 1], "a request for one more")
        await submit(broker, 10)
        await worker.has(4)
        assert (4, 0) == await state(broker)


async def test_while_much_is_asked_for_more_is_asked_for_in_one_request(broker: Broker) -> None:
    async with working(broker, ENOUGH) as worker:
        await eventually(lambda: worker.asked == [ENOUGH], "the first request")
        for _ in range(5):
            worker.capacity += 1
            worker.puller.more_room()
            await broker.bus.flush()
        await eventually(lambda: len(worker.asked) > 1, "the next look")
        assert [ENOUGH, 5] == worker.asked


async def test_what_was_put_off_is_asked_for_once_little_may_still_come(broker: Broker) -> None:
    await submit(broker, 3)
    async with working(broker, ENOUGH) as worker:
        await worker.has(3)
        worker.capacity += 4
        worker.puller.more_room()
        await eventually(lambda: sum(worker.asked) == ENOUGH + 4, "a request for what is missing")
        await submit(broker, ENOUGH, "other")
        await submit(broker, 1, "another")
        await worker.has(ENOUGH + 4)


async def test_requests_that_were_served_in_turn_leave_their_room_when_they_expire(broker: Broker) -> None:
    async with working(broker, 4) as worker:
        await eventually(lambda: worker.asked == [4], "the first request")
        worker.stands_still = monotonic()  # so that only the server's word can free room
        worker.capacity = 6
        worker.puller.more_room()
        await eventually(lambda: worker.asked == [4, 2], "a request for two more")
        await submit(broker, 4)
        await worker.has(4)  # two of either request, so the second is done with and the first has two to come
        await eventually(lambda: len(worker.asked) > 2, "the first has expired")
        assert 2 == sum(worker.asked[2:])


async def test_without_room_nothing_is_asked_for(broker: Broker) -> None:
    await submit(broker, 1)
    async with working(broker, 0) as worker:
        worker.puller.more_room()
        await broker.bus.flush()
        worker.capacity = 1
        worker.puller.more_room()
        await worker.has(1)
        assert [1] == worker.asked


async def test_a_request_of_which_nothing_is_heard_is_made_again(broker: Broker) -> None:
    async with working(broker, 3) as worker:
        await eventually(lambda: worker.asked == [3], "the first request")
        worker.later = OPEN_FOR + GRACE
        await eventually(lambda: worker.asked == [3, 3], "the same again")


async def test_without_a_consumer_it_says_so_and_asks_again(broker: Broker) -> None:
    await broker.bus.js.delete_consumer(broker.subjects.request_stream, CONSUMER)
    worker = Worker(broker, 1)
    with capture_logs() as said:
        await worker.puller.start()
        await eventually(lambda: said, "a word")
    assert "cannot pull at the moment" == said[0]["event"]
    await broker.make_streams()
    await submit(broker, 1)
    await worker.has(1)
    await worker.puller.stop()


async def test_after_the_end_nothing_is_taken_from_the_queue(broker: Broker) -> None:
    async with working(broker, 3) as worker:
        await eventually(lambda: worker.asked == [3], "the first request")
    await submit(broker, 3)
    async with working(broker, 3) as other:
        await other.has(3)
        assert [] == worker.given
        assert {1} == {pulled.deliveries for pulled in other.given}


async def test_what_was_sent_before_the_end_still_comes(broker: Broker) -> None:
    for session in ("a", "b", "c"):
        await submit(broker, 16, session)
    async with working(broker, 48) as worker:
        await eventually(lambda: worker.given, "the first message")
    pending, _ = await state(broker)
    assert pending == len(worker.given)


async def test_after_a_reconnection_the_room_is_asked_for_anew_and_no_more(
    server: Server, connect_to: Connect
) -> None:
    broker = await connect_to(server.url)
    await broker.make_streams()
    async with working(broker, 3) as worker:
        await eventually(lambda: worker.asked, "the first request")
        await asyncio.to_thread(server.stop)
        await eventually(lambda: not broker.bus.connected, "the loss is noticed")
        await asyncio.to_thread(server.start)
        await eventually(lambda: broker.bus.connected, "the connection is back")
        await submit(broker, 10)
        await worker.has(3)
        assert (3, 0) == await state(broker)


async def test_who_could_not_listen_after_a_reconnection_listens_at_the_next_look(
    server: Server, connect_to: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await connect_to(server.url)
    await broker.make_streams()
    subscribe, refused = broker.bus.subscribe, 0

    async def refuse_once(subject: str, heard: Callable[[Arrived], None]) -> Subscription:
        nonlocal refused
        refused += 1
        if refused == 1:
            raise Unavailable("the connection is gone again")
        return await subscribe(subject, heard)

    async with working(broker, 3) as worker:
        await eventually(lambda: worker.asked, "the first request")
        await asyncio.to_thread(server.stop)
        await eventually(lambda: not broker.bus.connected, "the loss is noticed")
        monkeypatch.setattr(broker.bus, "subscribe", refuse_once)
        await asyncio.to_thread(server.start)
        await eventually(lambda: refused, "it tries to listen")
        await submit(broker, 3)
        await worker.has(3)


async def test_it_can_stop_while_disconnected(server: Server, connect_to: Connect) -> None:
    broker = await connect_to(server.url)
    await broker.make_streams()
    async with working(broker, 3):
        await asyncio.to_thread(server.stop)
        await eventually(lambda: not broker.bus.connected, "the loss is noticed")
