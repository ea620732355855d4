"""Whether everybody can use the chat page: colours, the keyboard, small screens; and who has no token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped] # ships no hints
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.edge.access.tokens import token, with_secret
from tests.edge.browser import answered, ask, opened
from tests.edge.conftest import Serving, Start
from tests.edge.fake_worker import FakeTurn, FakeWorker

pytestmark = pytest.mark.browser

MARKDOWN = """# A heading

Some **bold**, *slanted* and `code`, and [a link](https://example.com).

1. one
   - within
2. two

- [x] done

> quoted

| a | b |
|---|--:|
| 1 | 2 |

```python
print("a line that is longer than a telephone is wide, so that it has to scroll within its block")
```

### Another heading

averylongwordthatdoesnotfitonatelephone_averylongwordthatdoesnotfitonatelephone_averylongwordthatdoesnotfit
"""


async def violations(page: Page) -> list[str]:
    """What axe finds."""
    found = (await Axe().run(page)).response["violations"]
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]


async def tells(turn: FakeTurn, type_: str, **fields: object) -> None:
    """One of our events."""
    await turn.publish(json.dumps({"type": type_, "turn": turn.id, **fields}).encode())


async def all_there_is(page: Page, worker: FakeWorker) -> None:
    """A conversation with everything that the page can show; its last turn runs and asks."""
    turn = await ask(page, worker, "Show me")
    await turn.delta(MARKDOWN)
    await turn.complete()
    await answered(page)
    turn = await ask(page, worker, "Fail")
    await turn.fail("overloaded", "The API is overloaded.")
    await answered(page)
    turn = await ask(page, worker, "Use tools")
    await turn.delta("Let me look.")
    await tells(turn, "tool_started", id="t1", name="Bash", summary="make test")
    await tells(turn, "permission_requested", request="q1", tool="Write", summary="notes.md", within_ms=60000)
    await expect(page.locator(".question")).to_be_visible()


@pytest.mark.parametrize("colours", ["light", "dark"])
async def test_axe_finds_nothing(
    context: BrowserContext, serves: Serving, worker: FakeWorker, colours: str
) -> None:
    page = await opened(context, serves)
    await page.emulate_media(color_scheme="dark" if colours == "dark" else "light", reduced_motion="reduce")
    assert [] == await violations(page)
    await all_there_is(page, worker)
    assert colours == await page.evaluate("document.documentElement.dataset.theme")
    assert [] == await violations(page)
    await page.locator("#chats .remove").click()
    await expect(page.locator("#confirm")).to_be_visible()
    assert [] == await violations(page)


async def test_a_telephone_shows_everything_without_scrolling_sideways(
    page: Page, worker: FakeWorker
) -> None:
    await page.set_viewport_size({"width": 360, "height": 640})
    await expect(page.locator("#sidebar")).to_be_hidden()
    await all_there_is(page, worker)
    elements = "[...document.querySelectorAll('html, body, #chat, #log, article')]"
    assert (
        await page.evaluate(f"{elements}.filter(e => e.scrollWidth > innerWidth).map(e => e.tagName)") == []
    )
    await page.locator("#menu").click()
    await expect(page.locator("#chats .select")).to_be_visible()
    assert [] == await violations(page)
    await page.keyboard.press("Escape")
    await expect(page.locator("#sidebar")).to_be_hidden()
    assert worker.interrupts == []


async def test_under_a_finger_text_stands_where_the_field_does(
    browser: Browser, serves: Serving, worker: FakeWorker
) -> None:
    context = await browser.new_context(
        is_mobile=True, has_touch=True, viewport={"width": 380, "height": 640}
    )
    page = await opened(context, serves)
    turn = await ask(page, worker)
    await turn.delta("Welcome.")
    left = "node => Math.round(node.getBoundingClientRect().left)"
    text, field = page.locator(".assistant .text"), page.locator("#message").locator("..")
    await expect(text).to_have_text("Welcome.")
    assert abs(await text.evaluate(left) - await field.evaluate(left)) <= 1
    await context.close()


async def test_the_keyboard_reaches_everything_and_its_focus_is_seen(page: Page, worker: FakeWorker) -> None:
    await all_there_is(page, worker)
    await page.evaluate("document.activeElement.blur()")
    reached: list[str] = []
    focus = "e => [e.id || e.ariaLabel || e.textContent.slice(0, 20), getComputedStyle(e).outlineStyle, e.id]"
    while "send" not in reached and len(reached) < 60:
        await page.keyboard.press("Tab")
        name, outline, id_ = await page.evaluate(f"({focus})(document.activeElement)")
        reached.append(name)
        assert outline != "none" or id_ in ("", "message"), name
        if id_ == "message":
            break
    expected = ["skip", "menu-close", "new-chat", "Show me", "Delete “Show me”", "theme", "log", "Copy code"]
    assert expected == [name for name in reached if name in expected]
    assert {"Table", "Copy answer", "Try again", "Allow", "Deny", "message"} <= set(reached)


async def test_the_colours_that_were_chosen_stay(page: Page) -> None:
    await page.emulate_media(color_scheme="light")
    await page.get_by_role("button", name="Dark colours").click()
    assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
    await page.reload()
    assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
    await page.get_by_role("button", name="Light colours").click()
    assert await page.evaluate("document.documentElement.dataset.theme") == "light"


async def test_what_the_cli_asks_for_can_be_answered(page: Page, worker: FakeWorker) -> None:
    turn = await ask(page, worker)
    await tells(
        turn, "permission_requested", request="q1", tool="Bash", summary="rm -r build", within_ms=60000
    )
    await expect(page.locator(".question")).to_contain_text("rm -r build")
    async with page.expect_request(lambda request: "/permissions/q1" in request.url) as sent:
        await page.get_by_role("button", name="Allow").click()
    assert {"allow": True, "turn": turn.id} == (await sent.value).post_data_json
    await tells(turn, "permission_resolved", request="q1", outcome="allowed")
    await expect(page.locator(".question .state")).to_have_text("allowed")
    await expect(page.get_by_role("button", name="Allow")).to_be_hidden()


async def test_where_a_token_is_demanded_it_is_asked_for_and_kept_in_this_tab_alone(
    context: BrowserContext, start: Start, worker: FakeWorker, tmp_path: Path
) -> None:
    serves = await start(**with_secret(tmp_path))
    page = await context.new_page()
    await page.goto(f"http://127.0.0.1:{serves.wire.port}/")
    await expect(page.locator("#token")).to_be_visible()
    assert [] == await violations(page)
    await page.locator("#token-value").fill(token(key="another secret, as long as the real one is"))
    await page.keyboard.press("Enter")
    await expect(page.locator("#token .problem")).not_to_be_empty()
    alices = token("alice")
    await page.locator("#token-value").fill(alices)
    await page.keyboard.press("Enter")
    await answered(page)
    turn = await ask(page, worker, "For Alice alone")
    await turn.delta("Welcome.")
    await turn.complete()
    await expect(page.locator(".assistant .text")).to_have_text("Welcome.")
    kept = await page.evaluate("[JSON.stringify(localStorage), sessionStorage['warmwire.token']]")
    assert (alices in kept[0], kept[1]) == (False, alices)
    await shows_bob_nothing(context, page.url)
    await page.get_by_role("button", name="Forget the access token").click()
    await expect(page.locator("#token")).to_be_visible()


async def shows_bob_nothing(context: BrowserContext, address: str) -> None:
    """Another tab of the same browser, with somebody else's token."""
    page = await context.new_page()
    await page.goto(address)
    await page.locator("#token-value").fill(token("bob"))
    await page.keyboard.press("Enter")
    await expect(page.locator("#state")).to_have_text("No access")
    await expect(page.locator("#chats li")).to_have_count(0)
    await expect(page.locator("article")).to_have_count(0)
    await page.close()
