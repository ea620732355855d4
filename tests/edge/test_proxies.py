"""Behind real proxies with the configurations that we ship: nothing is held back, cut off or lost."""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from playwright.async_api import Browser, Page
from websockets.asyncio.client import ClientConnection, connect

from tests.client import eventually
from tests.conftest import SECONDS
from tests.edge.browser import PATIENCE
from tests.edge.conftest import Serving, Start
from tests.edge.fake_worker import FakeTurn, FakeWorker, begun
from tests.edge.wire import WITHIN
from tests.proxies import Addresses, proxy
from tests.system.edge_load import Frame, frames

KINDS = ("nginx", "haproxy")
VERSIONS = ("HTTP/1.1", "HTTP/2")
WAYS = [(kind, version) for kind in KINDS for version in VERSIONS]
BODY = {"session_id": "s1", "message": "Hello"}
PATH = "/v1/chat/stream"
GZIP_ALL = "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;"


class Stream:
    """A response, event by event; `comments` counts what came between them."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.comments = 0
        self.cut = False
        self._frames = frames(self._lines())

    async def _lines(self) -> AsyncIterator[str]:
        async for line in self.response.aiter_lines():
            self.comments += line == ":"
            if line != ":":
                yield line

    async def frame(self) -> Frame:
        """The next frame that has data."""
        async for frame in self._frames:
            if frame.data:
                return frame
        raise EOFError("the response has ended")

    async def delta(self) -> str:
        """The text of the next delta, whatever comes before it."""
        while (frame := await self.frame()).event != "content_block_delta":
            pass
        return str(json.loads(frame.data)["delta"]["text"])

    async def rest(self) -> tuple[str, list[str]]:
        """The text of the other deltas, and the types of all events, to `[DONE]`."""
        text, kinds = "", []
        while (frame := await self.frame()).data != "[DONE]":
            kinds.append(frame.event)
            if frame.event == "content_block_delta":
                text += json.loads(frame.data)["delta"]["text"]
        return text, kinds


class Behind:
    """An edge behind a proxy, and a client of that proxy."""

    def __init__(self, serves: Serving, addresses: Addresses, stack: AsyncExitStack) -> None:
        self.edge = serves.edge
        self.addresses = addresses
        self._stack = stack

    def client(self, version: str = "HTTP/1.1", **options: Any) -> httpx.AsyncClient:
        """A client that speaks one version: HTTP/2 as browsers do, over TLS."""
        two = version == "HTTP/2"
        base = self.addresses.https if two else self.addresses.http
        return httpx.AsyncClient(
            base_url=base,
            http1=not two,
            http2=two,
            verify=self.addresses.trust,
            timeout=WITHIN,
            trust_env=False,
            **options,
        )

    async def stream(self, version: str, method: str, path: str, **request: Any) -> Stream:
        """A stream over a connection of its own, closed at the end of the test."""
        client = await self._stack.enter_async_context(self.client(version))
        response = await self._stack.enter_async_context(client.stream(method, path, **request))
        assert (200, version) == (response.status_code, response.http_version)
        return Stream(response)

    async def asked(self, version: str = "HTTP/1.1", **request: Any) -> Stream:
        """A message, and the stream of its turn."""
        return await self.stream(version, "POST", PATH, **{"json": BODY, **request})

    async def line(self, *, tls: bool) -> ClientConnection:
        """A WebSocket, closed at the end of the test."""
        base = self.addresses.https if tls else self.addresses.http
        url, trust = base.replace("http", "ws", 1), self.addresses.trust if tls else None
        opening = connect(f"{url}/v1/chat/ws", proxy=None, ssl=trust, open_timeout=WITHIN, max_queue=None)
        return await self._stack.enter_async_context(opening)


class Put(Protocol):
    """The fixture `behind`."""

    @abstractmethod
    async def __call__(
        self, kind: str, changes: Mapping[str, str] | None = None, more: str = "", **settings: Any
    ) -> Behind:
        """An edge with these settings behind a proxy of this kind."""


@pytest.fixture
async def behind(start: Start, tmp_path: Path) -> AsyncIterator[Put]:
    """Puts an edge behind a proxy."""
    async with AsyncExitStack() as stack:

        async def put(
            kind: str, changes: Mapping[str, str] | None = None, more: str = "", **settings: Any
        ) -> Behind:
            serves = await start(**settings)
            ports = [serves.wire.port]
            front = proxy(kind, tmp_path / kind, ports, changes, more)
            return Behind(serves, await stack.enter_async_context(front), stack)

        yield put


async def delta_of(line: ClientConnection) -> str:
    """The text of the next delta that comes over a WebSocket."""
    while (event := json.loads(await line.recv())["event"])["type"] != "content_block_delta":
        pass
    return str(event["delta"]["text"])


async def one_by_one(stream: Stream, turn: FakeTurn) -> None:
    """Each delta is received before the next one is made: nobody holds any back."""
    for number in range(20):
        await turn.delta(f"{number} ")
        assert await stream.delta() == f"{number} "
    await turn.complete()
    assert (await stream.rest())[1] == ["turn_completed"]


@pytest.mark.parametrize("kind", KINDS)
async def test_each_delta_arrives_before_the_next_is_made(behind: Put, worker: FakeWorker, kind: str) -> None:
    serves = await behind(kind)
    for version in VERSIONS:
        stream = await serves.asked(version)
        await one_by_one(stream, await begun(worker))


async def test_compression_at_the_proxy_does_not_touch_streams(behind: Put, worker: FakeWorker) -> None:
    stream = await (await behind("nginx", more=GZIP_ALL)).asked(headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in stream.response.headers
    await one_by_one(stream, await begun(worker))


@pytest.mark.parametrize("more", ["", GZIP_ALL], ids=["plain", "gzip"])
async def test_our_headers_are_enough_for_an_nginx_that_knows_nothing_of_streams(
    behind: Put, worker: FakeWorker, more: str
) -> None:
    naive = {"proxy_buffering off;": "", "gzip off;": "", "proxy_http_version 1.1;": ""}
    stream = await (await behind("nginx", naive, more)).asked(headers={"accept-encoding": "gzip"})
    assert ("gzip" if more else None) == stream.response.headers.get("content-encoding")
    await one_by_one(stream, await begun(worker))


# -- idle lines

PROXY_WAITS = 4 * SECONDS
"""For a word of the edge, which may stand still for some time itself."""
IDLE = {
    "nginx": {"proxy_read_timeout 60s;": f"proxy_read_timeout {round(PROXY_WAITS)}s;"},
    "haproxy": {
        "timeout client       60s": f"timeout client {round(PROXY_WAITS)}s",
        "timeout server       60s": f"timeout server {round(PROXY_WAITS)}s",
        "timeout tunnel       60s": f"timeout tunnel {round(PROXY_WAITS)}s",
    },
}


async def test_comments_and_pings_hold_a_silent_line_for_longer_than_the_proxy_waits(
    behind: Put, worker: FakeWorker
) -> None:
    every = 0.1 * SECONDS
    fronts = {kind: await behind(kind, IDLE[kind], keepalive=every) for kind in KINDS}
    streams = [await fronts[kind].stream(version, "GET", "/v1/sessions/s1/events") for kind, version in WAYS]
    lines = [await fronts[kind].line(tls=False) for kind in KINDS]
    for line in lines:
        await line.send(json.dumps({"type": "watch", "session_id": "s1"}))
    reading = [asyncio.create_task(stream.delta()) for stream in streams]
    reading += [asyncio.create_task(delta_of(line)) for line in lines]
    for stream, read in zip(streams, reading, strict=False):
        await eventually(lambda: stream.comments * every > 1.25 * PROXY_WAITS or read.done(), "a silent line")  # noqa: B023
    await fronts["nginx"].asked()
    await (await begun(worker)).delta("still here")
    assert ["still here"] * len(reading) == await asyncio.gather(*reading)


@pytest.mark.parametrize("kind", KINDS)
async def test_without_comments_the_proxy_cuts_the_line_and_the_client_goes_on_from_its_cursor(
    behind: Put, worker: FakeWorker, kind: str
) -> None:
    serves = await behind(kind, IDLE[kind], keepalive=1000)
    stream = await serves.asked()
    turn = await begun(worker)
    await turn.delta("one ")
    while (frame := await stream.frame()).event != "content_block_delta":
        pass
    with pytest.raises((EOFError, httpx.RemoteProtocolError)):
        await stream.frame()
    await turn.delta("two")
    back = await serves.stream("HTTP/1.1", "GET", PATH, params=BODY, headers={"last-event-id": frame.id})
    await turn.complete()
    assert ("two", ["content_block_delta", "turn_completed"]) == await back.rest()
    assert worker.waiting == 0


# -- viewers that come, go, and come back


@pytest.mark.parametrize("kind", KINDS)
async def test_a_viewer_that_comes_back_gets_what_it_missed_and_nothing_twice(
    behind: Put, worker: FakeWorker, kind: str
) -> None:
    serves = await behind(kind)
    for version in VERSIONS:
        async with serves.client(version) as client, client.stream("POST", PATH, json=BODY) as response:
            turn = await begun(worker)
            await turn.delta("one ")
            stream = Stream(response)
            while (frame := await stream.frame()).event != "content_block_delta":
                pass
        await turn.delta("two ")
        back = await serves.stream(version, "GET", PATH, params=BODY, headers={"last-event-id": frame.id})
        await turn.delta("three")
        await turn.complete()
        assert (await back.rest())[0] == "two three"
    assert worker.waiting == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_the_edge_notices_who_leaves(behind: Put, worker: FakeWorker, kind: str) -> None:
    serves = await behind(kind, disconnect_grace=0)
    stopped = []
    for session, version in enumerate(VERSIONS):
        body = BODY | {"session_id": f"s{session}", "on_disconnect": "cancel"}
        async with serves.client(version) as client, client.stream("POST", PATH, json=body) as response:
            turn = await begun(worker)
            await turn.delta("one ")
            assert await Stream(response).delta() == "one "
            assert serves.edge.viewers == 1
        stopped.append(turn.id)
        await eventually(lambda: serves.edge.viewers == 0, "the edge has noticed")
        await eventually(lambda: worker.interrupts == stopped, "the turn is stopped")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_the_edge_would_read_the_proxy_lets_through(behind: Put, kind: str) -> None:
    async with (await behind(kind)).client() as client:
        answer = await client.post(PATH, json=BODY | {"message": "é" * (512 * 1024 + 1)})
    assert (413, "application/problem+json") == (answer.status_code, answer.headers["content-type"])
    assert answer.json()["type"] == "urn:warmwire:problem:message_too_large"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_websocket_passes_delta_by_delta(behind: Put, worker: FakeWorker, kind: str) -> None:
    serves = await behind(kind)
    for tls in (False, True):
        line = await serves.line(tls=tls)
        await line.send(json.dumps({"type": "user_message", **BODY}))
        turn = await begun(worker)
        for number in range(20):
            await turn.delta(f"{number}")
            assert await delta_of(line) == f"{number}"
        await turn.complete()


# -- a browser


OpenTab = Callable[[str], Awaitable[Page]]


@pytest.fixture
async def tab(browser: Browser) -> AsyncIterator[OpenTab]:
    """Opens a page of the proxy's origin in Chromium."""
    context = await browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(PATIENCE)

    async def opened(url: str) -> Page:
        page = await context.new_page()
        await page.goto(f"{url}/healthz")  # without any script of its own
        return page

    yield opened
    await context.close()


OPEN = """async count => {
  window.open_ = 0;
  window.sources = Array.from({length: count}, (_, n) => new EventSource(`/v1/sessions/s${n}/events`));
  for (const source of sources) source.onopen = () => { window.open_ += 1; };
}"""

PING = """() => new Promise((resolve, reject) => {
  const line = new WebSocket(`wss://${location.host}/v1/chat/ws`);
  line.onopen = () => line.send('{"type":"ping"}');
  line.onmessage = (message) => resolve(message.data);
  line.onerror = reject;
})"""


@pytest.mark.browser
@pytest.mark.parametrize("kind", KINDS)
async def test_over_http_2_a_browser_has_more_than_six_streams_and_a_websocket(
    behind: Put, tab: OpenTab, kind: str
) -> None:
    serves = await behind(kind)
    shown = await tab(serves.addresses.https)
    await shown.evaluate(OPEN, 20)
    await shown.wait_for_function("window.open_ === 20")
    assert serves.edge.viewers == 20
    assert await shown.evaluate(PING) == '{"type":"pong"}'


@pytest.mark.browser
async def test_over_http_1_a_browser_has_six_and_the_next_waits_for_one_to_end(
    behind: Put, tab: OpenTab
) -> None:
    serves = await behind("nginx")
    shown = await tab(serves.addresses.http)
    await shown.evaluate(OPEN, 7)
    await shown.wait_for_function("window.open_ === 6")
    assert serves.edge.viewers == 6
    assert 1 == await shown.evaluate("sources.filter(each => each.readyState === 0).length")
    await shown.evaluate("sources.find(each => each.readyState === 1).close()")
    await shown.wait_for_function("window.open_ === 7")
