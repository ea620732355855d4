"""`warmwire up` as a whole: whoever of it is killed, the tools of its CLIs go, too."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import httpx
import pytest

from tests.compose.running import Running, command_of, parent_of, running
from tests.conftest import SECONDS, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

# Two seconds by the promise, on a machine with time to spare; as in tests/worker/machine/test_orphans.py.
LEFT_AFTER = 15.0 * SECONDS
WITH_TOOL = {"WARMWIRE_EMULATOR_FAULT": "child", "WARMWIRE_EMULATOR_RATE": "20"}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "up", environment=WITH_TOOL) as up:
        up.wait_until_ready()
        yield up


@contextmanager
def asking(up: Running) -> Iterator[None]:
    """A turn runs, and its CLI has a tool in a session of its own."""
    body = {"session_id": "s1", "message": "Hello " * 100}

    def ask() -> None:
        try:
            httpx.post(f"{up.url}/v1/chat/stream", json=body, timeout=30 * SECONDS)
        except httpx.HTTPError:
            return  # cut off, as it is to be

    thread = threading.Thread(target=ask)
    thread.start()
    wait_for(lambda: tools(up), "the tool runs")
    yield
    thread.join()


def tools(up: Running) -> list[int]:
    return [pid for pid, command in up.below().items() if command.startswith("sleep 600")]


def left(pids: list[int]) -> list[str]:
    until = monotonic() + LEFT_AFTER
    while any(map(parent_of, pids)) and monotonic() < until:
        sleep(0.01)
    return [command_of(pid) for pid in pids if parent_of(pid)]


def test_with_up_goes_everything(up: Running) -> None:
    with asking(up):
        everything = list(up.below())
        up.signal(signal.SIGKILL)
        up.end()
        assert [] == left(everything)


def test_with_a_worker_go_its_clis_and_their_tools(up: Running) -> None:
    with asking(up):
        worker = up.child("warmwire.worker")
        below = [pid for pid in up.below() if belongs(pid, worker)]
        assert len(below) >= 3, "guardian, CLI, tool"
        os.kill(worker, signal.SIGKILL)
        assert [] == left(below)
        up.signal(signal.SIGKILL)


def belongs(pid: int, worker: int) -> bool:
    above: int | None = pid
    while above and above != worker:
        above = parent_of(above)
    return above == worker and pid != worker
