"""JetStream for one write and one read at a time: each write is acknowledged, each read sees all of those.

Foreign exceptions end here. Error codes: https://github.com/nats-io/nats-server/blob/main/server/errors.json
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from nats.js.api import ConsumerInfo, PubAck, RawStreamMsg, StreamInfo
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from warmwire.broker.errors import Conflict, Contended, Unavailable, WarmwireError
from warmwire.broker.nats.bus import Bus, translated

WRONG_LAST = 10071
NOT_STORED = 10077
_IN_PROCESS = 10164
_NO_MESSAGE = 10037


@dataclass(frozen=True, slots=True)
class Stored:
    """A message of a stream."""

    subject: str
    sequence: int
    data: bytes
    time: datetime | None


class JetStream:
    """On this connection. What cannot be reached, or does not answer in time, raises Unavailable."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def put(
        self, subject: str, data: bytes, headers: Mapping[str, str], ttl: float | None = None
    ) -> PubAck:
        """Store a message; with ``ttl`` for so many seconds. Raises Refused."""
        with _refusals():
            return await self._bus.js.publish(subject, data, headers=dict(headers) or None, msg_ttl=ttl)

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message of the subject; None without any."""
        return await _found(self._bus.js.get_last_msg(stream, subject))

    async def first(self, stream: str, subject: str, start: int = 1) -> Stored | None:
        """The first message of the subject from that sequence on; None without any."""
        return await _found(self._bus.js.get_msg(stream, seq=start, subject=subject, next=True))

    async def counted(self, stream: str, subjects: str) -> dict[str, int]:
        """How many messages there are on each of these subjects."""
        with _answered():
            info: StreamInfo = await self._bus.js.stream_info(stream, subjects)
        return info.state.subjects or {}

    async def consumer(self, stream: str, name: str) -> ConsumerInfo:
        """How far a consumer is."""
        with _answered():
            info: ConsumerInfo = await self._bus.js.consumer_info(stream, name)
        return info

    async def purge(self, stream: str, subject: str) -> None:
        """Forget all messages of the subject."""
        with _answered():
            await self._bus.js.purge_stream(stream, subject=subject)


class Refused(Exception):
    """JetStream said no; ``code`` says why."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@contextmanager
def _reached() -> Iterator[None]:
    with translated():
        try:
            yield
        except NoStreamResponseError as error:
            raise Unavailable("no leader for the stream at the moment") from error


@contextmanager
def _answered() -> Iterator[None]:
    """Of a question no answer but the one asked for is of use. Raises Unavailable."""
    with _reached():
        try:
            yield
        except APIError as error:
            raise Unavailable(f"JetStream: {error.description or 'nobody answers'}") from error


@contextmanager
def _refusals() -> Iterator[None]:
    with _reached():
        try:
            yield
        except APIError as error:
            raise Refused(error.err_code or 0, error.description or "refused") from error


async def _found(asked: Awaitable[RawStreamMsg]) -> Stored | None:
    with _answered():
        try:
            found = await asked
        except NotFoundError as error:
            if error.err_code == _NO_MESSAGE:
                return None
            raise
    return Stored(found.subject or "", found.seq or 0, found.data or b"", found.time)


def expecting(sequence: int) -> dict[str, str]:
    """Store it only if the subject's last sequence is this one (0: it has no message)."""
    return {"Nats-Expected-Last-Subject-Sequence": str(sequence)}


def cas_error(error: Unavailable | Refused, subject: str) -> WarmwireError:
    """Our error for such a condition that failed."""
    if isinstance(error, Unavailable):
        return Unavailable(str(error))
    if error.code == WRONG_LAST:
        return Conflict(subject)
    if error.code == _IN_PROCESS:
        return Contended(f"an earlier write to {subject} is not settled")
    return Unavailable(str(error))
