"""Tokens and tickets as a real browser sends them, from a page of another origin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page

from tests.edge.access.tokens import token, with_secret
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeWorker

pytestmark = pytest.mark.browser

STREAM = """
async ([api, token]) => {
    const headers = {"authorization": `Bearer ${token}`, "content-type": "application/json"};
    const body = JSON.stringify({session_id: "s1"});
    const answer = await fetch(`${api}/v1/tickets`, {method: "POST", headers, body});
    const {ticket} = await answer.json();
    window.seen = {text: "", over: false, opened: 0};
    const source = new EventSource(`${api}/v1/chat/stream?session_id=s1&message=Hello&ticket=${ticket}`);
    source.onopen = () => { seen.opened += 1; };
    source.onerror = () => { seen.over = source.readyState === EventSource.CLOSED; };
    source.addEventListener("content_block_delta", ({data}) => { seen.text += JSON.parse(data).delta.text; });
}
"""
SOCKET = """
([api, token]) => new Promise((resolve) => {
    const url = `${api.replace("http", "ws")}/v1/chat/ws`;
    const socket = new WebSocket(url, ["warmwire", `warmwire.bearer.${token}`]);
    socket.onopen = () => socket.send('{"type":"ping"}');
    socket.onmessage = ({data}) => resolve(["message", data, socket.protocol]);
    socket.onclose = ({code}) => resolve(["closed", code, socket.protocol]);
})
"""
CROSSING = """
async (api) => {
    try { return (await fetch(`${api}/chat/stream?session_id=s1&message=Hello`, {method: "POST"})).status; }
    catch { return "blocked"; }
}
"""


async def page_of(context: BrowserContext, port: int) -> Page:
    """A page of that origin which lets its scripts do what they like."""
    page = await context.new_page()
    await page.goto(f"http://localhost:{port}/healthz")
    return page


async def seen(page: Page, name: str, value: Any) -> None:
    """Wait until the page has seen it."""
    await page.wait_for_function("([name, value]) => seen[name] === value", arg=[name, value])


async def test_a_page_of_an_allowed_origin_streams_by_a_ticket_and_resumes_with_it(
    start: Start, worker: FakeWorker, context: BrowserContext, tmp_path: Path
) -> None:
    port = (await start()).wire.port
    api = await start(**with_secret(tmp_path), allowed_origins=f"http://localhost:{port}")
    page = await page_of(context, port)
    address = f"http://127.0.0.1:{api.wire.port}"
    await page.evaluate(STREAM, [address, token()])
    turn = await worker.next_turn()
    assert str(turn.key) == "acme.s1"
    await turn.start()
    await turn.delta("Hel")
    await seen(page, "text", "Hel")
    api.edge.end_streams()
    await seen(page, "opened", 2)
    await turn.delta("lo")
    await turn.complete()
    await seen(page, "text", "Hello")
    await seen(page, "over", True)


async def test_a_websocket_brings_its_token_as_a_subprotocol_and_is_told_when_it_is_bad(
    start: Start, context: BrowserContext, tmp_path: Path
) -> None:
    port = (await start()).wire.port
    api = await start(**with_secret(tmp_path), allowed_origins=f"http://localhost:{port}")
    page = await page_of(context, port)
    address = f"http://127.0.0.1:{api.wire.port}"
    kind, data, protocol = await page.evaluate(SOCKET, [address, token()])
    assert ("message", "pong", "warmwire") == (kind, json.loads(data)["type"], protocol)
    assert (await page.evaluate(SOCKET, [address, token(exp=1)]))[:2] == ["closed", 4600]


async def test_a_page_of_another_origin_reaches_nothing(
    start: Start, worker: FakeWorker, context: BrowserContext
) -> None:
    port = (await start()).wire.port
    api = await start()
    page = await page_of(context, port)
    address = f"http://127.0.0.1:{api.wire.port}"
    assert await page.evaluate(CROSSING, address) == "blocked"
    assert (await page.evaluate(SOCKET, [address, "x"]))[:2] == ["closed", 1006]
    stream = await worker.bus.js.stream_info(worker.subjects.request_stream)
    assert stream.state.last_seq == 0
