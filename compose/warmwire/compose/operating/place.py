"""Where NATS is, for the commands of operators; and one connection to it."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import click

from warmwire.broker.errors import WarmwireError
from warmwire.broker.liveness import HEARTBEAT_EVERY, Liveness
from warmwire.broker.nats import heartbeat
from warmwire.broker.nats.bus import Bus, connect
from warmwire.broker.nats.store import Store
from warmwire.broker.settings import BrokerSettings
from warmwire.broker.wire.messages import Heartbeat
from warmwire.broker.wire.names import Subjects
from warmwire.compose.errors import ComposeError
from warmwire.compose.nats.server import NatsServer
from warmwire.compose.options import load
from warmwire.compose.settings import state_folder

LISTEN = 2.5 * HEARTBEAT_EVERY
"""Seconds in which every worker that lives is heard."""

nats_option = click.option(
    "--nats",
    metavar="URL",
    help="URL of NATS  [WARMWIRE_NATS; default: that of the `warmwire up` on this machine, else nats://127.0.0.1:4222]",
)


class Place:
    """A connection, what is stored behind it, and what is heard over it."""

    def __init__(self, bus: Bus, subjects: Subjects, liveness: Liveness) -> None:
        self.bus = bus
        self.subjects = subjects
        self.store = Store(bus, subjects)
        self.liveness = liveness


def nats_url(given: str | None) -> str:
    """The flag, the variable, or the server of a `warmwire up` that runs here."""
    return given or os.environ.get("WARMWIRE_NATS") or _local() or load(BrokerSettings, {}).nats


def _local() -> str | None:
    folder = Path(os.environ.get("WARMWIRE_DATA") or state_folder()) / "nats"
    for file in sorted((folder / "ports").glob("nats-server_*.ports")):
        pid = int(file.stem.rpartition("_")[2])
        if _runs(pid):
            return NatsServer(folder).url(pid)
    return None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


@asynccontextmanager
async def connected(given: str | None, prefix: str | None = None) -> AsyncIterator[Place]:
    """Connected, and listening. Raises ComposeError."""
    url = nats_url(given)
    settings = load(BrokerSettings, {"nats": url, "prefix": prefix})
    subjects = Subjects(settings.prefix)
    bus = await connect(url, "operator", settings.login("operator"))
    try:
        yield Place(bus, subjects, await heartbeat.listen(bus, subjects))
    finally:
        await bus.close()


async def heard(place: Place) -> tuple[Heartbeat, ...]:
    """Every worker that lives: who says nothing for so long does not."""
    await asyncio.sleep(LISTEN)
    return place.liveness.alive(monotonic())


def run(work: Callable[[], Awaitable[None]]) -> None:
    """The command's work; what goes wrong on purpose is one line."""

    async def guarded() -> None:
        try:
            await work()
        except WarmwireError as error:
            raise ComposeError(str(error)) from error

    asyncio.run(guarded())
