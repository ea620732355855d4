"""The connection to NATS: publish, request, subscribe. Foreign exceptions end here and in ``jetstream``.

It reconnects without end, and looks every few seconds whether it still stands.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.js import JetStreamContext

from warmwire.broker import telemetry
from warmwire.broker.errors import BadInput, NoResponder, Unavailable, WarmwireError
from warmwire.broker.logs import logger
from warmwire.broker.nats.client import Arrived, Handler, Listener, NatsClient
from warmwire.broker.nats.login import NOBODY, Known, Login

__all__ = ["Arrived", "Bus", "Handler", "Subscription", "connect", "translated", "without_password"]

log = logger(__name__)

SCHEMES = ("nats", "tls")
CONNECT_WITHIN = 4.0
"""Seconds for the first connection."""
ONE_SERVER_WITHIN = 2
"""Seconds for one server to answer."""
REQUEST_WITHIN = 5.0
"""Seconds that JetStream may take to answer; a leader election takes about as long."""
LEAVE_WITHIN = 2.0
"""Seconds that leaving waits for what is still to be sent."""
PING_EVERY = 5
"""Seconds between two looks at whether the connection still stands."""
PINGS_MISSED = 2
"""Looks without an answer after which it is given up."""
PONG_WITHIN = 30
"""Seconds, more than a dead connection needs to be given up."""
PENDING_SIZE = 16 * 1024 * 1024
"""Bytes that may wait to be written to NATS; past it publishing waits, and fails while disconnected."""


class Subscription:
    """What ``Bus.subscribe`` gives: a way to hear no more."""

    def __init__(self, inner: NatsSubscription, forget: Callable[[], object]) -> None:
        self._inner = inner
        self._forgets = [forget]

    @property
    def sid(self) -> int:
        """Its number on this connection."""
        return self._inner._id  # noqa: SLF001

    def also_forget(self, forget: Callable[[], object]) -> None:
        """Call this, too, when nothing more is to be heard."""
        self._forgets.append(forget)

    async def unsubscribe(self) -> None:
        """Hear no more from now on; works while disconnected, and twice."""
        self._forget()
        with translated(), _already_over():
            await self._inner.unsubscribe()

    async def drain(self) -> None:
        """Hear no more, after what the server has already sent. Raises Unavailable."""
        with translated(), _already_over():
            await self._inner.drain()  # type: ignore[no-untyped-call]
        self._forget()

    def _forget(self) -> None:
        for forget in self._forgets:
            forget()


class Bus:
    """One connection to NATS. Use ``connect``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._leaving = False
        self._client = NatsClient()
        self._reconnected: list[Callable[[], None]] = []
        self._flushing: set[asyncio.Future[None]] = set()
        self.js: JetStreamContext = self._client.jetstream(timeout=REQUEST_WITHIN)

    async def open(self, servers: list[str], known: Known) -> None:
        """Connect to one of these; ``known`` says who we are. Raises what nats-py raises."""
        await _probe(servers, known)
        async with self._client.wholly():
            await self._client.connect(
                servers,
                name=self._name,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnect,
                reconnected_cb=self._on_reconnect,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds: it is only slept for
                connect_timeout=ONE_SERVER_WITHIN,
                ping_interval=PING_EVERY,
                max_outstanding_pings=PINGS_MISSED,
                pending_size=PENDING_SIZE,
                **known,
            )

    @property
    def connected(self) -> bool:
        """Whether the connection stands at this moment."""
        return self._client.is_connected

    @property
    def max_payload(self) -> int:
        """Bytes that the server takes in one message."""
        return self._client.max_payload

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
            BadInput: larger than the server accepts.
        """
        try:  # no context manager: this is on the path of every delta
            await self._client.publish(subject, data, reply=reply)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise translation(error) from error

    def publish_now(self, events: Iterable[tuple[str, bytes]]) -> bool:
        """Publish all of these, subjects and data, in one piece and without waiting.

        False, and none is published: disconnected, no room, or one of them may be too large.
        """
        return self._client.publish_now(events)

    async def request(
        self, subject: str, data: bytes, within: float, headers: dict[str, str] | None = None
    ) -> bytes:
        """Ask whoever is subscribed to ``subject``; ``within`` is in seconds.

        Raises:
            NoResponder: nobody is subscribed.
            Unavailable: no answer in time, or not connected.
        """
        with translated():
            answer = await self._client.request(subject, data, timeout=within, headers=headers)
            return answer.data

    async def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Call ``handler`` for each message, in order; what it raises is logged, and the next one comes."""
        handlers = self._client.handlers

        async def unused(message: Msg) -> None:
            """The client calls the handler itself."""
            raise AssertionError(message.subject)

        handlers[unused] = handler
        try:
            with translated():
                inner = await self._client.subscribe(subject, cb=unused)
        except BaseException:
            del handlers[unused]
            raise
        return Subscription(inner, lambda: handlers.pop(unused, None))

    async def listen(self, subject: str, listener: Listener) -> Subscription:
        """As ``subscribe``, for who wants the data alone: what comes most often takes the shortest way."""
        subscription = await self.subscribe(subject, lambda message: listener(message.data))
        listeners, sid = self._client.listeners, subscription.sid
        listeners[sid] = listener
        subscription.also_forget(lambda: listeners.pop(sid, None))
        return subscription

    def new_inbox(self) -> str:
        """A subject of this connection's own, for answers."""
        return self._client.new_inbox()

    async def flush(self, within: float = REQUEST_WITHIN) -> None:
        """Wait until the server has taken all that was sent: subscriptions made before are in force.

        Raises:
            Unavailable: not within that many seconds.
        """
        # A flush that is cancelled or times out inside nats-py leaves a future behind; the PONG that
        # comes later ends the client's read loop. So it goes on by itself, unseen, until the PONG is here.
        flushing = asyncio.ensure_future(self._client.flush(PONG_WITHIN))
        self._flushing.add(flushing)
        flushing.add_done_callback(self._flushed)
        with translated():
            async with asyncio.timeout(within):
                await asyncio.shield(flushing)

    async def close(self) -> None:
        """Send what waits, then leave."""
        self._leaving = True
        if self._client.is_connected:
            try:
                await self.flush(LEAVE_WITHIN)
            except Unavailable as error:
                log.warning("what waited could not be sent before leaving", error=str(error))
        await self._client.close()
        for flushing in self._flushing:
            flushing.cancel()

    def _flushed(self, flushing: asyncio.Future[None]) -> None:
        self._flushing.discard(flushing)
        if not flushing.cancelled():
            flushing.exception()  # told to whoever still waited

    async def _on_disconnect(self) -> None:
        if not self._leaving:
            log.warning("connection to NATS lost", role=self._name)
        self._client.fail_requests()

    async def _on_reconnect(self) -> None:
        telemetry.nats_reconnects.add(1)
        log.info("connected to NATS again", role=self._name)
        for callback in tuple(self._reconnected):
            try:
                callback()
            except Exception:  # the next one is to be told all the same
                log.exception("a callback after the reconnection failed")

    async def _on_error(self, error: Exception) -> None:
        if self._client.is_closed and isinstance(error, OSError):
            log.debug("NATS still sent while it was left", error=str(error))  # TLS takes that for an error
            return
        self._client.fail_denied(error)
        telemetry.nats_errors.add(1)
        ours = not isinstance(error, nats.errors.Error | OSError)
        text = str(error) or type(error).__name__
        log.warning("NATS client reported", error=text, exc_info=error if ours else None)


async def connect(url: str, name: str, login: Login = NOBODY) -> Bus:
    """Connect to NATS; ``url`` may hold several addresses, separated by commas.

    Raises:
        Unavailable: none of them answers within ``CONNECT_WITHIN`` seconds, or lets us in. Its cause is a
            TimeoutError where that may be a matter of time.
        BadInput: not a NATS URL, or a file of ``login`` cannot be used.
    """
    servers, known = _servers(url), login.options()
    bus = Bus(name)
    try:
        async with asyncio.timeout(CONNECT_WITHIN):
            await bus.open(servers, known)
    except (nats.errors.Error, OSError, TimeoutError) as error:
        late = isinstance(error, TimeoutError)
        cause = "no answer in time" if late else str(error) or type(error).__name__
        text = f"no NATS server answers at {without_password(url)} ({cause})"
        raise Unavailable(text) from (error if late else None)
    return bus


async def _probe(servers: list[str], known: Known) -> None:
    """One try with a clear outcome: with endless reconnection the first failure would be silent."""
    causes: list[Exception] = []

    async def failed(error: Exception) -> None:
        causes.append(error)

    probe = NatsClient()
    try:
        async with probe.wholly():
            await probe.connect(
                servers,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                error_cb=failed,
                connect_timeout=ONE_SERVER_WITHIN,
                **known,
            )
    except nats.errors.NoServersError:
        raise causes[-1] if causes else nats.errors.NoServersError from None
    await probe.close()


def _servers(url: str) -> list[str]:
    """The addresses in a URL; its text is never repeated whole, it may hold a password."""
    servers = [part.strip() for part in url.split(",") if part.strip()]
    if servers and all(map(_is_server, servers)):
        return servers
    raise BadInput("nats", f"{without_password(url)!r} is not a NATS URL such as nats://127.0.0.1:4222")


def _is_server(text: str) -> bool:
    try:
        parts = urlsplit(text if "://" in text else f"nats://{text}")
        return parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number
        return False


def without_password(url: str) -> str:
    """A NATS URL as it may be shown: what stands before an ``@`` is hidden, even where it is malformed."""
    return re.sub(r"(^|://|,)((?!\w+://).)*@", r"\1…@", url)


def translation(error: Exception) -> WarmwireError:
    """Our error for what nats-py raised."""
    if isinstance(error, nats.errors.NoRespondersError):
        return NoResponder("nobody answers on that subject")
    if isinstance(error, nats.errors.MaxPayloadError):
        return BadInput("message", "is larger than the NATS server accepts (max_payload)")
    if isinstance(error, TimeoutError):
        return Unavailable("NATS did not answer in time")
    return Unavailable(f"NATS: {str(error) or type(error).__name__}")


@contextmanager
def translated() -> Iterator[None]:
    """Turn what nats-py raises into our errors."""
    try:
        yield
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise translation(error) from error


def _already_over() -> suppress:
    """Of a subscription or connection that is closed already nothing is heard: that was the wish."""
    return suppress(nats.errors.ConnectionClosedError, nats.errors.BadSubscriptionError)
