"""What all tests share: a real nats-server, and the rule for missing system packages."""

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import nats
import pytest
from hypothesis import HealthCheck, settings

from warmwire.compose.nats.server import NatsServer

# One unit for every deadline in the tests: a slow machine sets it higher, no test needs an edit.
SECONDS = float(os.environ.get("WARMWIRE_TEST_SECONDS", "1"))

# An example that is slow says nothing of the code: a loaded machine may stand still in the middle of any.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# There while coverage is counted; a child that gets it counts, too.
COUNTING = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_PROCESS_")}


def forget_settings() -> None:
    """Drop what this terminal exports for warmwire, as tutorials do: tests say themselves what it gets."""
    for name in [*os.environ]:
        if name.startswith(("WARMWIRE_", "OTEL_")) and name != "WARMWIRE_TEST_SECONDS":
            del os.environ[name]


def pytest_configure() -> None:
    """Before any test is imported."""
    forget_settings()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several run at once: each begins with its part of the slow ones, so that none is waited for at the end.

    xdist gives each an equal share of the tests in their order, before it moves any.
    """
    slow = sorted(filter(_slow, items), key=lambda item: item.get_closest_marker("docker") is None)
    rest = [item for item in items if not _slow(item)]
    many = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    left, dealt = len(items), list[pytest.Item]()
    for number in range(many):
        share = left // (many - number)
        left -= share
        first = slow[number::many]
        dealt += first + [rest.pop(0) for _ in range(min(share - len(first), len(rest)))]
    items[:] = dealt + rest


def _slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def require(present: object, what: str) -> None:
    """Skip loudly on a laptop that lacks `what`; fail in CI, where nothing may be missing."""
    if present:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI lacks {what}: .ci/run must install it", pytrace=False)
    pytest.skip(f"this machine has no {what}")


def engine_runs() -> bool:
    """Whether a Docker engine answers."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as sock:  # the client library leaks one when nobody answers
        return sock.connect_ex(host.removeprefix("unix://")) == 0


def wait_for(condition: Callable[[], object], what: str, deadline: float = 10) -> None:
    """Wait, in a thread of its own or before any loop runs, until `condition` holds."""
    end = time.monotonic() + deadline * SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline * SECONDS} s: {what}")
        time.sleep(0.01)


class Signalled(Protocol):
    """A process, of asyncio or not."""

    def send_signal(self, signal: int, /) -> None: ...


def force(process: Signalled) -> None:
    """Have a role's process end at once; the caller waits for it.

    By SIGKILL, but while coverage is counted by two signals, of which the second forces it: what a killed
    process has counted goes with it.
    """
    for number in (signal.SIGTERM, signal.SIGINT) if COUNTING else (signal.SIGKILL,):
        process.send_signal(number)


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """As ``force``, and wait until it is gone."""
    force(process)
    with suppress(subprocess.TimeoutExpired):
        process.wait(10 * SECONDS)
    process.kill()
    process.wait()


@contextmanager
def started_nats_server(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A nats-server of the test's own, for tests that stop or kill it; yields its URL and its process."""
    server = NatsServer(folder)
    argv = server.prepare()
    # Each test's queue reserves 1 GiB that it never uses; a small machine's disk would be spoken for soon.
    config = Path(argv[-1])
    config.write_text(config.read_text().replace("jetstream {", "jetstream {\n  max_file_store: 100TB"))
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: server.url(process.pid) or process.poll() is not None, "nats-server listens")
        url = server.url(process.pid)
        assert url is not None, server.cause()
        yield url, process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real nats-server with JetStream; one for all tests, so each takes a prefix of its own."""
    folder = tmp_path_factory.mktemp("nats")
    with started_nats_server(folder) as (url, _):
        asyncio.run(_keep_one_stream(url))
        yield url


async def _keep_one_stream(url: str) -> None:
    """When its last one goes a server removes the folder of all: perhaps just as the next test makes one."""
    connection = await nats.connect(url)
    await connection.jetstream().add_stream(name="KEPT", subjects=["kept"])
    await connection.close()


@pytest.fixture
def prefix() -> str:
    """Streams and subjects of the test's own, on the server of all."""
    return f"t{secrets.token_hex(6)}"
