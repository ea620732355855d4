"""The connection to NATS: publish, request, subscribe. Foreign exceptions end here and in ``store``.

nats-py is used with callbacks only (its ``async for`` makes a task per message), with endless reconnection and short
pings: https://github.com/nats-io/nats.py
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

from warmwire.broker.errors import BadInput, NoResponder, Unavailable

log = structlog.get_logger(__name__)

CONNECT_WITHIN = 5.0
"""Seconds for the first connection."""
REQUEST_WITHIN = 5.0
"""Seconds that JetStream may take to answer; a leader election takes about as long."""
PENDING_SIZE = 16 * 1024 * 1024
"""Bytes that may wait to be written to NATS; past it publishing waits, and fails while disconnected."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message as it arrived. ``reply`` is empty when no answer is expected."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str]


Handler = Callable[[Arrived], None]


class Bus:
    """One connection to NATS. Use ``connect``."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._reconnected: list[Callable[[], None]] = []
        self.js: JetStreamContext = client.jetstream(timeout=REQUEST_WITHIN)

    @property
    def connected(self) -> bool:
        """Whether the connection stands at this moment."""
        return self._client.is_connected

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each reconnection: what was sent meanwhile was missed."""
        self._reconnected.append(callback)

    def forget_reconnect(self, callback: Callable[[], None]) -> None:
        """Undo ``on_reconnect``."""
        self._reconnected.remove(callback)

    async def publish(self, subject: str, data: bytes, reply: str = "") -> None:
        """Publish once, without acknowledgement.

        Raises:
            Unavailable: disconnected and the buffer is full, or closed.
        """
        async with translated():
            await self._client.publish(subject, data, reply=reply)

    async def request(
        self, subject: str, data: bytes, within: float, headers: dict[str, str] | None = None
    ) -> bytes:
        """Ask whoever is subscribed to ``subject``; ``within`` is in seconds.

        Raises:
            NoResponder: nobody is subscribed.
            Unavailable: no answer in time, or not connected.
        """
        async with translated():
            answer = await self._client.request(subject, data, timeout=within, headers=headers)
            return answer.data

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Call ``handler`` for each message, in order. A handler that raises is logged; the next message goes on."""

        async def arrived(message: Msg) -> None:
            handler(Arrived(message.subject, message.reply, message.data, message.headers or {}))

        async with translated():
            return await self._client.subscribe(subject, cb=arrived)

    def new_inbox(self) -> str:
        """A subject of this connection's own, for answers."""
        return self._client.new_inbox()

    async def flush(self, within: float = REQUEST_WITHIN) -> None:
        """Wait until the server has taken all that was sent: subscriptions made before are in force."""
        async with translated():
            await self._client.flush(max(1, round(within)))

    async def close(self) -> None:
        """Send what waits, then leave."""
        if self._client.is_connected:
            try:
                await self._client.flush(2)
            except (nats.errors.Error, OSError) as error:
                log.warning("what waited could not be sent before leaving", error=str(error))
        await self._client.close()

    def _after_reconnect(self) -> None:
        for callback in tuple(self._reconnected):
            callback()


async def connect(url: str, name: str) -> Bus:
    """Connect to NATS; ``url`` may hold several addresses, separated by commas.

    Raises:
        Unavailable: none of them answers within ``CONNECT_WITHIN`` seconds.
        BadInput: not a NATS URL.
    """
    servers = [part.strip() for part in url.split(",") if part.strip()]
    await _probe(url, servers)
    client = Client()
    bus = Bus(client)

    async def reconnected() -> None:
        log.info("connected to NATS again", role=name)
        bus._after_reconnect()

    async def disconnected() -> None:
        log.warning("connection to NATS lost", role=name)

    async with translated():
        await client.connect(
            servers,
            name=name,
            error_cb=_log_error,
            disconnected_cb=disconnected,
            reconnected_cb=reconnected,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,  # type: ignore[arg-type]  # declared int, used as seconds
            connect_timeout=2,
            ping_interval=5,
            max_outstanding_pings=2,
            pending_size=PENDING_SIZE,
        )
    return bus


async def _probe(url: str, servers: list[str]) -> None:
    """One try with a clear outcome: with endless reconnection the first failure would be silent."""
    probe = Client()
    try:
        async with asyncio.timeout(CONNECT_WITHIN):
            await probe.connect(servers, allow_reconnect=False, error_cb=_ignore_error, connect_timeout=2)
        await probe.close()
    except (ValueError, TypeError, nats.errors.BadSubjectError) as error:
        raise BadInput("nats", f"{_without_password(url)} is not a NATS URL: {error}") from None
    except (nats.errors.Error, OSError, TimeoutError) as error:
        cause = str(error) or type(error).__name__
        raise Unavailable(f"no NATS server answers at {_without_password(url)} ({cause})") from None


def _without_password(url: str) -> str:
    return ",".join(
        part.split("://", 1)[0] + "://…@" + part.rsplit("@", 1)[1] if "@" in part else part
        for part in url.split(",")
    )


async def _log_error(error: Exception) -> None:
    log.warning("NATS client reported", error=str(error) or type(error).__name__)


async def _ignore_error(error: Exception) -> None:
    """The probe's caller reports the failure once, in its own words."""
    log.debug("NATS probe", error=str(error))


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Turn what nats-py raises into our errors."""
    try:
        yield
    except nats.errors.NoRespondersError as error:
        raise NoResponder("nobody answers on that subject") from error
    except (TimeoutError, nats.errors.TimeoutError) as error:
        raise Unavailable("NATS did not answer in time") from error
    except nats.errors.MaxPayloadError as error:
        raise BadInput("message", "is larger than the NATS server accepts (max_payload)") from error
    except (nats.errors.Error, OSError) as error:
        raise Unavailable(f"NATS: {str(error) or type(error).__name__}") from error
