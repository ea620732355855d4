"""Where a chat goes: to an edge over HTTP or to NATS, with the same face."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from warmwire.broker.errors import BadInput, Unavailable, WarmwireError
from warmwire.compose.chat.memory import Memory
from warmwire.compose.errors import ComposeError, Unreachable, UsageError
from warmwire.compose.options import load
from warmwire.producer import EdgeClientSettings, NotAnEdge, Producer, ProducerSettings, Turn

if TYPE_CHECKING:
    from warmwire.producer.edge_client import EdgeClient, EdgeTurn

Client: TypeAlias = "Producer | EdgeClient"
AnyTurn: TypeAlias = "Turn | EdgeTurn"


@dataclass(frozen=True)
class Place:
    """Where to: ``url`` is that of an edge, or of NATS."""

    url: str
    is_nats: bool

    @property
    def name(self) -> str:
        """The URL without what it may hold of a password."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


@dataclass(frozen=True)
class Wishes:
    """What is asked for with each message; None is left to the pool."""

    model: str | None = None
    profile: str | None = None
    system_prompt: str | None = None


@dataclass(frozen=True)
class Given:
    """What the command line says."""

    place: Place
    session: str | None
    wishes: Wishes
    memory: Memory
    as_json: bool
    plain: bool


def place_of(url: str | None, nats: str | None, environment: Mapping[str, str] = os.environ) -> Place:
    """From the flags, then the variables, then this machine. Raises UsageError."""
    if url and nats:
        raise UsageError("--url and --nats: one of the two")
    if nats or (not (url or environment.get("WARMWIRE_URL")) and environment.get("WARMWIRE_NATS")):
        return Place(load(ProducerSettings, {"nats": nats}).nats, is_nats=True)
    return Place(load(EdgeClientSettings, {"url": url}).url, is_nats=False)


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[Client]:
    """A client, once somebody answers there. Raises Unreachable."""
    if place.is_nats:
        with _somebody():
            producer = await Producer.connect(place.url)
        async with producer:
            yield producer
        return
    from warmwire.producer.edge_client import EdgeClient  # noqa: PLC0415 - not needed over NATS

    async with EdgeClient(place.url) as edge:
        with _somebody():
            await edge.reach()
        yield edge


@contextmanager
def _somebody() -> Iterator[None]:
    try:
        yield
    except Unavailable as error:
        raise Unreachable(f"{error}; start `warmwire up`, or say where one runs: --url, --nats") from error


async def send(client: Client, message: str, session: str, wishes: Wishes) -> AnyTurn:
    """Send a message. Raises as ``Producer.send``."""
    return await client.send(
        message,
        session_id=session,
        model=wishes.model,
        profile=wishes.profile,
        system_prompt=wishes.system_prompt,
    )


def complaint(error: WarmwireError) -> ComposeError:
    """What the user reads, and with which exit code."""
    if isinstance(error, (Unavailable, NotAnEdge)):
        return Unreachable(str(error))
    return UsageError(str(error)) if isinstance(error, BadInput) else ComposeError(str(error))
