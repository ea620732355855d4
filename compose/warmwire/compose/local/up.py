"""`warmwire up`: every role on one machine, started in order, kept alive, stopped in order.

What is taken first is released last: data folder, HTTP address, NATS, workers, edges.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from warmwire.broker.nats.bus import without_password
from warmwire.compose.errors import StartError
from warmwire.compose.local.address import Address, held
from warmwire.compose.local.child import Child, say
from warmwire.compose.local.data import locked
from warmwire.compose.local.pool_key import public_half
from warmwire.compose.local.probe import check_exposure, check_nats, check_settings, missing
from warmwire.compose.nats.server import CHOOSE_A_PORT, NatsServer
from warmwire.compose.settings import UpSettings

POLL = 0.03  # seconds between two looks at something that is about to be ready
CANCEL_AGAIN = 1.0  # seconds after which what was cancelled and goes on is cancelled again
# -P: a file in the user's folder must not be taken for one of our modules
ROLES = {role: [sys.executable, "-P", "-m", f"warmwire.{role}"] for role in ("worker", "edge")}
KEY_FILE, PUBLIC_KEY = "WARMWIRE_POOL_KEY_FILE", "WARMWIRE_POOL_PUBLIC_KEY"
METRICS_PORT = "WARMWIRE_METRICS_PORT"
FORCED = 1  # exit code after a second signal: something may not have been finished


async def up(settings: UpSettings, roles: Mapping[str, list[str]] = ROLES) -> int:
    """Run until a signal; the exit code says whether all ended in order. `roles` are the commands to run."""
    _log_to_stderr()
    check_settings(settings.cli)
    with locked(settings.data), held(settings.host, settings.port) as address:
        check_exposure(address, insecure=settings.insecure_no_auth)
        if settings.nats is not None:
            await check_nats(settings.nats)
        return await Supervisor(settings, address, roles).run()


def without_credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """Only workers call the API and open users' tokens; what faces the network has no keys."""
    ours = ("ANTHROPIC_", "CLAUDE_", KEY_FILE)
    return {name: value for name, value in environment.items() if not name.startswith(ours)}


def _log_to_stderr() -> None:
    """What libraries of ours log in this process; it says the rest itself. stdout is for the ready line."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
    )


class Supervisor:
    """Starts and keeps the processes; `run` is its whole life."""

    def __init__(self, settings: UpSettings, address: Address, roles: Mapping[str, list[str]]) -> None:
        self._settings = settings
        self._address = address
        self._roles = roles
        loop = asyncio.get_running_loop()
        self._over: asyncio.Future[int] = loop.create_future()
        self._start_until = loop.time() + settings.start_timeout
        self._forced = False
        self._key_file = Path(os.environ.get(KEY_FILE) or settings.data / "pool.key").absolute()
        self._metrics_from = settings.metrics_port or 0
        self._nats: list[Child] = []
        self._workers: list[Child] = []
        self._edges: list[Child] = []

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        try:
            await self._unless_over(self._start())
            code = await self._over
        finally:
            await self._stop()
        return FORCED if self._forced else code

    async def _start(self) -> None:
        url = self._settings.nats or await self._start_nats()
        say(f"NATS at {without_password(url)}")
        environment, public = self._environment(url), str(public_half(self._key_file))
        for_workers = {**environment, KEY_FILE: str(self._key_file)}
        for_edges = {**without_credentials(environment), PUBLIC_KEY: public}
        self._workers = self._launch("worker", self._settings.workers, for_workers)
        self._edges = self._launch("edge", self._settings.edges, for_edges)
        await self._wait_until_ready()
        for child in self._all:
            child.settled = True
        print(f"ready {self._address.url}", flush=True)

    async def _start_nats(self) -> str:
        server = NatsServer(self._settings.data / "nats")
        port = self._settings.nats_port or CHOOSE_A_PORT
        # After its first start it keeps its port: the other processes know its URL.
        child = Child(
            "nats-server", lambda: server.prepare(port), without_credentials(os.environ), self._end_with
        )
        self._nats = [child]
        child.launch()
        async with self._in_time(lambda: f"nats-server does not listen: {server.cause()}"):
            while child.pid is None or (url := server.url(child.pid)) is None:
                if child.history.deaths:
                    raise StartError(f"nats-server ended at its start: {server.cause()}")
                await asyncio.sleep(POLL)
        port = int(url.rsplit(":", 1)[1])
        return url

    def _launch(self, role: str, count: int, environment: dict[str, str]) -> list[Child]:
        command = self._roles[role]
        names = [f"{role}-{number}" for number in range(1, count + 1)]
        first = self._metrics_from
        self._metrics_from += count
        children = [
            Child(name, lambda: command, environment | self._metrics(first + at), self._end_with)
            for at, name in enumerate(names)
        ]
        for child in children:
            child.launch()
        return children

    def _metrics(self, port: int) -> dict[str, str]:
        """Two processes cannot show their metrics on one port. Empty: none."""
        return {METRICS_PORT: "" if self._settings.metrics_port is None else str(port)}

    def _environment(self, nats: str) -> dict[str, str]:
        """What the roles read their settings from; variables that are not ours to set pass through."""
        return {
            **os.environ,
            "WARMWIRE_NATS": nats,
            "WARMWIRE_CLI": self._settings.cli,
            "WARMWIRE_DATA": str(self._settings.data),
            "WARMWIRE_HOST": self._address.ip,
            "WARMWIRE_ALLOWED_HOSTS": self._hosts(),
            "WARMWIRE_INSECURE_NO_AUTH": str(self._settings.insecure_no_auth),
            "WARMWIRE_PORT": str(self._address.port),
        }

    def _hosts(self) -> str:
        """The edges are told an address; the user's name for it is theirs, too."""
        return f"{os.environ.get('WARMWIRE_ALLOWED_HOSTS', '')},{self._settings.host}"

    async def _wait_until_ready(self) -> None:
        lacking: str | None = "nothing has started"
        async with self._in_time(lambda: str(lacking)):
            while (lacking := await missing(self._address)) is not None:  # noqa: ASYNC110 - other processes
                await asyncio.sleep(POLL)

    @asynccontextmanager
    async def _in_time(self, lacking: Callable[[], str]) -> AsyncIterator[None]:
        """All of the start together; past it what is lacking is said."""
        try:
            async with asyncio.timeout_at(self._start_until):
                yield
        except TimeoutError:
            waited = f"not ready within {self._settings.start_timeout:g} s"
            raise StartError(f"{waited}: {lacking()}") from None

    async def _unless_over(self, work: Coroutine[None, None, None]) -> None:
        """Do the work, but drop it when a signal or a child's end comes first."""
        task = asyncio.create_task(work)
        either: set[asyncio.Future[None] | asyncio.Future[int]] = {task, self._over}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if task.done() and not self._over.done():
            task.result()
        while not task.done():
            task.cancel()  # which is lost when it comes together with a timeout of what is awaited
            await asyncio.wait({task}, timeout=CANCEL_AGAIN)

    async def _stop(self) -> None:
        """Each step waits for the one before it."""
        await self._stop_all(self._edges)  # no new messages come in; running answers reach their viewers
        await self._stop_all(self._workers)  # what still runs is finished or handed back to the queue
        await self._stop_all(self._nats)  # last: the two above needed it to say good-bye

    async def _stop_all(self, children: list[Child]) -> None:
        await asyncio.gather(*(child.stop(self._settings.stop_timeout) for child in children))

    def _on_signal(self) -> None:
        if not self._over.done():
            self._over.set_result(0)
            say("stopping; once more to force")
            return
        self._forced = True
        for child in self._all:
            child.kill()

    def _end_with(self, code: int) -> None:
        if not self._over.done():
            self._over.set_result(code)

    @property
    def _all(self) -> list[Child]:
        return [*self._nats, *self._workers, *self._edges]
