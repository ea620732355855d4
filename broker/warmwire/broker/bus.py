"""The connection to NATS: publish, request, subscribe. Foreign exceptions end here and in ``store``.

nats-py is used with callbacks only (its ``async for`` makes a task per message), with endless reconnection
and short pings: https://github.com/nats-io/nats.py

Longer than other modules, so that whatever depends on nats-py's inside stands in one place.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.js import JetStreamContext
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from warmwire.broker import telemetry
from warmwire.broker.errors import BadInput, NoResponder, Unavailable, WarmwireError
from warmwire.broker.login import NOBODY, Login

log = structlog.get_logger(__name__)

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

PART_LIMIT = 64 * 1024
"""Bytes kept of a message until all of it is there; nats-py gathers larger ones."""


class Arrived(NamedTuple):
    """A message as it arrived. ``reply`` is empty when no answer is expected."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str]


Handler = Callable[[Arrived], None]

_NO_HEADERS: dict[str, str] = {}
_NOT_ALLOWED = "permissions violation"
_DENIED = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)


class Subscription:
    """What ``Bus.subscribe`` gives: a way to hear no more."""

    def __init__(self, inner: NatsSubscription, forget: Callable[[], object]) -> None:
        self._inner = inner
        self._forget = forget

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


class _Parser(Parser):
    """As it was; but messages that are there as a whole and have no headers are cut out in one pass.

    The protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol
    """

    nc: _Client

    async def parse(self, data: bytes = b"") -> None:
        if self.state != AWAITING_CONTROL_LINE:  # inside a large message
            await super().parse(data)
            return
        if self.buf:
            data = bytes(self.buf) + data
            self.buf.clear()
        at = await self._whole(data)
        if data.startswith(b"MSG ", at) and len(data) - at < PART_LIMIT:
            self.buf.extend(data[at:])  # until all of it is there
        elif at < len(data):
            await super().parse(data[at:])

    async def _whole(self, data: bytes) -> int:
        """Hand over what can be cut out; returns where the rest begins."""
        at, end = 0, data.find(b"\r\n")
        while end > 0 and data.startswith(b"MSG ", at):
            try:
                subject, number, *reply, size = data[at + 4 : end].split(b" ")
                begin, end, sid = end + 2, end + 2 + int(size), int(number)
            except ValueError:
                raise nats.errors.ProtocolError from None
            if end + 2 > len(data):
                break
            await_it = self.nc.hand_over(sid, subject, reply[0] if reply else b"", data[begin:end])
            at, end = end + 2, data.find(b"\r\n", end + 2)
            if await_it is not None:
                await await_it
        return at


class _Client(Client):
    """nats-py's, mended."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = _Parser(self)
        self.handlers: dict[object, Handler] = {}  # by the callback that stands for it in nats-py
        self._awaited: dict[asyncio.Timeout, str] = {}  # and the subject that was asked
        self._denied: set[asyncio.Timeout] = set()

    def hand_over(self, sid: int, subject: bytes, reply: bytes, data: bytes) -> Awaitable[None] | None:
        """Call the handler for a message without headers; what is returned is to be awaited."""
        subscription = self._subs.get(sid)
        handler = self.handlers.get(subscription._cb) if subscription is not None else None  # noqa: SLF001
        if handler is None:
            return super()._process_msg(sid, subject, reply, data, b"")
        try:
            handler(Arrived(subject.decode(), reply.decode(), data, _NO_HEADERS))
        except Exception as error:  # noqa: BLE001 - whatever it is: it is logged, and the next message comes
            return self._error_cb(error)
        return None

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """As it was; but a handler of ours is called at once: queue and task cost as much as all the rest."""
        subscription = self._subs.get(sid)
        handler = self.handlers.get(subscription._cb) if subscription is not None else None  # noqa: SLF001
        if handler is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        found = await self._process_headers(headers) if headers else None
        try:
            handler(Arrived(subject.decode(), reply.decode(), data, found or _NO_HEADERS))
        except Exception as error:  # noqa: BLE001 - as above
            await self._error_cb(error)

    def publish_now(self, events: Iterable[tuple[str, bytes]]) -> bool:
        """Publish them all without waiting; where that cannot be, none of them: then it is False."""
        if not self.is_connected or self.is_draining_pubs or self._flush_queue is None:
            return False
        lines = [b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(data), data) for subject, data in events]
        size = sum(map(len, lines))
        if (
            self._pending_data_size + size > self._max_pending_size
            or max(map(len, lines)) > self._max_payload
        ):
            return False
        self._pending += lines
        self._pending_data_size += size
        if self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())
        return True

    async def connect(self, *args: Any, **options: Any) -> None:
        """As it was; but where it fails, or is given up, it leaves no socket and no task behind."""
        try:
            await super().connect(*args, **options)
        except BaseException:
            if self._flush_queue is not None:  # else it has not even begun
                await self.close()
            raise

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,
        headers: dict[str, str] | None = None,
    ) -> Msg:
        """As it was; but when the connection breaks it fails, for the answer is lost with it; and when we may
        not ask that at all.

        Raises TimeoutError, and in the last case nats.errors.Error.
        """
        awaited = asyncio.timeout(None)
        try:
            async with awaited:
                self._awaited[awaited] = subject
                return await super().request(subject, payload, timeout, old_style, headers)
        except TimeoutError:
            if awaited in self._denied:
                raise nats.errors.Error(f"this user may not publish to {subject}") from None
            raise
        finally:
            self._awaited.pop(awaited, None)
            self._denied.discard(awaited)

    async def close(self) -> None:
        """As it was; but where nothing can be sent any more it does not try to, and fail half-way."""
        if not self.is_connected:
            self._pending, self._pending_data_size = [], 0
        try:
            await super().close()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not we were cancelled but the reconnection, which waited for the same socket to close.

    def fail_requests(self) -> None:
        """The connection has broken."""
        for awaited in self._awaited:
            _over(awaited)

    def fail_denied(self, error: Exception) -> None:
        """The server has refused what we sent to a subject: nobody will answer."""
        denied = _DENIED.search(str(error))
        for awaited, subject in self._awaited.items():
            if denied and denied[1].lower() == subject.lower():
                self._denied.add(awaited)
                _over(awaited)

    async def _process_err(self, err_msg: str) -> None:
        """As it was; but only the end of this process closes the connection for good.

        nats-py closes it for whatever the server complains of: a rotated password, a slow consumer.
        """
        if self.is_connected and _NOT_ALLOWED not in err_msg.lower():
            await self._error_cb(nats.errors.Error(f"nats: {err_msg.strip()}"))
            await self._process_op_err(nats.errors.Error(err_msg))
            return
        await super()._process_err(err_msg)

    async def _process_connect_init(self) -> None:
        """As it was; but after a failed greeting it leaves no socket, nor waits for an end never told."""
        try:
            await super()._process_connect_init()
        except (nats.errors.Error, OSError, TimeoutError):
            if (writer := self._writer()) is not None:
                writer.transport.abort()
            self._transport = None
            raise

    def _writer(self) -> asyncio.StreamWriter | None:
        writer = getattr(self._transport, "_io_writer", None)
        return writer if isinstance(writer, asyncio.StreamWriter) else None

    def _connect_command(self) -> bytes:
        """As it was; but who asked for TLS shows no password to a server that does without."""
        server = self._current_server
        wanted = "tls" in self.options or (server is not None and server.uri.scheme == "tls")
        if wanted and not self._server_info.get("tls_required"):
            raise nats.errors.Error("nats: the server has no TLS")
        if self._server_info.get("tls_required") and (writer := self._writer()) is not None:
            # nats-py does not tell the protocol, and asyncio warns at the end of each connection.
            writer.transport.get_protocol()._over_ssl = True  # type: ignore[attr-defined]  # noqa: SLF001
        try:
            return super()._connect_command()
        except Exception as error:  # any other than these two would end nats-py's attempts to reconnect
            if isinstance(error, nats.errors.Error | OSError):
                raise
            raise nats.errors.Error(f"nats: cannot log in: {str(error) or type(error).__name__}") from error


def _over(awaited: asyncio.Timeout) -> None:
    if not awaited.expired():
        awaited.reschedule(asyncio.get_running_loop().time())


class Bus:
    """One connection to NATS. Use ``connect``."""

    def __init__(self, client: _Client) -> None:
        self.leaving = False
        self._client = client
        self._reconnected: list[Callable[[], None]] = []
        self._flushing: set[asyncio.Future[None]] = set()
        self.js: JetStreamContext = client.jetstream(timeout=REQUEST_WITHIN)

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

        async def unused(message: Msg) -> None:
            """The client calls the handler itself."""
            raise AssertionError(message.subject)

        handlers = self._client.handlers
        handlers[unused] = handler
        try:
            with translated():
                subscription = await self._client.subscribe(subject, cb=unused)
        except BaseException:
            del handlers[unused]
            raise
        return Subscription(subscription, lambda: handlers.pop(unused, None))

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
        self.leaving = True
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

    def _after_reconnect(self) -> None:
        for callback in tuple(self._reconnected):
            try:
                callback()
            except Exception:  # the next one is to be told all the same
                log.exception("a callback after the reconnection failed")


async def connect(url: str, name: str, login: Login = NOBODY) -> Bus:
    """Connect to NATS; ``url`` may hold several addresses, separated by commas.

    Raises:
        Unavailable: none of them answers within ``CONNECT_WITHIN`` seconds, or lets us in.
        BadInput: not a NATS URL, or a file of ``login`` cannot be used.
    """
    servers = _servers(url)
    known = login.options()
    client = _Client()
    bus = Bus(client)

    async def reconnected() -> None:
        telemetry.nats_reconnects.add(1)
        log.info("connected to NATS again", role=name)
        bus._after_reconnect()  # noqa: SLF001 - its own module

    async def disconnected() -> None:
        if not bus.leaving:
            log.warning("connection to NATS lost", role=name)
        client.fail_requests()

    async def reported(error: Exception) -> None:
        client.fail_denied(error)
        await _log_error(error)

    try:
        async with asyncio.timeout(CONNECT_WITHIN):
            await _probe(servers, known)
            await client.connect(
                servers,
                name=name,
                error_cb=reported,
                disconnected_cb=disconnected,
                reconnected_cb=reconnected,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,  # seconds
                connect_timeout=ONE_SERVER_WITHIN,
                ping_interval=PING_EVERY,
                max_outstanding_pings=PINGS_MISSED,
                pending_size=PENDING_SIZE,
                **known,
            )
    except (nats.errors.Error, OSError, TimeoutError) as error:
        cause = str(error) or "no answer in time"
        raise Unavailable(f"no NATS server answers at {_without_password(url)} ({cause})") from None
    return bus


async def _probe(servers: list[str], known: dict[str, Any]) -> None:
    """One try with a clear outcome: with endless reconnection the first failure would be silent."""
    causes: list[Exception] = []

    async def failed(error: Exception) -> None:
        causes.append(error)

    probe = _Client()
    try:
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
    raise BadInput("nats", f"{_without_password(url)!r} is not a NATS URL such as nats://127.0.0.1:4222")


def _is_server(text: str) -> bool:
    try:
        parts = urlsplit(text if "://" in text else f"nats://{text}")
        return parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number
        return False


def _without_password(url: str) -> str:
    """What stands before an ``@`` is hidden, even where the URL is malformed."""
    return re.sub(r"(^|://|,)((?!\w+://).)*@", r"\1…@", url)


async def _log_error(error: Exception) -> None:
    telemetry.nats_errors.add(1)
    ours = not isinstance(error, nats.errors.Error | OSError)
    log.warning(
        "NATS client reported", error=str(error) or type(error).__name__, exc_info=error if ours else None
    )


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
