"""One contract, two CLIs: each test that is ``relied_on`` runs on the real one and on the emulator."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from warmwire.worker.cli.program import cli_command, find_claude

from tests.conftest import require
from tests.standin.messages_api import MessagesApi
from tests.worker.conftest import Loops, Running, Start, starting
from tests.worker.contract.chat import Chat

REAL = pytest.param("claude", marks=pytest.mark.claude)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Loops:  # noqa: ARG001 - the hook's
    """As in the worker; one loop for all of them, for they share a process."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The CLIs that a test runs on, by its mark."""
    if "chat" not in metafunc.fixturenames:
        return
    marks = {mark.name: mark for mark in metafunc.definition.iter_markers()}
    emulated = [pytest.param("emulator")]
    if (left_out := marks.get("left_out")) is not None:
        # Strict: on the day that the emulator does it, this test and the page have to say so.
        fails = pytest.mark.xfail(reason=left_out.args[0], strict=True, raises=(AssertionError, TimeoutError))
        emulated = [pytest.param("emulator", marks=fails)]
    if "real_only" in marks:
        emulated = []
    metafunc.parametrize("cli_name", [REAL, *emulated])


@pytest_asyncio.fixture(loop_scope="session")
async def start() -> AsyncIterator[Start]:
    """Starts CLI processes and sees to it that none outlives its test."""
    async with starting() as start_one:
        yield start_one


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def start_shared() -> AsyncIterator[Start]:
    """The same for the one that tests share."""
    async with starting() as start_one:
        yield start_one


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def served() -> AsyncIterator[MessagesApi]:
    async with MessagesApi() as served:
        yield served


@pytest.fixture
def api(served: MessagesApi) -> MessagesApi:
    """As new, but for what the CLIs of earlier tests have asked."""
    served.requests.clear()
    served.once.clear()
    return served


@pytest.fixture(scope="session")
def warm() -> list[Running]:
    """The CLI that tests share, once there is one."""
    return []


@pytest.fixture
def chat(  # noqa: PLR0917 - pytest passes them by name
    cli_name: str,
    api: MessagesApi,
    start: Start,
    start_shared: Start,
    warm: list[Running],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Chat:
    """Starts the CLI that the test is about."""
    emulated = cli_name == "emulator"
    if not emulated:
        require(find_claude(), "claude CLI (pip install 'warmwire[claude]')")
    return Chat(
        command=cli_command(cli_name),
        environment={
            "PATH": os.environ["PATH"],
            "ANTHROPIC_BASE_URL": api.url,
            "ANTHROPIC_API_KEY": "made up",
        },
        api=api,
        folder=tmp_path,
        start=start,
        emulated=emulated,
        warm=warm,
        start_shared=start_shared,
        shared_folder=tmp_path_factory.getbasetemp() / "shared-cli",
    )
