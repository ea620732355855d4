"""The chat page when lines break, pages are loaded again, servers die, and several tabs are open."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.client import eventually
from tests.conftest import end
from tests.edge.browser import answered, ask, opened
from tests.edge.conftest import Serving
from tests.edge.fake_worker import FakeWorker
from tests.system.cluster import free_ports, listens

pytestmark = pytest.mark.browser

STREAMS = 4
"""As in hub.js: streams that all tabs together hold."""
SLOW = {"offline": False, "latency": 300, "downloadThroughput": 6_000, "uploadThroughput": 6_000}
"""A network of the nineties: ms, and bytes a second."""
REMEMBER = """() => {
  const state = document.querySelector("#state");
  const remember = () => { state.dataset.was = `${state.dataset.was} ${state.textContent}`; };
  new MutationObserver(remember).observe(state, {childList: true, characterData: true, subtree: true});
}"""
"""Keeps what the page has said of its connection, which it may have said for a moment only."""


# -- one tab


async def test_a_reload_in_the_middle_goes_on_with_the_answer(page: Page, worker: FakeWorker) -> None:
    first = await ask(page, worker, "one")
    await first.delta("The first answer.")
    await first.complete()
    await answered(page)
    turn = await ask(page, worker, "two")
    await turn.delta("It goes ")
    await expect(page.locator(".assistant .text").last).to_have_text("It goes")
    await page.reload()
    await expect(page.locator(".assistant .text").last).to_have_text("It goes")
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
    await expect(page.locator(".assistant .text")).to_have_text("one")
    await page.evaluate(REMEMBER)
    serves.edge.end_streams()
    await expect(page.locator("#state")).to_have_attribute("data-was", re.compile("Reconnecting"))
    await turn.delta("two ")
    await expect(page.locator(".assistant .text")).to_have_text("one two")
    await turn.delta("three")
    await turn.complete()
    await answered(page)
    await expect(page.locator(".assistant .text")).to_have_text("one two three")
    assert worker.waiting == 0


async def test_a_gap_is_filled_by_the_snapshot(page: Page, worker: FakeWorker) -> None:
    turn = await ask(page, worker)
    await turn.delta("one ")
    await expect(page.locator(".assistant .text")).to_have_text("one")
    worker.forgetful = True
    await turn.lose("two ")
    await turn.delta("three ")
    await expect(page.locator(".assistant .text")).to_have_text("one two three")
    await turn.delta("four")
    await turn.complete()
    await answered(page)
    await expect(page.locator(".assistant .text")).to_have_text("one two three four")


async def test_offline_is_said_and_the_answer_goes_on_afterwards(
    page: Page, context: BrowserContext, worker: FakeWorker, serves: Serving
) -> None:
    turn = await ask(page, worker)
    await turn.delta("one ")
    await expect(page.locator(".assistant .text")).to_have_text("one")
    await context.set_offline(True)
    await expect(page.locator("#state")).to_have_text("Offline")
    serves.edge.end_streams()
    await expect(page.locator("#banner")).to_contain_text("You are offline")
    await turn.delta("two ")
    await page.locator("#message").fill("And then?")
    await page.locator("#message").press("Enter")
    await expect(page.locator(".note").last).to_have_text("Sending")
    await context.set_offline(False)
    await expect(page.locator(".assistant .text")).to_have_text("one two")
    await turn.complete()
    await expect(page.locator("#banner")).to_be_hidden()
    second = await worker.next_turn()
    assert (second.message.content, worker.waiting) == ("And then?", 0)
    await second.start()
    await second.delta("Then that.")
    await second.complete()
    await answered(page)
    assert ["one two", "Then that."] == await page.locator(".assistant .text").all_inner_texts()


async def test_what_is_stopped_before_it_could_be_sent_is_not_sent(
    page: Page, context: BrowserContext, worker: FakeWorker
) -> None:
    await context.set_offline(True)
    await page.locator("#message").fill("Never mind")
    await page.locator("#message").press("Enter")
    await expect(page.locator(".note")).to_have_text("Sending")
    await page.locator("#stop").click()
    await expect(page.locator(".note")).to_have_text("It was not sent.")
    await context.set_offline(False)
    turn = await ask(page, worker, "This instead")
    assert (turn.message.content, worker.waiting) == ("This instead", 0)


async def test_a_slow_network_shows_the_same(page: Page, context: BrowserContext, worker: FakeWorker) -> None:
    network = await context.new_cdp_session(page)
    await network.send("Network.enable")
    await network.send("Network.emulateNetworkConditions", SLOW)
    turn = await ask(page, worker)
    words = [f"word{number} " for number in range(200)]
    for word in words:
        await turn.delta(word)
    await turn.complete()
    await answered(page)
    await expect(page.locator(".assistant .text")).to_have_text("".join(words).strip())


@contextmanager
def edge_process(nats: str, prefix: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """An edge in a process of its own, that can be killed."""
    given = {"WARMWIRE_NATS": nats, "WARMWIRE_PREFIX": prefix, "WARMWIRE_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "warmwire.edge"], env={**os.environ, **given})
    try:
        yield process
    finally:
        end(process)


async def test_a_server_that_is_killed_and_comes_back_goes_on_with_the_answer(
    context: BrowserContext, worker: FakeWorker, nats_server: str
) -> None:
    page = await context.new_page()
    prefix, [port] = worker.subjects.prefix, free_ports(1)
    with edge_process(nats_server, prefix, port) as edge:
        await eventually(lambda: listens(port), "the edge listens", 60)
        await page.goto(f"http://127.0.0.1:{port}/")
        await answered(page)
        turn = await ask(page, worker)
        await turn.delta("Before ")
        await expect(page.locator(".assistant .text")).to_have_text("Before")
        edge.send_signal(signal.SIGKILL)
        await expect(page.locator("#state")).to_have_text("Reconnecting")
        await turn.delta("and ")
        await expect(page.locator("#banner")).to_contain_text("nothing is lost")
    with edge_process(nats_server, prefix, port):
        await expect(page.locator(".assistant .text")).to_have_text("Before and")
        await turn.delta("after.")
        await turn.complete()
        await answered(page)
    await expect(page.locator(".assistant .text")).to_have_text("Before and after.")


# -- several tabs, and other devices


def fragment_of(page: Page) -> str:
    """What in its address names its chat."""
    return f"#{page.url.partition('#')[2]}"


async def test_two_tabs_show_the_same_live_over_one_stream(
    page: Page, context: BrowserContext, worker: FakeWorker, serves: Serving
) -> None:
    other = await opened(context, serves, fragment_of(page))
    turn = await ask(page, worker)
    await turn.delta("It ")
    for tab in (page, other):
        await expect(tab.locator(".user .text")).to_have_text("Hello")
        await expect(tab.locator(".assistant .text")).to_have_text("It")
    await eventually(lambda: serves.edge.viewers == 1, "there are no more streams than needed")
    await turn.delta("grows.")
    await turn.complete()
    for tab in (page, other):
        await answered(tab)
        await expect(tab.locator(".assistant .text")).to_have_text("It grows.")
    back = await ask(other, worker, "And back?")
    await expect(page.locator(".user .text").last).to_have_text("And back?")
    await back.complete()


async def test_another_tab_takes_over_when_the_one_with_the_stream_closes(
    page: Page, context: BrowserContext, worker: FakeWorker, serves: Serving
) -> None:
    others = [await opened(context, serves, fragment_of(page)) for _ in range(2)]
    turn = await ask(page, worker)
    await turn.delta("one ")
    for tab in others:
        await expect(tab.locator(".assistant .text")).to_have_text("one")
    await page.close()
    await turn.delta("two ")
    for tab in others:
        await expect(tab.locator(".assistant .text")).to_have_text("one two")
    await eventually(lambda: serves.edge.viewers == 1, "there are no more streams than needed")
    await turn.delta("three")
    await turn.complete()
    for tab in others:
        await answered(tab)
        await expect(tab.locator(".assistant .text")).to_have_text("one two three")
        await expect(tab.locator(".turn")).to_have_count(1)


async def test_more_tabs_than_a_browser_has_connections_all_load_and_answer(
    page: Page, context: BrowserContext, worker: FakeWorker, serves: Serving
) -> None:
    tabs = [page, *[await opened(context, serves, fragment_of(page)) for _ in range(6)]]
    turn = await ask(tabs[-1], worker)
    await turn.delta("For all.")
    await turn.complete()
    for tab in tabs:
        await expect(tab.locator(".assistant .text")).to_have_text("For all.")
    await eventually(lambda: serves.edge.viewers == 1, "there are no more streams than needed")


async def test_more_chats_than_streams_take_turns(
    page: Page, context: BrowserContext, worker: FakeWorker, serves: Serving
) -> None:
    tabs = [page, *[await opened(context, serves, f"#chat-{number}") for number in range(STREAMS)]]
    await expect(page.locator("#state")).to_have_text("Paused")
    await eventually(lambda: serves.edge.viewers == STREAMS, "there are no more streams than needed")
    for number, tab in enumerate(tabs[:2]):
        turn = await ask(tab, worker, f"In tab {number}")
        await turn.delta(f"Answer {number}")
        await turn.complete()
        await answered(tab)
        await expect(tab.locator(".assistant .text")).to_have_text(f"Answer {number}")
    await eventually(lambda: serves.edge.viewers == STREAMS, "there are no more streams than needed")


async def test_another_device_shows_the_whole_conversation_and_what_is_asked_elsewhere(
    page: Page, browser: Browser, worker: FakeWorker
) -> None:
    first = await ask(page, worker, "one")
    await first.delta("First.")
    await first.complete()
    await answered(page)
    second = await ask(page, worker, "two")
    await second.delta("Sec")
    device = await browser.new_context()
    try:
        other = await device.new_page()
        await other.goto(page.url)
        await expect(other.locator("article .text")).to_have_text(["one", "First.", "two", "Sec"])
        await expect(other.locator("h1")).to_have_text("one")
        await second.delta("ond.")
        await second.complete()
        third = await ask(page, worker, "three")
        await third.delta("Third.")
        texts = ["one", "First.", "two", "Second.", "three", "Third."]
        await expect(other.locator("article .text")).to_have_text(texts)
        await third.complete()
        await answered(other)
    finally:
        await device.close()
