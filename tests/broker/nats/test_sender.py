"""Sending: in order, in few wake-ups, bounded, and never blocking who hands over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from warmwire.broker.errors import BadInput, Unavailable
from warmwire.broker.nats.sender import WAITING_LIMIT, Sender

from tests.broker.conftest import Broker
from tests.client import eventually


class Line:
    """A connection that keeps what it is given, blocks while told to, and fails as told to."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.free = asyncio.Event()
        self.free.set()
        self.fails: Callable[[bytes], Exception | None] = lambda _: None
        self.writes = 0

    def publish_now(self, events: Iterable[tuple[str, bytes]]) -> bool:
        data = [data for _, data in events]
        if not self.free.is_set() or any(map(self.fails, data)):
            return False
        self.sent += data
        self.writes += 1
        return True

    async def publish(self, _subject: str, data: bytes) -> None:
        await self.free.wait()
        error = self.fails(data)
        if error is not None:
            raise error
        self.sent.append(data)

    async def has(self, *expected: bytes) -> None:
        await eventually(lambda: self.sent == [*expected], f"{expected}, not {self.sent}")


@asynccontextmanager
async def sending(
    line: Line,
    may_send: Callable[[], bool] = lambda: True,
    limit: int = WAITING_LIMIT,
) -> AsyncIterator[Sender]:
    sender = Sender(line, may_send, limit)  # type: ignore[arg-type]  # all that it uses of a Bus
    sender.start()
    yield sender
    await sender.stop()


@pytest.fixture
def line() -> Line:
    return Line()


class TestAPass:
    async def test_of_the_loop_is_one_write(self, line: Line) -> None:
        async with sending(line) as sender:
            sender.send("x", b"1")
            sender.send("x", b"2")
            assert [] == line.sent
            await line.has(b"1", b"2")
            assert 1 == line.writes

    async def test_is_cut_short_by_a_flush(self, line: Line) -> None:
        async with sending(line) as sender:
            sender.send("x", b"1")
            await sender.flush()
            assert [b"1"] == line.sent

    async def test_is_cut_short_by_the_end(self, line: Line) -> None:
        async with sending(line) as sender:
            sender.send("x", b"1")
        assert [b"1"] == line.sent


class TestOrder:
    async def test_is_kept_over_subjects_and_kinds(self, broker: Broker) -> None:
        heard: list[bytes] = []
        await broker.bus.subscribe("y.*", lambda message: heard.append(message.data))
        await broker.bus.flush()
        expected = [b"%d" % number for number in range(500)]
        async with real(broker) as sender:
            for number, data in enumerate(expected):
                sender.send(f"y.{number % 3}", data)
                if number % 11 == 0:
                    await asyncio.sleep(0)
            await eventually(lambda: len(heard) == len(expected), "all events")
        assert expected == heard

    async def test_is_kept_when_a_flush_meets_another(self, line: Line) -> None:
        async with sending(line) as sender:
            line.free.clear()
            sender.send("x", b"1")
            await asyncio.sleep(0)
            sender.send("x", b"2")
            flushing = asyncio.create_task(sender.flush())
            await asyncio.sleep(0)
            sender.send("x", b"3")
            line.free.set()
            await flushing
            await line.has(b"1", b"2", b"3")

    async def test_is_kept_when_it_ends_in_the_middle(self, line: Line) -> None:
        async with sending(line) as sender:
            line.free.clear()
            for data in (b"1", b"2", b"3"):
                sender.send("x", data)
            await asyncio.sleep(0)
            stopping = asyncio.create_task(sender.stop())
            await asyncio.sleep(0)
            line.free.set()
            await stopping
            assert [b"1", b"2", b"3"] == line.sent


class TestHolding:
    async def test_withholds_until_it_may_go_on(self, line: Line) -> None:
        async with sending(line) as sender:
            sender.hold()
            sender.send("x", b"1")
            flushing = asyncio.create_task(sender.flush())
            await asyncio.sleep(0)
            assert [] == line.sent
            sender.go_on()
            await flushing
            assert [b"1"] == line.sent

    async def test_begins_by_itself_when_nothing_may_be_sent(self, line: Line) -> None:
        allowed = False
        async with sending(line, may_send=lambda: allowed) as sender:
            sender.send("x", b"1")
            flushing = asyncio.create_task(sender.flush())
            await asyncio.sleep(0)
            assert [] == line.sent
            allowed = True
            sender.go_on()
            await flushing
            assert [b"1"] == line.sent


class TestDropping:
    async def test_begins_at_the_bound_and_ends_below_it(self, line: Line) -> None:
        async with sending(line, limit=10) as sender:
            line.free.clear()
            with capture_logs() as said:
                for data in (b"12345", b"67890", b"over", b"over"):
                    sender.send("x", data)
            assert 2 == sender.dropped
            assert 1 == len(said)
            line.free.set()
            await line.has(b"12345", b"67890")
            sender.send("x", b"again")
            await line.has(b"12345", b"67890", b"again")
        assert 2 == sender.dropped

    async def test_happens_to_all_that_waits_when_the_connection_is_gone(self, line: Line) -> None:
        async with sending(line) as sender:
            line.fails = lambda _: Unavailable("gone")
            for data in (b"1", b"2"):
                sender.send("x", data)
            await sender.flush()
            assert 2 == sender.dropped
            line.fails = lambda _: None
            sender.send("x", b"3")
            await line.has(b"3")

    async def test_happens_to_one_alone_that_cannot_be_sent(self, line: Line) -> None:
        async with sending(line) as sender:
            line.fails = lambda data: BadInput("message", "too large") if data == b"2" else None
            for data in (b"1", b"2", b"3"):
                sender.send("x", data)
            await line.has(b"1", b"3")
            assert 1 == sender.dropped

    def test_has_a_bound_that_a_pool_does_not_meet_in_a_second(self) -> None:
        assert WAITING_LIMIT > 25_000 * 300  # deltas and bytes each: a thousand streams at full speed


@asynccontextmanager
async def real(broker: Broker) -> AsyncIterator[Sender]:
    sender = Sender(broker.bus)
    sender.start()
    yield sender
    await sender.stop()
