"""nats-py's client, mended: whatever depends on its inside stands here, and nowhere else.

It is used with callbacks only (its ``async for`` makes a task per message): https://github.com/nats-io/nats.py
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

PART_LIMIT = 64 * 1024
"""Bytes kept of a message until all of it is there; nats-py gathers larger ones."""


class Arrived(NamedTuple):
    """A message as it arrived. ``reply`` is empty when no answer is expected."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str]


Handler = Callable[[Arrived], None]
Listener = Callable[[bytes], None]

_NO_HEADERS: dict[str, str] = {}
_CANCEL_AGAIN = 0.1
"""Seconds after which a reconnection that goes on all the same is cancelled once more."""
_NOT_ALLOWED = "permissions violation"
_DENIED = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)


class NatsParser(Parser):
    """As it was; but messages that are there as a whole and have no headers are cut out in one pass.

    The protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol
    """

    nc: NatsClient

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


class NatsClient(Client):
    """nats-py's, mended.

    ``handlers`` has ours, by the callback that stands for each in nats-py; ``listeners`` those of them that
    want nothing but the data, by the number of their subscription.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ps = NatsParser(self)
        self.handlers: dict[object, Handler] = {}
        self.listeners: dict[int, Listener] = {}
        self._awaited: dict[asyncio.Timeout, str] = {}  # and the subject that was asked
        self._denied: set[asyncio.Timeout] = set()

    def hand_over(self, sid: int, subject: bytes, reply: bytes, data: bytes) -> Awaitable[None] | None:
        """Call who wants a message without headers; what is returned is to be awaited."""
        try:
            listener = self.listeners.get(sid)
            if listener is not None:
                listener(data)
                return None
            subscription = self._subs.get(sid)
            handler = self.handlers.get(subscription._cb) if subscription is not None else None  # noqa: SLF001
            if handler is None:
                return super()._process_msg(sid, subject, reply, data, b"")
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
        whole = b"".join(lines)  # one buffer: a socket takes many small ones more slowly
        full = self._pending_data_size + len(whole) > self._max_pending_size
        if full or max(map(len, lines)) > self._max_payload:
            return False
        self._pending.append(whole)
        self._pending_data_size += len(whole)
        if self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())
        return True

    @asynccontextmanager
    async def wholly(self) -> AsyncIterator[None]:
        """Where connecting fails in here, or is given up, it leaves no socket and no task behind."""
        try:
            yield
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
        await self._end_reconnection()
        try:
            await super().close()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not we were cancelled but the reconnection, which waited for the same socket to close.

    async def _end_reconnection(self) -> None:
        """Cancel it until it has ended: `wait_for` of Python 3.11 loses one that meets a refusal."""
        task = self._reconnection_task
        while task is not None and task is not asyncio.current_task() and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_CANCEL_AGAIN)

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
