"""Headless Chromium for the tests of the page: one process for all, a profile of its own for each test."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.conftest import SECONDS, require, wait_for
from tests.edge.fake_worker import FakeTurn, FakeWorker

if TYPE_CHECKING:
    from tests.edge.conftest import Serving, Start  # it imports the fixtures from here

DEAF = str(Path(__file__).parents[1] / "deaf.py")
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
    "--remote-debugging-port=0",
]
PATIENCE = 15_000 * SECONDS
"""Milliseconds: a browser's first moments on a busy machine are slow."""

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a browser."""
    require(CHROMIUM, "chromium")
    folder = tmp_path_factory.mktemp("chromium")
    argv = [sys.executable, DEAF, str(CHROMIUM), *ARGUMENTS, f"--user-data-dir={folder}"]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = folder / "DevToolsActivePort"
        wait_for(lambda: _lines(port) or process.poll() is not None, "Chromium listens", 30)
        yield f"http://127.0.0.1:{_lines(port)[0]}"
    finally:
        process.kill()
        process.wait()


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """The browser."""
    async with async_playwright() as playwright:
        yield await playwright.chromium.connect_over_cdp(chromium)


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A profile of the test's own, with any number of tabs. What a page complains of fails the test."""
    complaints: list[str] = []

    def listen(page: Page) -> None:
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if _is_bad(said.text) else None)

    context = await browser.new_context()
    context.set_default_timeout(PATIENCE)
    context.on("page", listen)
    yield context
    await context.close()
    assert complaints == []


def _is_bad(said: str) -> bool:
    return "Content Security" in said or "Uncaught" in said


@pytest.fixture
async def serves(start: Start) -> Serving:
    """An edge with the page."""
    return await start(keepalive=0.2)


@pytest.fixture
async def page(context: BrowserContext, serves: Serving) -> Page:
    """The page, ready to be written in."""
    return await opened(context, serves)


async def opened(context: BrowserContext, serves: Serving, fragment: str = "") -> Page:
    """One more tab with the page, ready to be written in."""
    page = await context.new_page()
    await page.goto(f"http://127.0.0.1:{serves.wire.port}/{fragment}")
    await expect(page.locator("#state")).to_have_text("Ready")
    return page


async def ask(page: Page, worker: FakeWorker, message: str = "Hello") -> FakeTurn:
    """Type a message, press Enter; returns the turn, started."""
    await page.locator("#message").fill(message)
    await page.locator("#message").press("Enter")
    async with asyncio.timeout(PATIENCE / 1000):
        turn = await worker.next_turn()
    await turn.start()
    return turn


async def answered(page: Page) -> None:
    """Wait until the answer is whole."""
    await expect(page.locator("#state")).to_have_text("Ready")
