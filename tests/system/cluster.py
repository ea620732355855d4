"""Real processes on loopback: nats-servers, workers, edges, and a proxy that cuts the network between them.

Every process is ended by its own id, whatever happens; its output is in a file of the cluster's folder.
"""

import asyncio
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from nats.aio.client import Client
from nats.errors import Error as NatsError

from warmwire.compose.nats.server import NatsServer, program

from tests.conftest import SECONDS, end

MEMBERS = 3
"""Servers of the cluster: the fewest that survive the loss of one."""

MEMBER = """\
server_name: n{number}
host: 127.0.0.1
port: {port}
max_payload: 8388608
log_file: "{folder}/nats.log"
jetstream {{ store_dir: "{folder}/store" }}
cluster {{ name: chaos, host: 127.0.0.1, port: {route}, routes: [{routes}] }}
"""

SHARE = 100
"""Ports of one process of tests."""
_CLAIMS: list[socket.socket] = []

WORKER_ID = re.compile(r"w-[0-9a-f]{16}")


class NotInTime(TimeoutError):
    """What was waited for did not come."""


async def until(condition: Callable[[], object], what: str, within: float = 30) -> None:
    """Wait until a condition holds; `within` is in seconds of a normal machine."""
    end = monotonic() + within * SECONDS
    while not condition():
        if monotonic() > end:
            raise NotInTime(f"not within {within * SECONDS} s: {what}")
        await asyncio.sleep(0.02)  # the poll of this waiter, which has a deadline


async def let_time_pass(seconds: float) -> None:
    """For faults that consist of time: a pause, a cut. Never to wait for something to happen."""
    await asyncio.sleep(seconds)


def free_ports(count: int) -> list[int]:
    """Ports that are free, all different, and given to nobody else.

    Below those that the kernel chooses from: no connection and no server of another test takes one meanwhile.
    """
    tried = itertools.islice(_ports_of_ours(), SHARE - 1)
    return list(itertools.islice(filter(is_free, tried), count))


@cache
def _ports_of_ours() -> Iterator[int]:
    """This process's share, over and over: who has bound the first of a share, for good, has the others."""
    for first in range(20_000, 30_000, SHARE):
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", first))
        except OSError:  # another process has it
            claim.close()
        else:
            _CLAIMS.append(claim)
            return itertools.cycle(range(first + 1, first + SHARE))
    raise NotInTime("no share of ports is free")


def is_free(port: int) -> bool:
    """Whether a server could listen there at this moment."""
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


class Process:
    """One process, its output in a file."""

    def __init__(
        self, name: str, command: Sequence[str], output: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.output = output
        with output.open("ab") as file:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | environment
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    @property
    def said(self) -> str:
        """All of its output so far."""
        return self.output.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once and wait until it is gone; stopped processes too."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """As ``kill``, when the test is over."""
        end(self._process)

    async def ended(self, within: float = 60) -> int:
        """Wait for its end; returns the exit code."""
        await until(lambda: not self.running, f"the end of {self.name}", within)
        return self._process.wait()


class Worker(Process):
    """A worker process. `id` is known once it is ready."""

    def __init__(self, name: str, output: Path, environment: Mapping[str, str]) -> None:
        super().__init__(name, [sys.executable, "-m", "warmwire.worker"], output, environment)
        self.id = ""

    async def ready(self) -> bool:
        """Wait until it pulls messages; false if it ends before."""
        await until(lambda: self._is_ready() or not self.running, f"{self.name} is ready")
        return bool(self.id)

    def _is_ready(self) -> bool:
        ready = next((line for line in self.said.splitlines() if "worker ready" in line), "")
        found = WORKER_ID.search(ready)
        self.id = found.group() if found else ""
        return bool(found)


async def _before_another_try(ended: Process, end: float) -> None:
    """The pause of a supervisor; at the end of its patience, or after a fault of ours, NotInTime."""
    if monotonic() > end or "Traceback" in ended.said:
        raise NotInTime(f"{ended.name} has ended: {ended.said[-2000:]}")
    await asyncio.sleep(1)


class Cluster:
    """Servers, workers and edges of one scenario. Use it with `async with`."""

    def __init__(self, folder: Path, members: int = 1, emulator: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.members = members
        self.servers: list[Process] = []
        self.workers: list[Worker] = []
        self.edges: list[Process] = []
        self.proxies: list[Proxy] = []
        self._emulator = {f"WARMWIRE_EMULATOR_{name}": value for name, value in (emulator or {}).items()}
        self._ports = free_ports(2 * members)
        self._started = 0

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in range(self.members):
            self.servers.append(self._server(number))
        try:
            await self.servers_ready()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for role in (*self.edges, *self.workers):
            role.end()
        for server in self.servers:
            server.kill()
        for proxy in self.proxies:
            await proxy.stop()

    # -- NATS

    @property
    def url(self) -> str:
        """Where NATS is."""
        return ",".join(self._url(number) for number in range(self.members))

    async def servers_ready(self) -> None:
        """Wait until JetStream answers."""
        end = monotonic() + 30 * SECONDS
        while not await self._jetstream_answers():
            if monotonic() > end:
                raise NotInTime(f"JetStream does not answer: {self.servers[0].said[-1000:]}")
            await asyncio.sleep(0.1)  # the poll of this waiter, which has a deadline

    def restart_server(self, number: int = 0) -> None:
        """Start a server that has ended, on its port and with its store."""
        self.servers[number] = self._server(number)

    async def leader_of(self, stream: str) -> int:
        """Which server leads a stream."""
        client = await self._connected()
        try:
            info = await client.jetstream().stream_info(stream)
            return int(str(info.cluster.leader if info.cluster else "n0").removeprefix("n"))
        finally:
            await client.close()

    def _url(self, number: int) -> str:
        return f"nats://127.0.0.1:{self._ports[number]}"

    def _server(self, number: int) -> Process:
        folder = self.folder / f"nats-{number}"
        if self.members == 1:
            command = NatsServer(folder).prepare(self._ports[0])
        else:
            command = [program(), "--config", str(self._member(number, folder))]
        return Process(f"nats-{number}", command, self.folder / f"nats-{number}.out", {})

    def _member(self, number: int, folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        route = self._ports[self.members :]
        routes = ", ".join(f"nats://127.0.0.1:{port}" for port in route)
        config = folder / "nats.conf"
        config.write_text(
            MEMBER.format(
                number=number, port=self._ports[number], route=route[number], routes=routes, folder=folder
            )
        )
        return config

    async def _connected(self) -> Client:
        client = Client()
        await client.connect(
            [self._url(number) for number, server in enumerate(self.servers) if server.running],
            allow_reconnect=False,
            connect_timeout=1,
            error_cb=_unheard,
        )
        return client

    async def _jetstream_answers(self) -> bool:
        with suppress(NatsError, OSError, TimeoutError):
            client = await self._connected()
            try:
                info = await client.request("$JS.API.INFO", b"", timeout=1)
                return b'"error"' not in info.data
            finally:
                await client.close()
        return False

    # -- roles

    async def start_workers(
        self, count: int, nats: str | None = None, environment: Mapping[str, str] | None = None
    ) -> list[Worker]:
        """Start workers and wait until all of them are ready; `environment` is added to theirs."""
        starts = (self._start_worker(nats or self.url, environment or {}) for _ in range(count))
        return list(await asyncio.gather(*starts))

    async def _start_worker(self, nats: str, environment: Mapping[str, str]) -> Worker:
        """As a supervisor does: one that ends because NATS has no leader yet is started again."""
        end = monotonic() + 30 * SECONDS
        while True:
            worker = self._worker(nats, environment)
            self.workers.append(worker)
            if await worker.ready():
                return worker
            await _before_another_try(worker, end)

    def _worker(self, nats: str, environment: Mapping[str, str]) -> Worker:
        self._started += 1
        name = f"worker-{self._started}"
        return Worker(name, self.folder / f"{name}.out", {**self._environment(nats), **environment})

    async def start_edges(self, count: int) -> list[str]:
        """Start edges; returns their URLs once they accept connections."""
        ports = free_ports(count)
        begun = [(port, self._edge(port)) for port in ports]
        self.edges += [edge for _, edge in begun]
        await asyncio.gather(*(self._edge_ready(port, edge) for port, edge in begun))
        return [f"http://127.0.0.1:{port}" for port in ports]

    async def _edge_ready(self, port: int, edge: Process) -> None:
        """As with workers."""
        end = monotonic() + 30 * SECONDS
        while True:
            await until(lambda edge=edge: listens(port) or not edge.running, f"the edge on port {port}")  # type: ignore[misc]
            if edge.running:
                return
            await _before_another_try(edge, end)
            again = self._edge(port)
            self.edges[self.edges.index(edge)] = edge = again

    def _edge(self, port: int) -> Process:
        name = f"edge-{port}"
        environment = self._environment(self.url) | {"WARMWIRE_PORT": str(port), "WARMWIRE_HOST": "127.0.0.1"}
        command = [sys.executable, "-m", "warmwire.edge"]
        return Process(name, command, self.folder / f"{name}.out", environment)

    def _environment(self, nats: str) -> dict[str, str]:
        return {
            **self._emulator,
            "WARMWIRE_NATS": nats,
            "WARMWIRE_REPLICAS": str(self.members),
            "WARMWIRE_CLI": "emulator",
            "WARMWIRE_DATA": str(self.folder / "data"),
        }

    async def proxy(self) -> "Proxy":
        """A way to NATS that can be cut."""
        proxy = Proxy(self._ports[0])
        await proxy.start()
        self.proxies.append(proxy)
        return proxy


async def _unheard(_: Exception) -> None:
    """A probe of a server that is not there yet fails; whoever waits for it says so in the end."""


def listens(port: int) -> bool:
    """Whether something accepts connections on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Proxy:
    """Passes bytes on to a port until it is cut.

    While it is cut nothing passes: bytes vanish, new connections are accepted and hear nothing. When it is
    mended the old connections are reset, as by a firewall that has forgotten them.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._passing = asyncio.Event()
        self._passing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Nothing passes any more."""
        self._passing.clear()

    def mend(self) -> None:
        """Reset what there is; new connections pass again."""
        for writer in self._writers:
            writer.transport.abort()
        self._passing.set()

    async def stop(self) -> None:
        """End all connections."""
        self._server.close()
        self.mend()  # no cancelling: asyncio's streams report a cancelled connection as an error
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            await self._passing.wait()
            await self._connect(reader, writer)
        except OSError as error:
            print(f"proxy: a connection ended: {error}", file=sys.stderr)
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.add(far_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, far_writer))
                both.create_task(self._pass(far_reader, writer))
        except* OSError as group:
            print(f"proxy: a connection ended: {group.exceptions[0]}", file=sys.stderr)
        finally:
            self._writers.discard(far_writer)
            far_writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self._passing.is_set():
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
