"""``EdgeClient`` against an edge that serves: the face of ``Producer``, and what connections do to it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from streaming_bidirectional import BidirectionalStreamingClient, StreamingConfig
from warmwire.broker.errors import BadInput, QueueFull, Unavailable
from warmwire.edge.app import bind
from warmwire.producer import (
    EdgeClientSettings,
    KeyReused,
    MessageTooLarge,
    NotAnEdge,
    NotAsked,
    Producer,
    Refused,
    SessionBusy,
    TurnFailed,
)
from warmwire.producer.edge_client import EdgeClient
from warmwire.producer.refusals import error_of

from tests.chaos_proxy import cutting
from tests.client import eventually
from tests.edge.access import tokens
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeWorker, begun

QUICK = EdgeClientSettings(first_pause=0.01, longest_pause=0.05)
CUTS = 50
Client = Producer | EdgeClient
BOTH = pytest.mark.parametrize("way", ["producer", "edge"])


@pytest.fixture
def client(way: str, request: pytest.FixtureRequest) -> Client:
    """One of the two."""
    found: Client = request.getfixturevalue(way)
    return found


@BOTH
async def test_text_events_and_the_end(client: Client, worker: FakeWorker) -> None:
    worker.answer_all("Hello, ", "world")
    assert await (await client.send("Hi")).text() == "Hello, world"
    turn = await client.send("Hi", session_id="s1", model="opus", on_worker_loss="fail")
    events = [event async for event in turn]
    assert {"s1"} == {event.data["session_id"] for event in events[:2]}
    assert ("turn_queued", "turn_completed") == (events[0].type, events[-1].type)
    assert "".join(event.text or "" for event in events) == "Hello, world"
    assert {turn.id} == {event.turn for event in events[1:]}
    assert [event async for event in turn] == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_an_edge_on_this_machine_is_reached_without_a_proxy(
    start: Start, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    worker.answer_all("Hello")
    port = (await start()).wire.port
    with bind("127.0.0.1", 0) as nobody:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        async with EdgeClient(f"http://{host}:{port}", settings=QUICK) as edge:
            assert await (await edge.send("Hi")).text(timeout=30) == "Hello"


@BOTH
async def test_a_failed_turn_raises_what_it_failed_of_and_keeps_the_text(
    client: Client, worker: FakeWorker
) -> None:
    turn = await client.send("Hi")
    await (await begun(worker, "so far")).fail("overloaded", "The API is overloaded.")
    with pytest.raises(TurnFailed) as caught:
        await turn.text()
    assert ("overloaded", "so far", True) == (caught.value.code, caught.value.text, caught.value.retryable)


@BOTH
async def test_an_interrupt_stops_it_and_the_text_stands(client: Client, worker: FakeWorker) -> None:
    turn = await client.send("Hi", session_id="s1")
    theirs = await begun(worker, "so far")
    await turn.interrupt()
    assert await client.interrupt("s1") == turn.id
    assert worker.interrupts == [turn.id, None]
    await theirs.interrupted()
    assert await turn.text() == "so far"
    assert await client.interrupt("s1") is None


@BOTH
async def test_it_resumes_after_a_cursor_and_never_submits(client: Client, worker: FakeWorker) -> None:
    turn = await client.send("Hi", session_id="s1")
    theirs = await begun(worker, "one ")
    cursor = await reading(turn, "one ")
    turn.close()
    await theirs.delta("two")
    back = await client.resume("s1", cursor)
    await theirs.complete()
    assert (await back.text(), back.id) == ("two", turn.id)
    assert [] == [event async for event in await client.resume("s1", back.cursor)]
    again = await turn.resume(cursor)
    assert await again.text() == "two"
    assert worker.waiting == 0
    with pytest.raises(BadInput, match="cursor"):
        await client.resume("s1", "nonsense")


@BOTH
async def test_what_was_said_before_and_what_waits_is_known(client: Client, worker: FakeWorker) -> None:
    assert ((), ()) == (await client.past("s1"), await client.waiting("s1"))
    for number in range(3):
        await client.send(f"message {number}", session_id="s1")
        await (await begun(worker, f"answer {number}")).complete()
    await client.send("message 3", session_id="s1")
    theirs = await begun(worker, "answer ")
    (waits,) = await client.waiting("s1")
    assert (theirs.id, "message 3") == (waits.turn, waits.message)
    back = await client.resume("s1", waits.beginning)
    await theirs.delta("3")
    await theirs.fail("overloaded", "The API is overloaded.")
    with pytest.raises(TurnFailed, match="overloaded"):
        await back.text()
    past = await client.past("s1", 2)
    assert [("message 2", "answer 2", "completed"), ("message 3", "answer 3", "failed")] == [
        (each.message, each.text, each.ending) for each in past
    ]
    assert () == await client.waiting("s1")


async def test_whether_the_connection_stands_is_known(start: Start, worker: FakeWorker) -> None:
    serves = await start()
    async with cutting("127.0.0.1", serves.wire.port, cuts=0, most=1) as proxy:
        edge = EdgeClient(f"http://127.0.0.1:{proxy.port}", settings=QUICK)
        await edge.reach()
        turn = await edge.send("Hi")
        theirs = await begun(worker, "one")
        await reading(turn, "one")
        assert edge.connected
        following = asyncio.create_task(reading(turn, "two"))
    await eventually(lambda: not edge.connected, "it notices")
    turn.close()
    with pytest.raises(AssertionError, match="two"):
        await following
    assert edge.connected
    with pytest.raises(Unavailable):
        await edge.reach()
    await theirs.complete()
    await edge.close()


async def reading(turn: Any, until: str) -> str:
    """Read up to a text; returns the cursor after it."""
    text = ""
    async for event in turn:
        text += event.text or ""
        if text.endswith(until):
            return str(event.cursor)
    raise AssertionError(f"{until!r} has not come, but {text!r}")


@BOTH
async def test_watching_shows_every_turn_and_goes_on_after_a_cursor(
    client: Client, worker: FakeWorker
) -> None:
    async with await client.watch("s1") as watch:
        worker.answer_all("Hello")
        first = await client.send("one", session_id="s1")
        assert await first.text() == "Hello"
        assert [first.id] == await ended(watch, 1)
        cursor = watch.cursor
    assert [] == [event async for event in watch]
    second = await client.send("two", session_id="s1")
    await second.text()
    async with await client.watch("s1", cursor) as back:
        assert [second.id] == await ended(back, 1)


async def ended(watch: Any, turns: int) -> list[str]:
    """The turns whose ends are shown."""
    found: list[str] = []
    async for event in watch:
        found += [event.turn] if event.terminal else []
        if len(found) == turns:
            break
    return found


@BOTH
@pytest.mark.parametrize(("on_cancel", "interrupts"), [("detach", 0), ("interrupt", 1)])
async def test_a_cancelled_reader_detaches_or_interrupts_as_asked(
    client: Client, worker: FakeWorker, on_cancel: Any, interrupts: int
) -> None:
    turn = await client.send("Hi", session_id="s1", on_cancel=on_cancel)
    theirs = await begun(worker, "so far")
    reader = asyncio.create_task(turn.text())
    await eventually(lambda: turn.cursor.count(".") == 2 and not turn.cursor.endswith(".0.0"), "it reads")
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert interrupts * [turn.id] == worker.interrupts
    await theirs.complete()


@BOTH
async def test_a_block_that_is_cancelled_interrupts_too_and_after_the_end_nothing_does(
    client: Client, worker: FakeWorker
) -> None:
    async def hold(turn: Any) -> None:
        async with turn:
            await asyncio.Event().wait()

    turn = await client.send("Hi", session_id="s1", on_cancel="interrupt")
    theirs = await begun(worker)
    holding = asyncio.create_task(hold(turn))
    await asyncio.sleep(0)
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert worker.interrupts == [turn.id]
    await theirs.complete()

    ended = await client.send("Hi", session_id="s1", on_cancel="interrupt")
    await (await begun(worker)).complete()
    await ended.text()
    holding = asyncio.create_task(hold(ended))
    await asyncio.sleep(0)
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert worker.interrupts == [turn.id]


@BOTH
async def test_a_text_that_takes_too_long_is_a_timeout_error(client: Client, worker: FakeWorker) -> None:
    turn = await client.send("Hi", on_cancel="interrupt")
    theirs = await begun(worker)
    with pytest.raises(TimeoutError):
        await turn.text(timeout=0)
    await eventually(lambda: worker.interrupts == [turn.id], "it is stopped")
    await theirs.complete()


@BOTH
async def test_a_question_is_answered(client: Client, worker: FakeWorker) -> None:
    turn = await client.send("Hi", session_id="s1")
    theirs = await begun(worker)
    await turn.permit("q1", {"command": "ls"})
    await turn.deny("q2", "no")
    assert [("q1", True), ("q2", False)] == [(each.request, each.allow) for each in worker.answers]
    assert json.loads(worker.answers[0].input or "") == {"command": "ls"}
    worker.outcome = worker.outcome.model_copy(update={"outcome": "unknown"})
    with pytest.raises(NotAsked):
        await turn.permit("q3")
    await theirs.complete()


@BOTH
async def test_what_is_refused_is_the_same_error(client: Client, worker: FakeWorker) -> None:
    with pytest.raises(BadInput) as bad:
        await client.send("Hi", session_id="a.b")
    assert bad.value.field == "session_id"
    with pytest.raises(BadInput) as empty:
        await client.send(" ")
    assert empty.value.field == "message"
    with pytest.raises(MessageTooLarge) as large:
        await client.send("x" * 1_048_577)
    assert large.value.limit == 1_048_576
    await client.send("Hi", session_id="s1", idempotency_key="k")
    with pytest.raises(SessionBusy):
        await client.send("Hi", session_id="s1", double_texting="reject")
    turn = await begun(worker)
    with pytest.raises(KeyReused):
        await client.send("Hello", session_id="s1", idempotency_key="k")
    for _ in range(15):
        (await client.send("Hi", session_id="s1")).close()
    with pytest.raises(QueueFull) as full:
        await client.send("Hi", session_id="s1")
    assert full.value.limit == 16
    await turn.complete()


@BOTH
@pytest.mark.parametrize("closes", ["turn", "client"])
async def test_closing_ends_iterations_that_wait(client: Client, worker: FakeWorker, closes: str) -> None:
    turn = await client.send("Hi", session_id="s1")
    theirs = await begun(worker, "so far")
    events: list[Any] = []

    async def follow() -> None:
        async for event in turn:
            events.append(event)  # noqa: PERF401 - they are looked at meanwhile

    following = asyncio.create_task(follow())
    await eventually(lambda: events and events[-1].text == "so far", "it waits for more")
    if closes == "turn":
        turn.close()
    else:
        await client.close()
    await following
    assert not events[-1].terminal
    await theirs.complete()


async def test_a_repeated_key_is_the_same_turn(edge: EdgeClient, worker: FakeWorker) -> None:
    first = await edge.send("Hi", session_id="s1", idempotency_key="k")
    await (await begun(worker, "once")).complete()
    second = await edge.send("Hi", session_id="s1", idempotency_key="k")
    assert (first.id, "once", "once") == (second.id, await first.text(), await second.text())


@pytest.mark.parametrize("seed", [1, 2])
async def test_fifty_cuts_during_one_answer_lose_nothing_and_repeat_nothing(
    start: Start, worker: FakeWorker, seed: int
) -> None:
    serves = await start()
    said, events = list[str](), list[Any]()

    async def follow(asking: Any) -> None:
        async for event in await asking:
            events.append(event)

    async with (
        cutting("127.0.0.1", serves.wire.port, cuts=CUTS, most=1500, seed=seed) as proxy,
        EdgeClient(f"http://127.0.0.1:{proxy.port}", settings=QUICK) as edge,
    ):
        following = asyncio.create_task(follow(edge.send("Hi", session_id="s1")))
        theirs = await begun(worker)
        while proxy.left:
            said.append(f"{len(said)} é\n")
            await theirs.delta(said[-1])
            await eventually(lambda: len(said) - seen(events) < 20 or not proxy.left, "it follows")
        await theirs.complete()
        await following
    assert proxy.cuts == CUTS
    assert "".join(event.text or "" for event in events) == "".join(said)
    cursors = [event.cursor for event in events]
    assert len(cursors) == len(set(cursors))
    assert ["turn_queued", "turn_started"] == [event.type for event in events[:2]]
    assert events[-1].terminal
    assert worker.waiting == 0


async def test_fifty_cuts_do_not_show_in_a_plain_iteration(
    start: Start, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    serves = await start()
    said, got = list[str](), list[str]()
    monkeypatch.setenv("WARMWIRE_FIRST_PAUSE", "0.01")
    monkeypatch.setenv("WARMWIRE_LONGEST_PAUSE", "0.05")

    def follow(url: str) -> None:
        client = BidirectionalStreamingClient(StreamingConfig(url=url))
        for chunk in client.stream_conversation("Hi"):
            got.append(chunk["delta"]["text"])

    async with cutting("127.0.0.1", serves.wire.port, cuts=CUTS, most=1500, seed=3) as proxy:
        following = asyncio.create_task(asyncio.to_thread(follow, f"http://127.0.0.1:{proxy.port}"))
        theirs = await begun(worker)
        while proxy.left:
            said.append(f"{len(said)} é\n")
            await theirs.delta(said[-1])
            await eventually(lambda: len(said) - len(got) < 20 or not proxy.left, "it follows")
        await theirs.complete()
        await following
    assert proxy.cuts == CUTS
    assert "".join(got) == "".join(said)
    assert worker.waiting == 0


def seen(events: list[Any]) -> int:
    """How many of the answer's lines have come."""
    return "".join(event.text or "" for event in events).count("\n")


async def test_a_watch_goes_on_over_cuts(start: Start, worker: FakeWorker) -> None:
    serves = await start()
    worker.answer_all("Hello")
    async with (
        cutting("127.0.0.1", serves.wire.port, cuts=10, most=1500) as proxy,
        EdgeClient(f"http://127.0.0.1:{proxy.port}", settings=QUICK) as cut,
        EdgeClient(f"http://127.0.0.1:{serves.wire.port}") as whole,
    ):
        watch = await cut.watch("s1")
        while proxy.left:
            turn = await whole.send("Hi", session_id="s1")
            await turn.text()
            assert [turn.id] == await ended(watch, 1)
        watch.close()


async def test_a_connection_that_ends_by_age_is_made_again(start: Start, worker: FakeWorker) -> None:
    serves = await start(max_age=0.02)
    async with EdgeClient(f"http://127.0.0.1:{serves.wire.port}", settings=QUICK) as edge:
        watch = await edge.watch("s1")
        reading = asyncio.create_task(ended(watch, 1))
        turn = await edge.send("Hi", session_id="s1")
        theirs = await begun(worker, "Hello")
        await theirs.complete()
        assert [turn.id] == await reading
        watch.close()


async def test_nobody_there_is_unavailable_once_patience_is_over() -> None:
    with bind("127.0.0.1", 0) as nobody:
        settings = QUICK.model_copy(update={"patience": 0.05})
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        async with EdgeClient(url, settings=settings) as edge:
            with pytest.raises(Unavailable, match=url):
                await edge.send("Hi")
            with pytest.raises(Unavailable, match=url):
                await edge.interrupt("s1")


async def test_what_is_not_there_is_refused(start: Start) -> None:
    serves = await start()
    async with EdgeClient(f"http://127.0.0.1:{serves.wire.port}/page/") as edge:
        with pytest.raises(Refused) as caught:
            await edge.send("Hi")
    assert (404, "not_found") == (caught.value.status, caught.value.code)


async def test_a_token_is_asked_for_with_each_request(
    start: Start, worker: FakeWorker, tmp_path: Path
) -> None:
    serves = await start(**tokens.with_secret(tmp_path))
    worker.answer_all("Hello")
    given = iter([tokens.token(sub="u1"), "nonsense"])
    async with EdgeClient(f"http://127.0.0.1:{serves.wire.port}", access_token=lambda: next(given)) as edge:
        assert await (await edge.send("Hi", session_id="s1")).text() == "Hello"
        with pytest.raises(Refused) as caught:
            await edge.send("Hi", session_id="s1")
    assert (401, "invalid_token", False) == (
        caught.value.status,
        caught.value.code,
        caught.value.retryable,
    )


def test_a_url_must_be_one() -> None:
    with pytest.raises(ValueError, match="http://"):
        EdgeClient("localhost:8080")


@pytest.mark.parametrize(
    ("status", "body", "error", "retryable"),
    [
        (503, b'{"type":"urn:warmwire:problem:store_full","detail":"full"}', "StoreFull", True),
        (503, b'{"type":"urn:warmwire:problem:pool_full","detail":"full"}', "Refused", True),
        (503, b"<html>", "Refused", True),
        (500, b"[]", "Refused", False),
        (409, b'{"type":"urn:warmwire:problem:question_closed","detail":"q1 is"}', "QuestionClosed", False),
    ],
)
def test_what_an_edge_or_a_proxy_refuses_with(status: int, body: bytes, error: str, retryable: bool) -> None:
    found = error_of(status, body, "s1")
    assert (error, retryable) == (type(found).__name__, found.retryable)


async def test_what_is_no_edge_is_told_by_what_came() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]")
        writer.close()
        await writer.wait_closed()
        closed.set()

    closed = asyncio.Event()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, EdgeClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as edge:
        with pytest.raises(NotAnEdge, match=r"there is no edge: .* Expected `object`, got `array`"):
            await edge.past("s1")
        await closed.wait()
