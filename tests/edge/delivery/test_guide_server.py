"""The edge in the place of the guide's own server: whoever talks to that one notices no difference.

The server is the guide's two snippets, unchanged, in ``guide/``. The client library that they call is played.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.async_api import Browser
from websockets.asyncio.client import connect

from warmwire.broker.tasks import Tasks
from warmwire.edge.app import Server, bind

from tests.client import eventually
from tests.edge.browser import PATIENCE
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeTurn, FakeWorker
from tests.edge.wire import Wire

GUIDE = Path(__file__).parent / "guide"
DELTAS = ["Hi", " there", " ← é\n\n", 'data: "x"', "\\", "[DONE]", "!"]
THINKING = b'{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"abc="}}'


def chunk(text: str) -> dict[str, Any]:
    """A delta as the guide shows it."""
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


@dataclass
class StreamingConfig:
    """What the snippets make of the guide's class."""

    session_id: str


class BidirectionalStreamingClient:
    """Says the same in answer to everything."""

    def __init__(self, config: StreamingConfig) -> None:
        assert config.session_id == "s1"

    def stream_conversation(self, message: str) -> Iterator[dict[str, Any]]:
        """The events of one answer."""
        yield {"type": "message_start", "message": {"id": "msg_123", "role": "assistant"}}
        yield from map(chunk, DELTAS)
        yield {"type": "message_stop", "echo": message}

    send_followup = stream_conversation


def guides_server() -> FastAPI:
    """The application that the snippets make, one after the other."""
    names: dict[str, Any] = {
        "StreamingConfig": StreamingConfig,
        "BidirectionalStreamingClient": BidirectionalStreamingClient,
    }
    for snippet in ("server_sse.py.txt", "server_ws.py.txt"):
        exec((GUIDE / snippet).read_text(), names)  # noqa: S102 - it is ours, and is to run as it is
    app = names["app"]
    assert isinstance(app, FastAPI)
    return app


@pytest.fixture
async def guides() -> AsyncIterator[Wire]:
    """A wire to the guide's server."""
    with bind("127.0.0.1", 0) as listening:
        server = Server(
            uvicorn.Config(guides_server(), lifespan="off", log_config=None, ws="websockets-sansio")
        )
        task = asyncio.create_task(server.serve([listening]))
        await eventually(lambda: server.started, "the guide's server serves")
        wire = Wire("127.0.0.1", listening.getsockname()[1])
        yield wire
        await wire.close()
        server.should_exit = True
        await task


@pytest.fixture
async def ours(start: Start, worker: FakeWorker) -> AsyncIterator[Wire]:
    """A wire to an edge whose worker says the same, among other things."""
    wire = (await start()).wire

    async def answer() -> None:
        while True:
            turn: FakeTurn = await worker.next_turn()
            await turn.start()
            await turn.publish(THINKING)
            for text in DELTAS:
                await turn.delta(text)
            await turn.complete()

    answering = Tasks()  # which cancels again: a cancellation may get lost in a request
    answering.begin(answer(), "answer")
    yield wire
    await answering.stop()


async def messages(wire: Wire, path: str) -> list[str]:
    """What a client is given as messages: the data of frames without an event's name."""
    answer = await wire.request("POST", path)
    assert (200, "text/event-stream") == (answer.status, answer.headers["content-type"].split(";")[0])
    frames = (await answer.body()).decode().split("\n\n")
    fields = [dict(line.split(": ", 1) for line in frame.splitlines() if ": " in line) for frame in frames]
    return [each["data"] for each in fields if "data" in each and "event" not in each]


async def test_the_same_request_gets_the_same_messages(guides: Wire, ours: Wire) -> None:
    path = "/chat/stream?" + urlencode({"message": "Hello there", "session_id": "s1"})
    expected, given = await messages(guides, path), await messages(ours, path)
    assert [*map(chunk, DELTAS), "[DONE]"] == [*map(json.loads, expected[:-1]), expected[-1]]
    assert [*map(json.loads, expected[:-1]), expected[-1]] == [*map(json.loads, given[:-1]), given[-1]]


async def converse(wire: Wire) -> list[Any]:
    """Two messages over a WebSocket, and what comes back."""
    async with connect(f"ws://{wire.host}:{wire.port}/chat/ws", proxy=None) as line:
        await line.send("s1")
        given = []
        for message in ("one", "two"):
            await line.send(message)
            given += [json.loads(await line.recv()) for _ in DELTAS]
        return given


async def test_the_same_conversation_over_a_websocket_gets_the_same_frames(guides: Wire, ours: Wire) -> None:
    expected = await converse(guides)
    assert [chunk(text) for text in DELTAS * 2] == expected
    assert expected == await converse(ours)


@pytest.mark.parametrize("missing", ["message", "session_id"])
async def test_the_same_request_is_refused(guides: Wire, ours: Wire, missing: str) -> None:
    query = {"message": "Hello", "session_id": "s1"}
    path = "/chat/stream?" + urlencode({name: value for name, value in query.items() if name != missing})
    assert 422 == (await guides.request("POST", path)).status == (await ours.request("POST", path)).status


CONVERSATION = """deltas => new Promise((resolve, reject) => {
  const line = new WebSocket(`ws://${location.host}/chat/ws`);
  const texts = [];
  line.onopen = () => { line.send("s1"); line.send("one"); };
  line.onmessage = (event) => {
    texts.push(JSON.parse(event.data).delta.text);
    if (texts.length === deltas) line.send("two");
    if (texts.length === 2 * deltas) { line.close(); resolve(texts); }
  };
  line.onerror = reject;
})"""


@pytest.mark.browser
async def test_a_browser_converses_over_the_websocket(ours: Wire, browser: Browser) -> None:
    page = await browser.new_page()
    page.set_default_timeout(PATIENCE)
    await page.goto(f"http://127.0.0.1:{ours.port}/healthz")
    assert DELTAS * 2 == await page.evaluate(CONVERSATION, len(DELTAS))
    await page.close()
