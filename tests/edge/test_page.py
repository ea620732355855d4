"""The chat page in headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, async_playwright, expect

from .conftest import Serving, Start
from .fake_worker import FakeTurn, FakeWorker
from .wire import Wire
from tests.client import eventually
from tests.conftest import SECONDS, require

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
async def serves(start: Start) -> Serving:
    """An edge with the page."""
    return await start(keepalive=0.2)


@pytest.fixture
async def page(serves: Serving) -> AsyncIterator[Page]:
    """The page, ready to be written in. Whatever it complains of fails the test."""
    require(CHROMIUM, "chromium")
    complaints: list[str] = []
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await chromium.new_page()
        page.set_default_timeout(10_000 * SECONDS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None
        )
        await page.goto(f"http://127.0.0.1:{serves.wire.port}/")
        await expect(page.locator("#state")).to_have_text("Ready")
        yield page
        await chromium.close()
    assert complaints == []


expect.set_options(timeout=15_000 * SECONDS)  # a browser's first moments on a busy machine are slow


async def ask(page: Page, worker: FakeWorker, message: str = "Hello") -> FakeTurn:
    """Type a message, press Enter; returns the turn, started."""
    await page.locator("#message").fill(message)
    await page.keyboard.press("Enter")
    turn = await worker.next_turn()
    await turn.start()
    return turn


async def answered(page: Page) -> None:
    """Wait until the answer is whole."""
    await expect(page.locator("#state")).to_have_text("Ready")


async def test_a_typed_message_is_answered_and_the_answer_grows(page: Page, worker: FakeWorker) -> None:
    turn = await ask(page, worker)
    await expect(page.locator("article.user .text")).to_have_text("Hello")
    await expect(page.locator("article.assistant .note")).to_have_text("Thinking")
    seen = ""
    for word in ("The ", "answer ", "grows ", "word ", "by ", "word."):
        await turn.delta(word)
        seen += word
        await expect(page.locator("article.assistant .text")).to_have_text(seen.strip())
        await expect(page.locator("#state")).to_have_text("Answering")
    await turn.complete()
    await answered(page)
    await expect(page.locator("article.assistant .text")).to_have_text("The answer grows word by word.")
    await expect(page.locator("#message")).to_be_focused()


async def test_a_second_message_goes_to_the_same_session(page: Page, worker: FakeWorker) -> None:
    first = await ask(page, worker, "one")
    await first.complete()
    await answered(page)
    second = await ask(page, worker, "two")
    assert first.session_id == second.session_id
    await second.complete()
    await answered(page)
    await page.locator("#new-chat").click()
    await expect(page.locator("article")).to_have_count(0)
    third = await ask(page, worker, "three")
    assert third.session_id != first.session_id


async def test_shift_enter_begins_a_new_line(page: Page, worker: FakeWorker) -> None:
    await page.locator("#message").fill("one")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("two")
    await page.keyboard.press("Enter")
    assert (await worker.next_turn()).message.content == "one\ntwo"


async def test_what_a_model_writes_is_text_and_nothing_else(page: Page, worker: FakeWorker) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script> & <b>bold</b>"
    turn = await ask(page, worker, evil)
    await turn.delta(evil)
    await turn.complete()
    await answered(page)
    for role in ("user", "assistant"):
        await expect(page.locator(f"article.{role} .text")).to_have_text(evil)
    assert await page.locator("#log img, #log script, #log b").count() == 0


async def test_a_refusal_is_shown_and_the_message_can_be_changed(page: Page, worker: FakeWorker) -> None:
    await page.locator("#message").fill("x" * 1_048_577)
    await page.keyboard.press("Enter")
    await expect(page.locator(".note.bad")).to_have_text("message has 1048577 bytes, 1048576 are allowed")
    assert len(await page.locator("#message").input_value()) == 1_048_577
    await expect(page.locator("article.user")).to_have_count(0)
    assert worker.waiting == 0


async def test_a_turn_that_fails_says_why(page: Page, worker: FakeWorker) -> None:
    turn = await ask(page, worker)
    await turn.delta("So far")
    await turn.fail("overloaded", "The API is overloaded.")
    await expect(page.locator(".note.bad")).to_have_text("The API is overloaded.")
    await expect(page.locator("article.assistant .text")).to_have_text("So far")
    await answered(page)


async def test_a_reload_in_the_middle_goes_on_with_the_answer(page: Page, worker: FakeWorker) -> None:
    first = await ask(page, worker, "one")
    await first.delta("The first answer.")
    await first.complete()
    await answered(page)
    turn = await ask(page, worker, "two")
    await turn.delta("It goes ")
    await expect(page.locator("article.assistant .text").last).to_have_text("It goes")
    await page.reload()
    await expect(page.locator("article.assistant .text").last).to_have_text("It goes")
    await turn.delta("on.")
    await turn.complete()
    await answered(page)
    texts = await page.locator("article .text").all_inner_texts()
    assert texts == ["one", "The first answer.", "two", "It goes on."]


async def test_a_connection_that_breaks_is_made_again_and_nothing_is_lost_or_said_twice(
    page: Page, worker: FakeWorker, serves: Serving
) -> None:
    turn = await ask(page, worker)
    await turn.delta("one ")
    await expect(page.locator("article.assistant .text")).to_have_text("one")
    serves.edge.end_streams()
    await expect(page.locator("#state")).to_have_text("Reconnecting")
    await turn.delta("two ")
    await expect(page.locator("article.assistant .text")).to_have_text("one two")
    await turn.delta("three")
    await turn.complete()
    await answered(page)
    await expect(page.locator("article.assistant .text")).to_have_text("one two three")
    assert worker.waiting == 0


async def test_a_gap_is_filled_by_the_snapshot(page: Page, worker: FakeWorker) -> None:
    turn = await ask(page, worker)
    await turn.delta("one ")
    await expect(page.locator("article.assistant .text")).to_have_text("one")
    worker.forgetful = True
    await turn.lose("two ")
    await turn.delta("three ")
    await expect(page.locator("article.assistant .text")).to_have_text("one two three")
    await turn.delta("four")
    await turn.complete()
    await answered(page)
    await expect(page.locator("article.assistant .text")).to_have_text("one two three four")


async def test_nothing_comes_from_anywhere_else(wire: Wire) -> None:
    for path in ("/", "/page.css", "/page.js", "/stream.js", "/answer.js", "/icon.svg"):
        answer = await wire.request("GET", path)
        body = (await answer.body()).decode()
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "://" not in body.replace('"http://www.w3.org/2000/svg"', "")


async def test_an_unchanged_file_is_not_sent_again(wire: Wire) -> None:
    first = await wire.request("GET", "/page.js")
    again = await wire.request("GET", "/page.js", {"if-none-match": first.headers["etag"]})
    assert again.status == 304


PARSED = """async (text) => {
    const { EventParser } = await import("/stream.js");
    const whole = new EventParser(), pieces = new EventParser();
    const together = whole.feed(text);
    const apart = [...text].flatMap((character) => pieces.feed(character));
    return { together, apart, ids: [whole.lastId, pieces.lastId] };
}"""


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
async def test_events_may_be_cut_anywhere(page: Page, line_end: str) -> None:
    lines = [":", "id: t.0.0", "", "retry: 1000", "", "event: a", 'data: {"x":1}', "id: t.1.1", ""]
    lines += [":", "data:one", "data: two", "ignored", "", "data: [DONE]", "", "x"]
    parsed = await page.evaluate(PARSED, line_end.join(lines))
    expected = [
        {"type": "a", "data": '{"x":1}'},
        {"type": "message", "data": "one\ntwo"},
        {"type": "message", "data": "[DONE]"},
    ]
    assert parsed == {"together": expected, "apart": expected, "ids": ["t.1.1", "t.1.1"]}


async def test_with_no_worker_the_page_says_that_it_is_not_connected_yet(
    page: Page, worker: FakeWorker, serves: Serving
) -> None:
    worker.draining = True
    await eventually(lambda: serves.edge.not_ready() is not None, "the edge hears that its worker leaves")
    await page.reload()
    await expect(page.locator("#state")).to_have_text("Connecting")
    worker.draining = False
    await expect(page.locator("#state")).to_have_text("Ready")
