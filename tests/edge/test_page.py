"""The chat page in headless Chromium: one tab, a connection that holds; and how the page is served."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import BrowserContext, Page, expect

from warmwire.edge.assets import page_files

from tests.client import eventually
from tests.edge.browser import answered, ask, opened
from tests.edge.conftest import Serving, Start
from tests.edge.fake_worker import FakeTurn, FakeWorker
from tests.edge.wire import Wire

pytestmark = pytest.mark.browser

WEIGHT = 48 * 1024
"""Bytes that the page may have in all, as it is sent (gzip)."""
SHOWN = 1600
"""As in clipboard.js: ms that a button says that it has copied."""


async def tells(turn: FakeTurn, type_: str, **fields: object) -> None:
    """One of our events."""
    await turn.publish(json.dumps({"type": type_, "turn": turn.id, **fields}).encode())


async def test_a_first_visit_leaves_the_browsers_console_empty(
    context: BrowserContext, serves: Serving
) -> None:
    said: list[str] = []
    page = await context.new_page()
    page.on("console", lambda each: said.append(each.text))

    async def brought_up_to_date(visit: Awaitable[object]) -> None:
        async with page.expect_response(lambda response: "/turns?" in response.url):
            await visit

    await brought_up_to_date(page.goto(f"http://127.0.0.1:{serves.wire.port}/"))
    await brought_up_to_date(page.reload())
    await brought_up_to_date(page.locator("#new-chat").click())
    assert said == []


async def test_a_typed_message_is_answered_and_the_answer_grows(page: Page, worker: FakeWorker) -> None:
    turn = await ask(page, worker)
    await expect(page.locator(".user .text")).to_have_text("Hello")
    await expect(page.locator(".assistant .note")).to_have_text("Thinking")
    seen = ""
    for word in ("The ", "answer ", "grows ", "word ", "by ", "word."):
        await turn.delta(word)
        seen += word
        await expect(page.locator(".assistant .text")).to_have_text(seen.strip())
        await expect(page.locator("#state")).to_have_text("Answering")
    await turn.complete()
    await answered(page)
    await expect(page.locator(".assistant .text")).to_have_text("The answer grows word by word.")
    await expect(page.locator("#message")).to_be_focused()


async def test_a_second_message_goes_to_the_same_session_and_a_new_chat_to_another(
    page: Page, worker: FakeWorker
) -> None:
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


async def test_what_is_stopped_keeps_its_text_and_can_be_tried_again(page: Page, worker: FakeWorker) -> None:
    turn = await ask(page, worker, "Count to a million")
    await turn.delta("One, two")
    await expect(page.locator(".assistant .text")).to_have_text("One, two")
    await page.locator("#stop").click()
    await eventually(lambda: worker.interrupts == [turn.id], "the turn is interrupted")
    await turn.interrupted()
    await expect(page.locator(".note")).to_have_text("Stopped")
    await expect(page.locator(".assistant .text")).to_have_text("One, two")
    await expect(page.locator("#stop")).to_be_hidden()
    await page.get_by_role("button", name="Try again").click()
    again = await worker.next_turn()
    assert ("Count to a million", True) == (again.message.content, again.id != turn.id)
    await again.start()
    await again.delta("One.")
    await again.complete()
    await answered(page)
    assert ["One, two", "One."] == await page.locator(".assistant .text").all_inner_texts()


async def test_escape_stops_and_up_brings_back_what_was_sent(page: Page, worker: FakeWorker) -> None:
    turn = await ask(page, worker, "Hello there")
    await page.keyboard.press("Escape")
    await eventually(lambda: worker.interrupts == [turn.id], "the turn is interrupted")
    await turn.interrupted()
    await expect(page.locator(".note")).to_have_text("Stopped")
    await page.locator("#message").press("ArrowUp")
    await expect(page.locator("#message")).to_have_value("Hello there")


async def test_shift_enter_begins_a_new_line(page: Page, worker: FakeWorker) -> None:
    await page.locator("#message").fill("one")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("two")
    await page.keyboard.press("Enter")
    assert (await worker.next_turn()).message.content == "one\ntwo"


async def test_a_second_message_may_be_sent_while_the_first_is_answered(
    page: Page, worker: FakeWorker
) -> None:
    first = await ask(page, worker, "one")
    await page.locator("#message").fill("two")
    await page.locator("#send").click()
    await expect(page.locator(".assistant .note").last).to_have_text("Waiting")
    await first.delta("First.")
    await first.complete()
    second = await worker.next_turn()
    await second.start()
    await second.delta("Second.")
    await second.complete()
    await answered(page)
    assert ["First.", "Second."] == await page.locator(".assistant .text").all_inner_texts()


async def test_a_refusal_is_shown_and_the_message_can_be_changed(
    context: BrowserContext, start: Start, worker: FakeWorker
) -> None:
    page = await opened(context, await start(max_message_bytes=100))
    await page.locator("#message").fill("x" * 101)
    await page.keyboard.press("Enter")
    await expect(page.locator("#said")).to_have_text("message has 101 bytes, 100 are allowed")
    await expect(page.locator("#message")).to_have_value("x" * 101)
    await expect(page.locator(".user")).to_have_count(0)
    assert worker.waiting == 0


async def test_a_turn_that_fails_says_why_and_can_be_tried_again(page: Page, worker: FakeWorker) -> None:
    turn = await ask(page, worker)
    await turn.delta("So far")
    await turn.fail("overloaded", "The API is overloaded.")
    await expect(page.locator(".note.bad")).to_have_text("The API is overloaded.")
    await expect(page.locator(".assistant .text")).to_have_text("So far")
    await answered(page)
    await page.get_by_role("button", name="Try again").click()
    assert (await worker.next_turn()).message.content == "Hello"


async def test_tools_and_thoughts_are_shown(page: Page, worker: FakeWorker) -> None:
    turn = await ask(page, worker)
    thought = {"type": "thinking_delta", "thinking": "Let me see."}
    await turn.publish(json.dumps({"type": "content_block_delta", "index": 0, "delta": thought}).encode())
    await expect(page.locator(".thinking summary")).to_have_text("Thoughts")
    await page.locator(".thinking summary").click()
    await expect(page.locator(".thinking p")).to_have_text("Let me see.")
    await tells(turn, "tool_started", id="t1", name="Bash", summary="make test")
    await expect(page.locator(".tool")).to_have_attribute("data-state", "running")
    await tells(turn, "tool_finished", id="t1", is_error=False, summary="ok")
    await expect(page.locator(".tool .state")).to_have_text("done")
    await tells(turn, "tool_started", id="t2", name="Read", summary="file")
    await tells(turn, "tool_finished", id="t2", is_error=True, summary="no such file")
    await expect(page.locator(".tool").last).to_have_attribute("data-state", "failed")
    assert ["Bash", "Read"] == await page.locator(".tool summary span:first-of-type").all_inner_texts()
    await turn.complete()
    await answered(page)


async def test_a_turn_that_begins_again_forgets_its_text(page: Page, worker: FakeWorker) -> None:
    turn = await ask(page, worker)
    await turn.delta("Half an ans")
    await expect(page.locator(".assistant .text")).to_have_text("Half an ans")
    await tells(turn, "turn_reset", attempt=2, reason="worker_lost", message=0)
    await expect(page.locator(".assistant .text")).to_have_count(0)
    await expect(page.locator(".note")).to_have_text("Starting the answer again")
    await turn.publish(b'{"type":"message_start","message":{"id":"msg_2","role":"assistant"}}')
    await turn.delta("The answer.")
    await turn.complete()
    await answered(page)
    await expect(page.locator(".assistant .text")).to_have_text("The answer.")


async def test_answers_and_code_can_be_copied(
    page: Page, context: BrowserContext, worker: FakeWorker
) -> None:
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    turn = await ask(page, worker)
    answer = "Run **this**:\n\n```sh\nmake up\n```"
    await turn.delta(answer)
    await turn.complete()
    await answered(page)
    await page.clock.install()
    await page.clock.pause_at(datetime.now(UTC) + timedelta(seconds=30))  # it says so for a moment only
    for name, copied in (("Copy code", "make up"), ("Copy answer", answer)):
        await page.get_by_role("button", name=name).click()
        await expect(page.get_by_role("button", name="Copied")).to_be_visible()
        assert copied == await page.evaluate("navigator.clipboard.readText()")
        await page.clock.run_for(SHOWN)
        await expect(page.get_by_role("button", name="Copied")).to_have_count(0)


# -- the list of chats


async def test_chats_are_listed_by_their_first_message_and_can_be_gone_back_to(
    page: Page, worker: FakeWorker
) -> None:
    for message in ("First chat", "Second chat"):
        await page.locator("#new-chat").click()
        turn = await ask(page, worker, message)
        await turn.delta(f"Answer to {message}")
        await turn.complete()
        await answered(page)
    await expect(page.locator("#chats .select")).to_have_text(["Second chat", "First chat"])
    await page.locator("#chats .select", has_text="First chat").click()
    await expect(page.locator("h1")).to_have_text("First chat")
    await expect(page.locator(".assistant .text")).to_have_text("Answer to First chat")


async def test_a_deleted_chat_is_gone_here_and_on_the_server(
    page: Page, worker: FakeWorker, serves: Serving
) -> None:
    turn = await ask(page, worker, "To be deleted")
    await turn.complete()
    await answered(page)
    await page.locator("#chats .remove").click()
    await page.get_by_role("button", name="Keep it").click()
    await expect(page.locator("#chats li")).to_have_count(1)
    await page.locator("#chats .remove").click()
    async with page.expect_response(lambda response: response.request.method == "DELETE") as deleted:
        await page.get_by_role("button", name="Delete", exact=True).click()
    assert (await deleted.value).status == 204
    await expect(page.locator("#chats li")).to_have_count(0)
    await expect(page.locator("article")).to_have_count(0)
    assert (await serves.wire.send("GET", f"/v1/sessions/{turn.session_id}")).status == 404


# -- what a model writes

EVIL = """<img src=x onerror=alert(1)><script>alert(2)</script> & <b>bold</b>

[a](javascript:alert(3)) [b](JaVaScRiPt&#58;alert(4)) [d](vbscript:x)
[c](data:text/html,<script>alert(5)</script>)
<javascript:alert(6)> ![e](javascript:alert(7)) [f](//evil.invalid) [g]( javascript:alert(8))

```html"><img src=x onerror=alert(9)>
<script>alert(10)</script>
```

| <svg onload=alert(11)> | `<i>` |
|---|---|
| [h](file:///etc/passwd) | <iframe srcdoc="<script>alert(12)</script>"> |

# <style>*{display:none}</style>

- <details open ontoggle=alert(13)>

[ok](https://example.com/?q="><script>alert(14)</script>) [mail](mailto:a@example.com)
"""


async def test_what_a_model_writes_is_text_and_never_runs(page: Page, worker: FakeWorker) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    turn = await ask(page, worker, EVIL)
    for character in EVIL:
        await turn.delta(character)
    await turn.complete()
    await answered(page)
    await expect(page.locator(".user .text")).to_have_text(EVIL.strip())
    for text in ("<script>alert(2)</script>", "<script>alert(10)</script>", "<svg onload=alert(11)>"):
        await expect(page.locator(".assistant .text")).to_contain_text(text)
    made = "img, script, b, i, iframe, style, details:not(.aside), [onerror], [onload], [style], [srcdoc]"
    assert await page.locator(f"#log :is({made}):not(svg, svg *)").count() == 0
    links = await page.locator("#log a").evaluate_all("all => all.map(a => [a.protocol, a.rel, a.target])")
    assert [
        ["https:", "noopener noreferrer nofollow", "_blank"],
        ["mailto:", "noopener noreferrer nofollow", "_blank"],
    ] == links
    assert dialogs == []


# -- how it is served


async def test_nothing_comes_from_anywhere_else(wire: Wire) -> None:
    for path, _, _ in page_files():
        answer = await wire.request("GET", path)
        body = (await answer.body()).decode()
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert "://" not in body.replace('"http://www.w3.org/2000/svg"', "")


async def test_an_unchanged_file_is_not_sent_again(wire: Wire) -> None:
    first = await wire.request("GET", "/page/page.js")
    again = await wire.request("GET", "/page/page.js", {"if-none-match": first.headers["etag"]})
    assert again.status == 304


async def test_the_page_is_light(wire: Wire) -> None:
    weight = 0
    for path, _, content in page_files():
        answer = await wire.request("GET", path, {"accept-encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        packed = await answer.body()
        weight += len(packed)
        assert len(packed) < len(content)
    assert weight < WEIGHT


async def test_each_module_is_named_in_the_page_and_loaded_once(page: Page) -> None:
    await page.reload()
    await answered(page)
    loaded = await page.evaluate(
        "performance.getEntriesByType('resource').map(e => new URL(e.name).pathname)"
    )
    modules = [path for path in loaded if path.endswith(".js")]
    assert sorted(path for path, _, _ in page_files() if path.endswith(".js")) == sorted(modules)


async def test_with_no_worker_the_page_says_that_it_is_not_connected_yet(
    page: Page, worker: FakeWorker, serves: Serving
) -> None:
    worker.draining = True
    await eventually(lambda: serves.edge.not_ready() is not None, "the edge hears that its worker leaves")
    await page.reload()
    await expect(page.locator("#state")).to_have_text("Connecting")
    worker.draining = False
    await answered(page)
