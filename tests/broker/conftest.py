"""A broker of each test's own: a prefix on the shared server, or a server that may be stopped."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time_ns
from uuid import uuid4

import pytest

from warmwire.broker.nats import streams
from warmwire.broker.nats.bus import Bus, connect
from warmwire.broker.nats.store import Store
from warmwire.broker.reading.feed import Feeds
from warmwire.broker.wire.names import SessionKey, Subjects
from warmwire.compose.nats.server import NatsServer, program
from warmwire.worker.machine import tree

from tests.broker.desk import Desk
from tests.broker.made import delta, started
from tests.broker.owner import Owner
from tests.conftest import started_nats_server, wait_for
from tests.system.cluster import free_ports


@dataclass(frozen=True)
class Broker:
    """A connection, and subjects and streams that no other test uses."""

    url: str
    bus: Bus
    subjects: Subjects
    store: Store
    key: SessionKey

    async def make_streams(self) -> None:
        """As each role does when it starts."""
        await streams.ensure(self.bus, self.subjects, 1, time_ns() // 1_000_000)


Connect = Callable[[str], Awaitable[Broker]]


@pytest.fixture
async def connect_to() -> AsyncIterator[Connect]:
    """Connects to a server; the connection is closed at the end, whatever becomes of the test."""
    async with AsyncExitStack() as stack:

        async def connected(url: str) -> Broker:
            bus = await connect(url, "test")
            stack.push_async_callback(bus.close)
            subjects = Subjects(f"t{uuid4().hex[:12]}")
            return Broker(url, bus, subjects, Store(bus, subjects), SessionKey("acme", "s"))

        yield connected


@pytest.fixture
async def bare(nats_server: str, connect_to: Connect) -> AsyncIterator[Broker]:
    """A broker without streams."""
    broker = await connect_to(nats_server)
    yield broker
    for stream in await broker.bus.js.streams_info():  # each takes its whole size of the server's room
        if str(stream.config.name).startswith(broker.subjects.prefix.upper()):
            await broker.bus.js.delete_stream(str(stream.config.name))


@pytest.fixture
async def broker(bare: Broker) -> Broker:
    """A broker with its streams."""
    await bare.make_streams()
    return bare


@pytest.fixture
async def feeds(broker: Broker) -> AsyncIterator[Feeds]:
    feeds = Feeds(broker.bus, broker.store, broker.subjects)
    feeds.start()
    yield feeds
    await feeds.stop()


@pytest.fixture
async def owner(broker: Broker) -> Owner:
    """It has claimed the session and answers."""
    owner = Owner(broker)
    await owner.claim()
    await owner.listen()
    return owner


class Server:
    """A nats-server that a test may stop, pause and start again at the same port."""

    def __init__(self, folder: Path) -> None:
        self._server = NatsServer(folder)
        (self._port,) = free_ports(1)
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        """Begin to listen."""
        self.process = process = subprocess.Popen(self._server.prepare(self._port), stdin=subprocess.DEVNULL)
        wait_for(lambda: self._server.url(process.pid) or process.poll() is not None, "nats-server listens")
        self.url = self._server.url(process.pid) or ""
        assert self.url, self._server.cause()

    def pause(self) -> None:
        """Stand still until ``resume``."""
        assert self.process is not None
        pid = self.process.pid
        self.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: (found := tree.seen(pid)) and found.state == "T", "nats-server stands still")

    def resume(self) -> None:
        """Go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End at once; what is stored stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own, running."""
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


@contextmanager
def configured(folder: Path, config: str) -> Iterator[str]:
    """URL of a server that is configured otherwise than ours."""
    (folder / "ports").mkdir()
    file = folder / "other.conf"
    file.write_text(f'host: 127.0.0.1\nport: -1\nports_file_dir: "{folder / "ports"}"\n{config}')
    process = subprocess.Popen(
        [program(), "--config", file], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: NatsServer(folder).url(process.pid), "nats-server listens")
        yield NatsServer(folder).url(process.pid) or ""
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def without_jetstream(tmp_path: Path) -> Iterator[str]:
    """URL of a server that stores nothing."""
    with configured(tmp_path, "") as url:
        yield url


@pytest.fixture
def without_room(tmp_path: Path) -> Iterator[str]:
    """URL of a server that stores very little."""
    with configured(tmp_path, f'jetstream {{ store_dir: "{tmp_path}", max_file_store: 1MB }}') as url:
        yield url


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[str]:
    """URL of a server that fails to store once: what is in its folder's place it then removes by itself."""
    with started_nats_server(tmp_path) as (url, _):
        (tmp_path / "store" / "jetstream" / "$G").write_text("no folder")
        yield url


@pytest.fixture
def desk() -> Desk:
    """A reader that has just subscribed."""
    desk = Desk()
    desk.start()
    return desk


@pytest.fixture
def live(desk: Desk) -> Desk:
    """A reader that follows turn t1 of epoch 1 and has seen events 1 to 5."""
    desk.vacant(0)
    for number in range(1, 6):
        desk.event(delta(1, number) if number > 1 else started(1, 1))
    return desk
