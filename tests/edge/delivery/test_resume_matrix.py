"""Coming back by every transport with every kind of cursor, in a real browser: docs/reference/http.md.

Each cell is a session of its own. A turn has said "one " and "two ", its viewer comes with the cursor, and
then the turn says "three" and ends. Where it had ended before, the next turn says "three".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.async_api import Browser, Page
from playwright.async_api import TimeoutError as NotShown

from tests.edge.browser import PATIENCE
from tests.edge.conftest import Serving, Start
from tests.edge.fake_worker import FakeTurn, FakeWorker
from tests.edge.wire import Wire

pytestmark = pytest.mark.browser

BEGIN = ["turn_started", "message_start", "content_block_start"]
AGAIN = ["gap", "snapshot: one two "]
DONE = ["three", "turn_completed", "[DONE]"]
ON = ["three", "turn_completed"]
NEXT = [*BEGIN, *ON]
NOBODY = "01970000-0000-7000-8000-000000000000.1764000000000.5"
"""A cursor of a turn that nobody knows."""

TURN = {
    "none": ["turn_queued", *BEGIN, "one ", "two ", *DONE],
    "start": [*BEGIN, "one ", "two ", *DONE],
    "middle": ["two ", *DONE],
    "end": ["204"],
    "unknown turn": [*AGAIN, *DONE],
    "future": [*AGAIN, *DONE],
    "malformed": [*AGAIN, *DONE],
    "purged": ["gap", "[DONE]"],
}
"""What `GET /v1/chat/stream` shows: one turn."""
SESSION = {
    "none": ["snapshot: one two ", *ON],
    "start": [*AGAIN, *ON],
    "middle": ["two ", *ON],
    "end": NEXT,
    "unknown turn": [*AGAIN, *ON],
    "future": [*AGAIN, *ON],
    "malformed": [*AGAIN, *ON],
    "purged": ["gap", *NEXT],
}
"""What `GET /v1/sessions/{id}/events` and `watch` show: the session."""

SCRIPT = """() => {
  window.leave = () => {};
  window.begin = () => { leave(); window.seen = []; window.opened = false; };
  const text = (data) => data.blocks.map((block) => block.text).join("");
  const show = (event) => event.type === "ping" || seen.push(
    event.type === "content_block_delta" ? event.delta.text
    : event.type === "snapshot" ? "snapshot: " + text(event) : event.type);
  const TYPES = ["turn_queued", "turn_started", "message_start", "content_block_start", "content_block_delta",
    "snapshot", "gap", "turn_completed"];
  window.eventsource = (url, endless) => {
    const source = new EventSource(url);
    leave = () => source.close();
    source.onopen = () => { opened = true; };
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) seen.push("204"); };
    source.onmessage = (message) => { seen.push(message.data); source.close(); };
    for (const type of TYPES) source.addEventListener(type, (message) => {
      show(JSON.parse(message.data));
      if (endless && type === "turn_completed") source.close();
    });
  };
  window.fetched = async (url, cursor, endless) => {
    const aborting = new AbortController();
    leave = () => aborting.abort();
    const headers = cursor === null ? {} : {"Last-Event-ID": cursor};
    const response = await fetch(url, {headers, signal: aborting.signal});
    opened = true;
    if (response.status === 204) { seen.push("204"); return; }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = "";;) {
      const {value, done} = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\\n");
      rest = lines.pop();
      for (const line of lines.filter((line) => line.startsWith("data: "))) {
        const data = line.slice(6);
        if (data === "[DONE]") seen.push(data); else show(JSON.parse(data));
        if (endless && seen.at(-1) === "turn_completed") { leave(); return; }
      }
    }
  };
  window.watched = (session, cursor) => {
    const line = new WebSocket(`ws://${location.host}/v1/chat/ws`);
    leave = () => line.close();
    const frame = {type: "watch", session_id: session, id: "w"};
    line.onopen = () => line.send(JSON.stringify(cursor === null ? frame : {...frame, cursor}));
    line.onmessage = (message) => {
      const {type, event} = JSON.parse(message.data);
      if (type === "watching") opened = true;
      if (event !== undefined) show(event);
      if (event?.type === "turn_completed") line.close();
    };
  };
}"""


@dataclass
class World:
    """A browser, an edge that it comes from, one that has seen nothing yet, and their worker."""

    page: Page
    wire: Wire
    worker: FakeWorker

    async def turn(self, session: str) -> FakeTurn:
        """A turn that somebody else asks for, begun."""
        await self.wire.send("POST", f"/v1/sessions/{session}/messages", {"message": "Hello"})
        turn = await self.worker.next_turn()
        await turn.start()
        return turn

    async def purge(self, turn: FakeTurn) -> None:
        """Nothing is known of it any more, as after 24 hours: neither its owner nor its record."""
        await self.worker.leave(turn.key)
        await self.worker.store.release(turn.key, turn.epoch, "n")
        subjects = self.worker.subjects
        await self.worker.bus.js.purge_stream(subjects.state_stream, subject=subjects.turn(turn.key, turn.id))


Open = Callable[[World, str, str | None], Awaitable[Any]]


async def eventsource_turn(world: World, session: str, cursor: str | None) -> None:
    """An EventSource for one turn; the first connection cannot send a header."""
    query = {"session_id": session, "message": "Hello"} | ({"last_event_id": cursor} if cursor else {})
    await world.page.evaluate("url => eventsource(url, false)", f"/v1/chat/stream?{urlencode(query)}")


async def fetch_turn(world: World, session: str, cursor: str | None) -> None:
    """fetch for one turn."""
    url = f"/v1/chat/stream?{urlencode({'session_id': session, 'message': 'Hello'})}"
    await world.page.evaluate("([url, cursor]) => { fetched(url, cursor, false); }", [url, cursor])


async def eventsource_session(world: World, session: str, cursor: str | None) -> None:
    """An EventSource for a session."""
    query = f"?{urlencode({'last_event_id': cursor})}" if cursor else ""
    await world.page.evaluate("url => eventsource(url, true)", f"/v1/sessions/{session}/events{query}")


async def fetch_session(world: World, session: str, cursor: str | None) -> None:
    """fetch for a session."""
    url = f"/v1/sessions/{session}/events"
    await world.page.evaluate("([url, cursor]) => { fetched(url, cursor, true); }", [url, cursor])


async def websocket(world: World, session: str, cursor: str | None) -> None:
    """`watch` over a WebSocket."""
    await world.page.evaluate("([session, cursor]) => watched(session, cursor)", [session, cursor])


@pytest.fixture
async def world(start: Start, worker: FakeWorker, browser: Browser) -> AsyncIterator[World]:
    """All of it."""
    serves: Serving = await start()
    page = await browser.new_page()
    page.set_default_timeout(PATIENCE)
    await page.goto(f"http://127.0.0.1:{serves.wire.port}/healthz")
    await page.evaluate(SCRIPT)
    yield World(page, serves.wire, worker)
    await page.close()


def cursors(turn: str, epoch: int, middle: int) -> dict[str, str | None]:
    """Of each case, in a turn that has two more events after its middle."""
    return {
        "none": None,
        "start": f"{turn}.0.0",
        "middle": f"{turn}.{epoch}.{middle}",
        "end": f"{turn}.{epoch}.{middle + 2}",
        "unknown turn": NOBODY,
        "future": f"{turn}.{epoch}.{middle + 1000}",
        "malformed": "nonsense",
        "purged": f"{turn}.{epoch}.{middle}",
    }


async def cell(world: World, session: str, case: str, open_: Open, expected: list[str]) -> list[str]:
    """What a viewer with that cursor is shown."""
    turn = await world.turn(session)
    await turn.delta("one ")
    epoch, seq = await turn.publish(b'{"type":"ping"}')  # so that the cursor of the middle is known
    await turn.delta("two ")
    over = case in ("end", "purged")
    if over:
        await turn.complete()
    if case == "purged":
        await world.purge(turn)
    await world.page.evaluate("begin()")
    await open_(world, session, cursors(turn.id, epoch, seq)[case])
    before = expected.index("three") if "three" in expected and not over else 0
    await world.page.wait_for_function("n => opened && seen.length >= n || seen.at(-1) === '204'", arg=before)
    if over and "three" in expected:
        turn = await world.turn(session)
    if not over or "three" in expected:
        await turn.delta("three")
        await turn.complete()
    with suppress(NotShown):  # what was shown says more
        await world.page.wait_for_function("n => seen.length >= n", arg=len(expected))
    shown: list[str] = await world.page.evaluate("seen")
    return shown


@pytest.mark.parametrize(
    ("open_", "table"),
    [
        (eventsource_turn, TURN),
        (fetch_turn, TURN),
        (eventsource_session, SESSION),
        (fetch_session, SESSION),
        (websocket, SESSION),
    ],
)
async def test_every_cursor_has_its_answer(world: World, open_: Open, table: dict[str, list[str]]) -> None:
    for number, (case, expected) in enumerate(table.items()):
        assert expected == await cell(world, f"s{number}", case, open_, expected), case
    assert world.worker.waiting == 0  # a cursor sends nothing
