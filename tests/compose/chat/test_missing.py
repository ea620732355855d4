"""`warmwire chat` where a package that it needs is not installed, as in the images: one line says which."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.compose.terminal import in_terminal
from tests.edge.fake_worker import FakeWorker, begun
from tests.edge.wire import Wire


def without(package: str, *arguments: str) -> list[str]:
    """The command line of `warmwire`, in a Python that does not have the package."""
    script = f"import sys; sys.modules[{package!r}] = None; from warmwire.compose.cli import main; main()"
    return [sys.executable, "-c", script, *arguments]


@pytest.mark.parametrize(
    ("package", "arguments"),
    [("prompt_toolkit", []), ("httpx2", []), ("httpx2", ["--print", "Hello"]), ("rich", [])],
)
async def test_what_is_missing_is_said_in_one_line(
    wire: Wire, tmp_path: Path, package: str, arguments: list[str]
) -> None:
    url = f"http://127.0.0.1:{wire.port}"
    command = without(package, "chat", "--url", url, *arguments)
    async with in_terminal(command, {}, tmp_path, columns=200) as terminal:
        assert 1 == await terminal.end()
        await terminal.until(
            f"warmwire: Python package {package}, which `warmwire chat` needs here, not found: "
        )
        assert 'pip install "warmwire[compose]"' in terminal.text
        assert 1 == len(terminal.text.splitlines())


async def test_over_nats_a_script_needs_nothing_more(
    worker: FakeWorker, nats_server: str, tmp_path: Path
) -> None:
    for package in ("prompt_toolkit", "httpx2"):
        command = without(package, "chat", "--nats", nats_server, "--print", "Hello")
        prefix = {"WARMWIRE_PREFIX": worker.subjects.prefix}
        async with in_terminal(command, prefix, tmp_path) as terminal:
            await (await begun(worker, "Hi.")).complete()
            assert 0 == await terminal.end()
            await terminal.until("Hi.")
