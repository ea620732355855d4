"""The routes of the guide, as its snippets use them. The snippets are in ``guide/``, unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.async_api import Browser
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from warmwire.broker.wire.events import TurnReset

from tests.client import eventually
from tests.edge.browser import PATIENCE
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeTurn, FakeWorker
from tests.edge.wire import Answer, Wire

FRONTEND = (Path(__file__).parent / "guide" / "frontend.js").read_text()


async def data(answer: Answer) -> list[Any]:
    """What ``onmessage`` gets, up to the end: the data of frames without an ``event:`` line."""
    found: list[Any] = []
    while frame := await answer.frame():
        lines = frame.decode().splitlines()
        if any(line.startswith("data: ") for line in lines) and not any(
            line.startswith("event:") for line in lines
        ):
            text = next(line for line in lines if line.startswith("data: ")).removeprefix("data: ")
            found.append(text if text == "[DONE]" else json.loads(text))
    return found


def text(chunks: list[Any]) -> str:
    """As the snippets read it, unguarded."""
    return "".join(chunk["delta"]["text"] for chunk in chunks if chunk != "[DONE]")


async def begun(worker: FakeWorker, *deltas: str) -> FakeTurn:
    """The next turn, and its first deltas."""
    turn = await worker.next_turn()
    await turn.start()
    await turn.publish(
        b'{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}'
    )
    for delta in deltas:
        await turn.delta(delta)
    return turn


async def asked(wire: Wire, way: str) -> Answer:
    """The same request in each of the ways that there are."""
    query = f"/chat/stream?message={quote('Hello there')}&session_id=s1"
    if way == "body":
        return await wire.send("POST", "/chat/stream", {"message": "Hello there", "session_id": "s1"})
    return await wire.request("GET" if way == "get" else "POST", query)


@pytest.mark.parametrize("way", ["get", "query", "body"])
async def test_only_text_deltas_come_and_then_done(wire: Wire, worker: FakeWorker, way: str) -> None:
    answer = await asked(wire, way)
    assert answer.headers["content-type"].startswith("text/event-stream")
    turn = await begun(worker, "Hi ", "there")
    await turn.complete()
    assert ("Hello there", "s1") == (turn.message.content, turn.session_id)
    chunks = await data(answer)
    assert chunks[-1] == "[DONE]"
    assert text(chunks) == "Hi there"
    assert {"content_block_delta"} == {chunk["type"] for chunk in chunks[:-1]}


async def test_a_message_or_session_that_is_missing_is_422(wire: Wire) -> None:
    for query, field in (("message=Hi", "session_id"), ("session_id=s1", "message")):
        answer = await wire.request("POST", f"/chat/stream?{query}")
        assert (422, field) == (answer.status, (await answer.problem())["field"])


async def test_a_reconnect_goes_on_and_sends_nothing(wire: Wire, worker: FakeWorker) -> None:
    answer = await asked(wire, "get")
    turn = await begun(worker, "one ")
    frame = b""
    while b"one " not in frame:
        frame = await answer.frame()
    cursor = frame.decode().split("id: ")[1].strip()
    await answer.leave()
    await turn.delta("two")
    back = await wire.request("GET", "/chat/stream?message=Hello&session_id=s1", {"last-event-id": cursor})
    await turn.complete()
    chunks = await data(back)
    assert (text(chunks), chunks[-1]) == ("two", "[DONE]")
    assert worker.waiting == 0


async def test_who_has_had_everything_is_told_not_to_come_again(wire: Wire, worker: FakeWorker) -> None:
    answer = await asked(wire, "get")
    await (await begun(worker, "all")).complete()
    last = (await answer.body()).decode().split("id: ")[-1].strip()
    back = await wire.request("GET", "/chat/stream?message=Hello&session_id=s1", {"last-event-id": last})
    assert back.status == 204


async def test_text_that_is_void_ends_the_stream_with_an_error_and_stops_the_turn(
    wire: Wire, worker: FakeWorker
) -> None:
    answer = await asked(wire, "get")
    turn = await begun(worker, "shown")
    await turn.publish(TurnReset(turn=turn.id, attempt=2, reason="worker_lost").encode())
    await turn.delta("shown again")
    body = (await answer.body()).decode()
    assert "again" not in body
    assert 'event: error\ndata: {"type":"error","message":"text that was shown is void"}\n' in body
    assert "data: [DONE]\n" in body
    await eventually(lambda: worker.interrupts == [turn.id], "the turn is not tried again")


async def test_a_retry_before_any_text_is_not_noticed(wire: Wire, worker: FakeWorker) -> None:
    answer = await asked(wire, "get")
    turn = await begun(worker)
    await turn.publish(TurnReset(turn=turn.id, attempt=2, reason="worker_lost").encode())
    await turn.delta("Hi")
    await turn.complete()
    assert text(await data(answer)) == "Hi"
    assert worker.interrupts == []


async def lost_and_found(worker: FakeWorker) -> FakeTurn:
    """A turn whose first text reaches nobody; its owner has all of it still, but not the events."""
    turn = await begun(worker)
    worker.forgetful = True
    await turn.lose("one ")
    for delta in ("two ", "three"):
        await turn.delta(delta)
    return turn


async def test_text_that_only_a_snapshot_has_comes_as_a_delta(wire: Wire, worker: FakeWorker) -> None:
    answer = await asked(wire, "get")
    await (await lost_and_found(worker)).complete()
    assert "one two three" == text(await data(answer))


async def test_a_turn_that_fails_ends_with_an_error_and_done(wire: Wire, worker: FakeWorker) -> None:
    answer = await asked(wire, "query")
    await (await begun(worker, "Hi")).fail("api_error", "no")
    body = (await answer.body()).decode()
    assert 'event: error\ndata: {"type":"turn_failed"' in body
    assert "data: [DONE]" in body.split("event: error")[1]


def page_with(**variables: str) -> str:
    """The guide's frontend in a page that has what it expects."""
    text = "<!doctype html><meta charset=utf-8><script>"
    text += "const chatUI = {text: '', appendText(t) {this.text += t}};"
    text += "".join(f"const {name} = {json.dumps(value)};" for name, value in variables.items())
    return f"{text}\n{FRONTEND}</script>"


@pytest.mark.browser
@pytest.mark.parametrize("message", ["Hello", "Wie geht's? 100% é"])
async def test_the_frontend_runs_unchanged_in_a_browser(
    start: Start, worker: FakeWorker, browser: Browser, message: str
) -> None:
    serves = await start()
    page = await browser.new_page()
    page.set_default_timeout(PATIENCE)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    url = f"http://127.0.0.1:{serves.wire.port}/guide.html"
    body = page_with(msg=message, sessionId="s1")
    await page.route(url, lambda route: route.fulfill(body=body, content_type="text/html"))
    await page.goto(url)
    turn = await begun(worker)
    for part in ("Like ", "Like Chat", "Like ChatGPT!"):
        await turn.delta(part.removeprefix("Like ") if part != "Like " else part)
    await page.wait_for_function("chatUI.text === 'Like ChatChatGPT!'")
    assert turn.message.content == message
    await turn.complete()
    await page.wait_for_function("eventSource.readyState === EventSource.CLOSED")
    await page.close()
    assert complaints == []
    assert worker.waiting == 0


# -- the WebSocket


async def socket(wire: Wire) -> ClientConnection:
    """``/chat/ws``."""
    return await connect(f"ws://{wire.host}:{wire.port}/chat/ws", proxy=None)


async def test_the_first_text_is_the_session_and_each_further_one_is_answered_in_deltas(
    wire: Wire, worker: FakeWorker
) -> None:
    async with await socket(wire) as line:
        await line.send("s1")
        for message in ("one", "two"):
            await line.send(message)
            turn = await begun(worker, "a", "b")
            assert ("s1", message) == (turn.session_id, turn.message.content)
            assert ["a", "b"] == [json.loads(await line.recv())["delta"]["text"] for _ in range(2)]
            await turn.complete()


async def test_messages_that_come_meanwhile_are_answered_one_after_the_other(
    wire: Wire, worker: FakeWorker
) -> None:
    async with await socket(wire) as line:
        for text in ("s1", "one", "two"):
            await line.send(text)
        for answer in ("1", "2"):
            turn = await begun(worker, answer)
            assert json.loads(await line.recv())["delta"]["text"] == answer
            assert worker.waiting == 0
            await turn.complete()


@pytest.mark.parametrize(("texts", "code"), [(["a.b"], 4502), (["s1", " "], 4502)])
async def test_what_cannot_be_asked_closes_with_a_code_and_the_reason(
    wire: Wire, texts: list[str], code: int
) -> None:
    async with await socket(wire) as line:
        for text in texts:
            await line.send(text)
        with pytest.raises(ConnectionClosed):
            await line.recv()
        assert line.close_code == code
        assert line.close_reason


async def test_a_failed_turn_closes_with_its_code(wire: Wire, worker: FakeWorker) -> None:
    async with await socket(wire) as line:
        await line.send("s1")
        await line.send("Hello")
        await (await begun(worker)).fail("api_error", "no")
        with pytest.raises(ConnectionClosed):
            await line.recv()
        assert (4501, "api_error") == (line.close_code, line.close_reason)


async def test_over_the_websocket_too_text_that_only_a_snapshot_has_comes_as_a_delta(
    wire: Wire, worker: FakeWorker
) -> None:
    async with await socket(wire) as line:
        await line.send("s1")
        await line.send("Hello")
        turn = await lost_and_found(worker)
        heard = ""
        while heard != "one two three":
            heard += json.loads(await line.recv())["delta"]["text"]
        await turn.complete()


async def test_text_that_is_void_closes_the_websocket_with_the_reason(wire: Wire, worker: FakeWorker) -> None:
    async with await socket(wire) as line:
        await line.send("s1")
        await line.send("Hello")
        turn = await begun(worker, "shown")
        assert "shown" == json.loads(await line.recv())["delta"]["text"]
        await turn.publish(TurnReset(turn=turn.id, attempt=2, reason="worker_lost").encode())
        with pytest.raises(ConnectionClosed):
            await line.recv()
        assert (4501, "text that was shown is void") == (line.close_code, line.close_reason)
