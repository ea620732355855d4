"""The connection: clear words when it fails, and nothing that fails unseen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from warmwire.broker.errors import BadInput, NoResponder, Unavailable
from warmwire.broker.nats.bus import Arrived, Bus, connect, without_password
from warmwire.broker.nats.client import NatsClient

from tests.broker.conftest import Broker, Connect, Server
from tests.client import eventually

SECRET = "hunter2"


@asynccontextmanager
async def listening(greeting: bytes) -> AsyncIterator[str]:
    """A server that says one thing to whoever connects, and nothing more."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for writer in writers:
        writer.close()
    server.close()


class TestConnecting:
    @pytest.mark.parametrize(
        "url",
        [
            "",
            ",",
            "http://127.0.0.1:4222",
            "nats://",
            "nats://:4222",
            "nats://127.0.0.1:port",
            "nats://127.0.0.1:99999",
            "nats://127.0.0.1:0",
            "nats://[::1",
            "nats://127.0.0.1,http://127.0.0.1",
            "nats://127.0.0.1,ws://127.0.0.1",
        ],
    )
    async def test_to_what_is_no_nats_url_is_bad_input(self, url: str) -> None:
        with pytest.raises(BadInput) as caught:
            await connect(url, "test")
        assert "nats" == caught.value.field
        assert "is not a NATS URL" in caught.value.problem

    async def test_to_a_port_that_is_down_says_so_in_one_line(self) -> None:
        with pytest.raises(Unavailable) as caught:
            await connect("nats://127.0.0.1:1", "test")
        assert "no NATS server answers at nats://127.0.0.1:1 (" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.retryable

    async def test_to_a_host_that_is_unknown_says_so(self) -> None:
        with pytest.raises(Unavailable, match=r"no NATS server answers at nats://nowhere\.invalid"):
            await connect("nats://nowhere.invalid", "test")

    @pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"INFO {nonsense\r\n"])
    async def test_to_what_is_no_nats_server_says_so(self, greeting: bytes) -> None:
        async with listening(greeting) as address:
            with pytest.raises(Unavailable, match=f"no NATS server answers at nats://{address}"):
                await connect(f"nats://{address}", "test")

    @pytest.mark.parametrize(
        "url",
        [
            "nats://user:{secret}@{address}",
            "nats://{secret}@{address}",
            "user:{secret}@{address}",
            "nats://user:{secret}@{address},nats://other:{secret}@{address}",
            "nats://user:{secret}@part@{address}",
            "nats://user:{secret}/part@{address}",
            "nats://user:{secret},part@{address}",
            "nats://user:{secret}@{address}:port",
            "http://user:{secret}@{address}",
        ],
    )
    async def test_never_repeats_the_password(self, url: str) -> None:
        info = b'INFO {"auth_required":true,"max_payload":1048576}\r\n'
        async with listening(info + b"-ERR 'Authorization Violation'\r\n") as address:
            with pytest.raises((BadInput, Unavailable)) as caught:
                await connect(url.format(secret=SECRET, address=address), "test")
        assert SECRET not in str(caught.value)
        assert "part" not in str(caught.value)
        assert caught.value.__cause__ is None

    async def test_tells_a_refusal_from_an_absence(self) -> None:
        info = b'INFO {"auth_required":true,"max_payload":1048576}\r\n'
        async with listening(info + b"-ERR 'Authorization Violation'\r\n") as address:
            with pytest.raises(Unavailable, match="Authorization Violation"):
                await connect(f"nats://{address}", "test")

    async def test_takes_the_first_of_several_that_answers(
        self, nats_server: str, connect_to: Connect
    ) -> None:
        bus = (await connect_to(f"nats://127.0.0.1:1, {nats_server}")).bus
        assert bus.connected


class TestTalking:
    async def test_brings_messages_in_order(self, bare: Broker) -> None:
        heard: list[bytes] = []
        await bare.bus.subscribe("x.order", lambda message: heard.append(message.data))
        await bare.bus.flush()
        for number in range(100):
            await bare.bus.publish("x.order", b"%d" % number)
        await eventually(lambda: len(heard) == 100, "all messages")
        assert [b"%d" % number for number in range(100)] == heard

    async def test_gives_listeners_the_data_alone_until_they_are_over(self, bare: Broker) -> None:
        heard: list[bytes] = []

        def listener(data: bytes) -> None:
            heard.append(data)
            if data == b"bad":
                raise KeyError("the listener's own mistake")

        listening = await bare.bus.listen("x.data", listener)
        for data in (b"one", b"bad", b"three"):
            await bare.bus.publish("x.data", data)
        await eventually(lambda: heard == [b"one", b"bad", b"three"], "all of them")
        await listening.unsubscribe()
        with pytest.raises(NoResponder):
            await bare.bus.request("x.data", b"", 5)
        assert 3 == len(heard)

    async def test_asks_and_is_answered(self, bare: Broker) -> None:
        await answering(bare.bus, "x.ask", lambda message: message.data.upper())
        assert b"HELLO" == await bare.bus.request("x.ask", b"hello", 5)

    async def test_tells_when_nobody_is_there(self, bare: Broker) -> None:
        with pytest.raises(NoResponder):
            await bare.bus.request("x.nobody", b"", 5)

    async def test_tells_when_nobody_answers(self, bare: Broker) -> None:
        await bare.bus.subscribe("x.mute", lambda _: None)
        with pytest.raises(Unavailable) as caught:
            await bare.bus.request("x.mute", b"", 0.01)
        assert not isinstance(caught.value, NoResponder)

    async def test_refuses_what_is_larger_than_the_server_takes(self, bare: Broker) -> None:
        with pytest.raises(BadInput, match="max_payload"):
            await bare.bus.publish("x", b"x" * (8 * 1024 * 1024 + 1))

    async def test_goes_on_after_a_handler_that_fails(
        self, bare: Broker, capsys: pytest.CaptureFixture[str]
    ) -> None:
        heard: list[bytes] = []

        def handler(message: Arrived) -> None:
            heard.append(message.data)
            if len(heard) == 1:
                raise KeyError("the handler's own mistake")

        await bare.bus.subscribe("x.fails", handler)
        await bare.bus.publish("x.fails", b"1")
        await bare.bus.publish("x.fails", b"2")
        await eventually(lambda: heard == [b"1", b"2"], "both messages")
        assert "the handler's own mistake" in capsys.readouterr().out

    async def test_ends_for_a_subscription_that_is_over(self, bare: Broker) -> None:
        heard: list[bytes] = []
        over = await bare.bus.subscribe("x.over", lambda message: heard.append(message.data))
        await over.unsubscribe()
        await over.unsubscribe()
        await over.drain()
        with pytest.raises(NoResponder):
            await bare.bus.request("x.over", b"", 5)
        assert [] == heard

    async def test_is_over_after_closing(self, nats_server: str, connect_to: Connect) -> None:
        bus = (await connect_to(nats_server)).bus
        over = await bus.subscribe("x", lambda _: None)
        await bus.close()
        await over.unsubscribe()
        assert not bus.connected
        for attempt in (
            bus.publish("x", b""),
            bus.request("x", b"", 1),
            bus.flush(),
            bus.subscribe("x", print),
        ):
            with pytest.raises(Unavailable):
                await attempt
        await bus.close()


class TestALostConnection:
    async def test_comes_back_and_says_so(self, server: Server, connect_to: Connect) -> None:
        bus = (await connect_to(server.url)).bus
        back: list[str] = []
        bus.on_reconnect(lambda: back.append("kept"))

        def forgotten() -> None:
            back.append("forgotten")

        bus.on_reconnect(forgotten)
        bus.forget_reconnect(forgotten)
        heard: list[bytes] = []
        await bus.subscribe("x", lambda message: heard.append(message.data))
        await asyncio.to_thread(server.stop)
        await eventually(lambda: not bus.connected, "the loss is noticed")
        await asyncio.to_thread(server.start)
        await eventually(lambda: back, "the reconnection is told")
        assert ["kept"] == back
        await bus.publish("x", b"again")
        await eventually(lambda: heard == [b"again"], "subscriptions are in force again")

    async def test_fails_the_requests_whose_answers_it_would_have_brought(
        self, server: Server, connect_to: Connect
    ) -> None:
        bus = (await connect_to(server.url)).bus
        asked: list[bytes] = []
        await bus.subscribe("x", lambda message: asked.append(message.data))
        request = asyncio.create_task(bus.request("x", b"", 3600))
        await eventually(lambda: asked, "the request is on its way")
        await asyncio.to_thread(server.stop)
        with pytest.raises(Unavailable):
            await request

    @pytest.mark.parametrize("turns", range(5))
    async def test_does_not_keep_closing(self, server: Server, turns: int, connect_to: Connect) -> None:
        """Wherever the reconnection is at that moment."""
        bus = (await connect_to(server.url)).bus
        await asyncio.to_thread(server.stop)
        await eventually(lambda: not bus.connected, "the loss is noticed")
        over = await bus.subscribe("x", lambda _: None)
        await over.unsubscribe()
        for _ in range(turns):
            await asyncio.sleep(0)
        await bus.close()

    async def test_is_given_up_at_the_end_though_a_cancellation_gets_lost(
        self, server: Server, connect_to: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`wait_for` of Python 3.11 raises the refusal that came at the same moment instead."""
        bus = (await connect_to(server.url)).bus
        trying: list[asyncio.Task[None] | None] = []
        lost: list[asyncio.CancelledError] = []

        async def connect_slowly(*_: object) -> None:
            trying.append(asyncio.current_task())
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError as cancelled:
                lost.append(cancelled)
                if len(lost) > 1:
                    raise
                raise ConnectionRefusedError from None

        monkeypatch.setattr(NatsClient, "_connect_to_server", connect_slowly)
        await asyncio.to_thread(server.stop)
        await eventually(lambda: trying, "the reconnection tries")
        await bus.close()
        reconnection = trying[0]
        assert reconnection is not None
        assert (True, True) == (bool(lost), reconnection.done())


class TestAFlush:
    @pytest.mark.parametrize("how", ["times out", "is cancelled"])
    async def test_that_is_given_up_leaves_the_connection_as_it_was(
        self, server: Server, how: str, connect_to: Connect
    ) -> None:
        """nats-py's own would end its read loop when the late answer comes."""
        bus = (await connect_to(server.url)).bus
        await answering(bus, "x", lambda _: b"here")
        await bus.flush()
        await asyncio.to_thread(server.pause)
        flushing = asyncio.create_task(bus.flush(0.01 if how == "times out" else 3600))
        if how == "is cancelled":
            await asyncio.sleep(0)
            flushing.cancel()
        await asyncio.wait({flushing})
        assert flushing.cancelled() or isinstance(flushing.exception(), Unavailable)
        server.resume()
        await bus.flush(60)
        assert b"here" == await bus.request("x", b"", 60)


async def answering(bus: Bus, subject: str, answer: Callable[[Arrived], bytes]) -> None:
    """Answer every request on a subject."""
    tasks: list[asyncio.Task[None]] = []

    def asked(message: Arrived) -> None:
        tasks.append(asyncio.create_task(bus.publish(message.reply, answer(message))))

    await bus.subscribe(subject, asked)
    await bus.flush()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("nats://me:secret@one:4222,nats://token@two:4222", "nats://…@one:4222,nats://…@two:4222"),
        ("nats://me:p@ss@one", "nats://…@one"),
        ("me:secret@one", "…@one"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert shown == without_password(url)
