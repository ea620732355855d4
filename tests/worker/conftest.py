"""What the worker's tests share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from warmwire.worker.app import Worker
from warmwire.worker.cli.claude import parse
from warmwire.worker.cli.launch import Launch
from warmwire.worker.cli.program import find_claude
from warmwire.worker.cli.said import Line
from warmwire.worker.machine import tree
from warmwire.worker.machine.process import CliProcess, Exit, OnExit, OnLines
from warmwire.worker.settings import WorkerSettings

from tests.client import Client, on_own_streams
from tests.conftest import SECONDS, require
from tests.system.product import product

__all__ = ["product"]  # a fixture

Said = TypeVar("Said")
Loops = dict[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Loops:
    """Processes behave a little differently on each loop; the worker runs on uvloop, a debugger may not."""
    on_uvloop: Loops = {"uvloop": uvloop.new_event_loop}
    on_asyncio: Loops = {"asyncio": asyncio.new_event_loop}
    by_module = {
        "test_process.py": {**on_asyncio, **on_uvloop},
        "test_pipes.py": {**on_asyncio, **on_uvloop},
    }
    return by_module.get(item.path.name, on_asyncio)


class Running:
    """A CLI process and all that it has said, for tests to wait on."""

    process: CliProcess

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self._heard: asyncio.Queue[Line | Exit] = asyncio.Queue()

    def on_lines(self, lines: list[bytes]) -> None:
        self.raw += lines
        for line in lines:
            self._heard.put_nowait(parse(line))

    def on_exit(self, ended: Exit) -> None:
        self._heard.put_nowait(ended)

    async def until(
        self, kind: type[Said], where: Callable[[Said], bool] = lambda _: True
    ) -> tuple[list[Line | Exit], Said]:
        """All that it says up to the first line of this kind, and that line."""
        heard: list[Line | Exit] = []
        async with asyncio.timeout(20 * SECONDS):
            while True:
                heard.append(await self._heard.get())
                if isinstance(heard[-1], kind) and where(heard[-1]):
                    return heard, heard[-1]
                assert not isinstance(heard[-1], Exit), f"it has ended, and has only said {heard}"


Start = Callable[[Launch], Awaitable[Running]]


@asynccontextmanager
async def starting(
    start: Callable[[Launch, OnLines, OnExit], Awaitable[CliProcess]] = CliProcess.start,
) -> AsyncIterator[Start]:
    """Starts CLI processes and sees to it that none outlives it."""
    started: list[Running] = []

    async def start_one(launched: Launch) -> Running:
        running = Running()
        running.process = await start(launched, running.on_lines, running.on_exit)
        started.append(running)
        return running

    yield start_one
    for running in started:
        running.process.kill()
        await running.process.wait()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts CLI processes for one test."""
    async with starting() as start_one:
        yield start_one


@pytest.fixture(scope="session")
def claude_cli() -> Path:
    """The real CLI; without it the tests that need it are skipped, and fail in CI."""
    found = find_claude()
    require(found, "claude CLI (pip install 'warmwire[claude]')")
    assert found is not None
    return found


# --- workers in this process ------------------------------------------------------------------------------

StartWorker = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def client(nats_server: str, prefix: str) -> AsyncIterator[Client]:
    async with on_own_streams(nats_server, prefix) as client:
        yield client


@pytest.fixture
async def start_worker(
    nats_server: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[StartWorker]:
    """Starts workers with quick emulators; each is stopped at the end, unless the test has done so."""
    monkeypatch.setenv("WARMWIRE_EMULATOR_RATE", "500")
    monkeypatch.setenv("WARMWIRE_EMULATOR_TTFT_MS", "1")
    usual = {"nats": nats_server, "prefix": prefix, "data": tmp_path, "drain_timeout": 5.0, "spares": 0}
    async with AsyncExitStack() as stack:

        async def start_one(**settings: Any) -> Worker:
            return await stack.enter_async_context(running(WorkerSettings(**{**usual, **settings})))

        yield start_one


@asynccontextmanager
async def running(settings: WorkerSettings) -> AsyncIterator[Worker]:
    worker = Worker(settings)
    await worker.start()
    try:
        yield worker
    finally:
        if not worker.stopped:
            await worker.stop()


def emulator_pids(folder: Path) -> list[int]:
    """The CLI processes whose home is under a folder."""
    return sorted(tree.working_in(folder))
