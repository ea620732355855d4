"""The guide's Python, unchanged, against an edge that serves. The snippets are in ``guide/``.

Each is run as it stands; only names that it uses and does not define are given to it. The two servers are in
``tests/edge/delivery/guide``. The first snippet, a client without streaming, shows what not to do: its
``create_message`` is ours, and made of a stream.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from textwrap import indent
from typing import Any, Optional

import pytest
import uvicorn
from websockets.sync.client import connect

from streaming_bidirectional import BidirectionalStreamingClient, ConnectionLost, StreamingConfig
from warmwire.edge.app import Server, bind

from tests.client import eventually
from tests.conftest import SECONDS
from tests.edge.conftest import Serving, Start
from tests.edge.fake_worker import FakeWorker
from tests.edge.wire import Wire

OURS = Path(__file__).parent / "guide"
SERVERS = Path(__file__).parents[1] / "edge" / "delivery" / "guide"
ANSWER = ["Sure: ", "```python\nx = 1\n```", " CRITICAL", " é done"]
TEXT = "".join(ANSWER)


def source(name: str) -> str:
    """A snippet, as it stands in the guide."""
    folder = SERVERS if name.startswith("server_") else OURS
    return (folder / f"{name}.py.txt").read_text()


def run(name: str, **given: Any) -> dict[str, Any]:
    """Run a snippet; returns the names that there are afterwards."""
    names: dict[str, Any] = dict(given)
    exec(compile(source(name), name, "exec"), names)  # noqa: S102 - it is to run as it is
    return names


@pytest.fixture
async def serves(start: Start, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch) -> Serving:
    """An edge at ``WARMWIRE_URL``, which answers everything alike."""
    serves = await start()
    monkeypatch.setenv("WARMWIRE_URL", f"http://127.0.0.1:{serves.wire.port}")
    worker.answer_all(*ANSWER)
    return serves


class Client(BidirectionalStreamingClient):
    """With the method of clients that do not stream, for the snippet that shows one."""

    def create_message(self, messages: list[Any]) -> dict[str, Any]:
        """The whole answer."""
        text = "".join(chunk["delta"]["text"] for chunk in self.stream_conversation(str(messages)))
        return {"content": [{"type": "text", "text": text}]}


def client(session: str = "s1") -> Client:
    """What the snippets call ``client``."""
    return Client(StreamingConfig(session_id=session))


def text_of(chunks: list[Any]) -> str:
    """As the snippets read it, unguarded."""
    return "".join(chunk["delta"]["text"] for chunk in chunks)


@pytest.mark.usefixtures("serves")
async def test_chat_applications() -> None:
    shown: list[str] = []
    await asyncio.to_thread(run, "chat_without", client=client(), display_message=shown.append)
    assert [TEXT] == shown
    shown.clear()
    await asyncio.to_thread(run, "chat", client=client(), display_chunk=shown.append)
    assert "".join(shown) == TEXT


async def test_pattern_1_simple_streaming(serves: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    await asyncio.to_thread(run, "simple")
    assert capsys.readouterr().out == TEXT * 2
    listed = await (await serves.wire.request("GET", "/v1/sessions/my-conv/turns")).json()
    assert ["Hello", "What's 2+2?"] == [turn["message"] for turn in listed["turns"]]


@pytest.fixture
async def guides(serves: Serving) -> AsyncIterator[Wire]:  # noqa: ARG001 - their client needs it
    """A wire to the guide's two servers, in a thread: their loop stands still while they stream."""
    names: dict[str, Any] = {
        "StreamingConfig": StreamingConfig,
        "BidirectionalStreamingClient": BidirectionalStreamingClient,
    }
    for name in ("server_sse", "server_ws"):
        names |= run(name, **{key: value for key, value in names.items() if key != "__builtins__"})
    with bind("127.0.0.1", 0) as listening:
        config = uvicorn.Config(names["app"], lifespan="off", log_config=None, ws="websockets-sansio")
        server = Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        await eventually(lambda: server.started, "the guide's servers serve")
        wire = Wire("127.0.0.1", listening.getsockname()[1])
        yield wire
        await wire.close()
        server.should_exit = True
        await asyncio.to_thread(thread.join)


async def test_pattern_2_fastapi_and_sse(guides: Wire) -> None:
    answer = await guides.request("POST", "/chat/stream?message=Hello&session_id=s1")
    *deltas, done, end = (await answer.body()).decode().split("\n\n")
    assert ("data: [DONE]", "") == (done, end)
    assert text_of([json.loads(line.removeprefix("data: ")) for line in deltas]) == TEXT


async def test_pattern_3_websocket(guides: Wire) -> None:
    def talk() -> list[str]:
        texts = []
        with connect(f"ws://127.0.0.1:{guides.port}/chat/ws", proxy=None) as line:
            line.send("s1")
            for message in ("one", "two"):
                line.send(message)
                text = ""
                while len(text) < len(TEXT):
                    text += json.loads(line.recv(30 * SECONDS))["delta"]["text"]
                texts.append(text)
        return texts

    assert [TEXT, TEXT] == await asyncio.to_thread(talk)


async def test_code_review_alerts_before_the_end(
    start: Start, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMWIRE_URL", f"http://127.0.0.1:{(await start()).wire.port}")
    shown: list[Any] = []
    alerts: list[str] = []
    given = {"client": client(), "alert_team": lambda: alerts.append("!"), "display_chunk": shown.append}
    review = asyncio.create_task(asyncio.to_thread(run, "code_review", **given))
    turn = await worker.next_turn()
    await turn.start()
    await turn.delta("CRITICAL: ")
    await eventually(lambda: alerts, "the team is alerted while the review goes on")
    await turn.delta("eval")
    await turn.complete()
    await review
    assert text_of(shown) == "CRITICAL: eval"


@pytest.mark.usefixtures("serves")
async def test_progressive_enhancement() -> None:
    shown: list[Any] = []

    def extract_code_block(text: str) -> str:
        return text.split("```python\n")[1].split("```", maxsplit=1)[0]

    given = {"client": client(), "extract_code_block": extract_code_block, "display_chunk": shown.append}
    names = await asyncio.to_thread(run, "progressive", **given)
    assert ("x = 1\n", TEXT) == (names["initial_code"], text_of(shown))


@pytest.mark.usefixtures("serves")
async def test_real_time_collaboration() -> None:
    users: list[list[Any]] = [[], [], []]

    def broadcast(chunk: dict[str, Any]) -> None:
        for user in users:
            user.append(chunk)

    await asyncio.to_thread(run, "collaboration", client=client(), broadcast_to_all_users=broadcast)
    assert 3 * [TEXT] == [text_of(user) for user in users]


async def test_reconnection_logic(serves: Serving) -> None:
    class Time:
        """Its ``sleep`` is told how long, and brings the edge to the client."""

        slept: list[float] = []  # noqa: RUF012 - of this test alone

        def sleep(self, seconds: float) -> None:
            self.slept.append(seconds)
            lost.config.url = f"http://127.0.0.1:{serves.wire.port}"
            lost._edge = None

    with bind("127.0.0.1", 0) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        lost = BidirectionalStreamingClient(StreamingConfig(session_id="s1", url=url, patience=0.01))
        resilient_stream = run("reconnection", time=Time())["resilient_stream"]
        chunks = await asyncio.to_thread(lambda: list(resilient_stream(lost, "Hello")))
        assert text_of(chunks) == TEXT
        assert [1] == Time.slept


async def test_reconnection_gives_up_with_an_error_that_the_guide_catches() -> None:
    with bind("127.0.0.1", 0) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        told: list[Exception] = []
        config = StreamingConfig(url=url, patience=0.01, on_error=told.append)
        lost = BidirectionalStreamingClient(config)
        with pytest.raises(ConnectionError) as caught:
            await asyncio.to_thread(list, lost.stream_conversation("Hello"))
        assert isinstance(caught.value, ConnectionLost)
        assert told == [caught.value]


@pytest.mark.usefixtures("serves")
async def test_partial_response_handling() -> None:
    saved: list[tuple[int, str]] = []
    wrapped = "def partial(client, message, save_checkpoint, recover_from_checkpoint):\n"
    names: dict[str, Any] = {}
    # It yields, so it is the inside of a function.
    exec(wrapped + indent(source("partial"), "    "), names)  # noqa: S102 - it is to run as it is

    def save(position: int, text: str) -> None:
        saved.append((position, text))

    work = names["partial"](client(), "Hello", save, saved.clear)
    assert text_of(await asyncio.to_thread(list, work)) == TEXT
    assert "".join(text for _, text in saved) == TEXT
    assert saved == [(TEXT.index(part), part) for _, part in saved]


@pytest.mark.usefixtures("serves")
async def test_buffer_management() -> None:
    whole: list[Any] = []
    shown: list[Any] = []
    given = {"client": client(), "message": "Hello"}
    await asyncio.to_thread(run, "buffers", display_all=whole.extend, display_chunk=shown.append, **given)
    assert text_of(whole) == text_of(shown) == TEXT


@pytest.mark.usefixtures("serves")
async def test_async_for_concurrency() -> None:
    answers: dict[str, str] = {}

    async def stream_conversation(user: str, message: str) -> None:
        chunks = await asyncio.to_thread(list, client(user).stream_conversation(message))
        answers[user] = text_of(chunks)

    names = run("concurrency", stream_conversation=stream_conversation)
    await names["handle_multiple_streams"]()
    assert answers == {f"user-{i}": TEXT for i in range(10)}


@pytest.mark.usefixtures("serves")
async def test_rate_limiting() -> None:
    class RateLimitError(Exception):
        """As the snippet raises it."""

    limited = run("rate_limit", RateLimitError=RateLimitError)["RateLimitedStreaming"](max_per_minute=1)
    chunks = await asyncio.to_thread(lambda: list(limited.stream_with_limit(client(), "Hello")))
    assert text_of(chunks) == TEXT
    with pytest.raises(RateLimitError):
        list(limited.stream_with_limit(client(), "Hello"))


def test_configuration_options() -> None:
    given = {"dataclass": dataclass, "Optional": Optional, "Callable": Callable}
    theirs = run("options", **given)["StreamingConfig"]
    ours = {each.name: each.default for each in fields(StreamingConfig)}
    assert {each.name: each.default for each in fields(theirs)}.items() <= ours.items()
    assert MISSING not in ours.values()


# -- beyond the snippets


def started(stream: Iterator[Any]) -> str:
    """Its first text."""
    text: str = next(stream)["delta"]["text"]
    return text


async def test_who_stops_iterating_stops_the_turn(
    start: Start, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    serves = await start()
    monkeypatch.setenv("WARMWIRE_URL", f"http://127.0.0.1:{serves.wire.port}")
    stream = client().stream_conversation("Hello")
    first = asyncio.create_task(asyncio.to_thread(started, stream))
    turn = await worker.next_turn()
    await turn.start()
    await turn.delta("one")
    assert await first == "one"
    await asyncio.to_thread(stream.close)  # type: ignore[attr-defined]
    assert worker.interrupts == [turn.id]
    await turn.interrupted()


async def test_a_callback_that_fails_stops_the_turn(
    start: Start, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    serves = await start()
    monkeypatch.setenv("WARMWIRE_URL", f"http://127.0.0.1:{serves.wire.port}")
    full, told = OSError("the disk is full"), list[Exception]()

    def save(_: dict[str, Any]) -> None:
        raise full

    config = StreamingConfig(session_id="s1", on_chunk=save, on_error=told.append)
    stream = BidirectionalStreamingClient(config).stream_conversation("Hello")
    first = asyncio.create_task(asyncio.to_thread(started, stream))
    turn = await worker.next_turn()
    await turn.start()
    await turn.delta("one")
    with pytest.raises(OSError, match="the disk is full"):
        await first
    assert ([full], [turn.id]) == (told, worker.interrupts)
    await turn.interrupted()


@pytest.mark.usefixtures("serves")
async def test_a_turn_that_is_complete_is_told_with_its_text() -> None:
    told: list[str] = []
    config = StreamingConfig(session_id="s1", on_complete=told.append, oauth_token=None)
    await asyncio.to_thread(list, BidirectionalStreamingClient(config).stream_conversation("Hello"))
    assert told == [TEXT]
    assert "secret" not in repr(StreamingConfig(oauth_token="secret", access_token="secret"))
