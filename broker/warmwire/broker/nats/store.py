"""What survives: the queue of user messages, records, transcripts. Every write is acknowledged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from warmwire.broker.errors import (
    BadInput,
    Conflict,
    Contended,
    QueueFull,
    StoreFull,
    Unavailable,
)
from warmwire.broker.nats.bus import Bus
from warmwire.broker.nats.jetstream import (
    NOT_STORED,
    WRONG_LAST,
    JetStream,
    Refused,
    Stored,
    cas_error,
    expecting,
)
from warmwire.broker.nats.streams import CONSUMER, QUEUED_PER_SESSION
from warmwire.broker.wire.messages import (
    BoundRecord,
    M,
    Message,
    OwnerRecord,
    SessionRecord,
    TicketRecord,
    TurnRecord,
    UserMessage,
    decode,
    decode_turn_record,
)
from warmwire.broker.wire.names import SessionKey, Subjects

TURN_KEPT = 24 * 3600
"""Seconds that a turn record is kept."""
TOMBSTONE_KEPT = 3600
"""Seconds that the record of a released session is kept."""
INTERRUPT_KEPT = 3600
"""Seconds that an interrupt waits for its turn."""
LOOKED_AT_KEPT = 24 * 3600
"""Seconds that a session to which nothing was sent stays its user's."""
DELETED_KEPT = 3600
"""Seconds that the name of a deleted session stays its user's: longer than anybody remembers whose it was."""

_SESSION_FULL = "per subject"
"""One code stands for both: "maximum messages per subject exceeded" and "maximum bytes exceeded"."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """JetStream has the user message. ``duplicate``: it already had one with that turn id."""

    sequence: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Queued:
    """A user message that waits or runs, and its place in the queue."""

    sequence: int
    message: UserMessage


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many messages wait for a worker, and since when the oldest does; None if none does."""

    waiting: int
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A turn's record, and its place among all records: later writes have higher ones."""

    sequence: int
    turn: str
    record: TurnRecord


@dataclass(frozen=True, slots=True)
class Owned:
    """An owner record and its stream sequence, which is the epoch while the record names a worker."""

    record: OwnerRecord
    sequence: int


class Store:
    """Reads and writes the records. Reads go to the stream's leader: they see every acknowledged write."""

    def __init__(self, bus: Bus, subjects: Subjects) -> None:
        self._js = JetStream(bus)
        self._subjects = subjects

    # -- the queue

    async def submit(
        self,
        key: SessionKey,
        message: UserMessage,
        headers: dict[str, str],
        *,
        only_if_idle: bool = False,
        repeated: bool = False,
    ) -> Accepted:
        """Accept a user message: from here on it is not lost.

        ``only_if_idle`` is judged by the server as it stores the message, so no two of them both get in.
        ``repeated`` stores a message again that the server still takes for a duplicate.

        Raises:
            Conflict: ``only_if_idle``, and another message of the session waits or runs.
            QueueFull: the session has ``QUEUED_PER_SESSION`` messages waiting or running.
            StoreFull: the whole queue is full.
            Unavailable: not known whether it was accepted; repeat with the same turn id.
        """
        subject = self._subjects.requests(key)
        condition = expecting(0) if only_if_idle else {}
        name = {} if repeated else {"Nats-Msg-Id": f"{key}.{message.turn}"}
        try:
            ack = await self._js.put(subject, message.encode(), {**headers, **condition, **name})
        except Refused as error:
            if error.code == WRONG_LAST:
                return await self._stored_before(key, message.turn, error)
            if error.code != NOT_STORED:
                raise Unavailable(str(error)) from error
            if _SESSION_FULL in str(error):
                raise QueueFull(key.session, QUEUED_PER_SESSION) from error
            raise StoreFull(f"the queue of user messages is full: {error}") from error
        return Accepted(ack.seq, bool(ack.duplicate))

    async def _stored_before(self, key: SessionKey, turn: str, error: Refused) -> Accepted:
        """The condition is judged before the duplicate is noticed: perhaps only an answer was lost."""
        for queued in await self.queued(key):
            if queued.message.turn == turn:
                return Accepted(queued.sequence, duplicate=True)
        raise Conflict(self._subjects.requests(key)) from error

    async def head(self, key: SessionKey, after: int = 0) -> int | None:
        """The stream sequence of the session's first message that is not yet acked; None without one.

        Those up to ``after`` are known to be acked: the server answers an ack before it removes the message.
        """
        stream, subject = self._subjects.request_stream, self._subjects.requests(key)
        found = await self._js.first(stream, subject, after + 1)
        return found.sequence if found else None

    async def queued(self, key: SessionKey) -> tuple[Queued, ...]:
        """The session's messages that are not yet acked, in order: the first of them may be running.

        What can be made of none of them is left out; a worker will terminate it.
        """
        stream, subject = self._subjects.request_stream, self._subjects.requests(key)
        messages: list[Queued] = []
        start = 1
        while len(messages) < QUEUED_PER_SESSION:
            found = await self._js.first(stream, subject, start)
            if found is None:
                break
            start = found.sequence + 1
            with suppress(BadInput):
                messages.append(Queued(found.sequence, decode(UserMessage, found.data)))
        return tuple(messages)

    async def queued_of(self, tenant: str) -> int:
        """How many messages of all the tenant's sessions are not yet acked."""
        subject = self._subjects.tenant_requests(tenant)
        return sum((await self._js.counted(self._subjects.request_stream, subject)).values())

    async def sessions_of(self, tenant: str) -> int:
        """How many of the tenant's sessions have a message that waits or a transcript that is kept."""
        waiting = await self._js.counted(
            self._subjects.request_stream, self._subjects.tenant_requests(tenant)
        )
        kept = await self._js.counted(self._subjects.log_stream, self._subjects.tenant_transcripts(tenant))
        return len({subject.rpartition(".")[2] for subject in (*waiting, *kept)})

    async def all_queued(self, most: int) -> AsyncIterator[tuple[SessionKey, Queued]]:
        """Messages of all sessions that are not yet acked, the oldest first, up to ``most`` of them."""
        start = 1
        for _ in range(most):
            found = await self._js.first(self._subjects.request_stream, self._subjects.all_requests, start)
            if found is None:
                return
            start = found.sequence + 1
            with suppress(BadInput):
                key = self._subjects.session_of(found.subject)
                yield key, Queued(found.sequence, decode(UserMessage, found.data))

    async def backlog(self) -> Backlog:
        """The messages that no worker has taken yet. Raises Unavailable."""
        stream = self._subjects.request_stream
        info = await self._js.consumer(stream, CONSUMER)
        if not info.num_pending:
            return Backlog(0, None)
        taken = info.delivered.stream_seq if info.delivered else 0
        found = await self._js.first(stream, self._subjects.all_requests, taken + 1)
        return Backlog(info.num_pending, found.time if found else None)

    # -- owners

    async def owner(self, key: SessionKey) -> Owned | None:
        """The session's owner record; None if there never was one, or it was released long ago."""
        found = await self.read(OwnerRecord, self._subjects.owner(key))
        return Owned(*found) if found else None

    async def claim(self, key: SessionKey, record: OwnerRecord, expected: int) -> int:
        """Write the owner record if its sequence is still ``expected`` (0: none); returns the epoch.

        Raises:
            Conflict: somebody else was faster.
            Contended: try again.
        """
        return await self._put_owner(key, record, expected)

    async def release(self, key: SessionKey, epoch: int, nonce: str) -> None:
        """Give the session up: a tombstone, if the epoch still stands. Raises as ``claim``."""
        await self._put_owner(key, OwnerRecord(nonce=nonce), epoch, TOMBSTONE_KEPT)

    async def _put_owner(
        self, key: SessionKey, record: OwnerRecord, expected: int, ttl: float | None = None
    ) -> int:
        subject = self._subjects.owner(key)
        try:
            return (await self._js.put(subject, record.encode(), expecting(expected), ttl)).seq
        except (Unavailable, Refused) as error:
            found = await self.owner(key)  # was it the answer that was lost, of this try or of one before?
            if found is not None and found.record == record:
                return found.sequence
            raise cas_error(error, subject) from error

    # -- turns

    async def turn(self, key: SessionKey, turn: str) -> TurnRecord | None:
        """The turn's record; None if it was never started, or longer than ``TURN_KEPT`` ago."""
        found = await self._js.last(self._subjects.state_stream, self._subjects.turn(key, turn))
        return decode_turn_record(found.data) if found else None

    async def turns(self, key: SessionKey, after: int, most: int) -> tuple[Recorded, ...]:
        """Up to ``most`` turn records written after a place (0: the oldest), in order."""
        found: list[Recorded] = []
        while len(found) < most:
            message = await self._js.first(self._subjects.state_stream, self._subjects.turns(key), after + 1)
            if message is None:
                break
            after = message.sequence
            found.append(_recorded(message))
        return tuple(found)

    async def last_turn(self, key: SessionKey) -> Recorded | None:
        """The turn record that was written last."""
        found = await self._js.last(self._subjects.state_stream, self._subjects.turns(key))
        return _recorded(found) if found else None

    async def put_turn(self, key: SessionKey, turn: str, record: TurnRecord) -> None:
        """Write the turn's record, fenced by the owner record of the epoch that it names.

        Raises:
            Conflict: the session has another owner.
            Contended: try again.
        """
        await self.put_fenced(key, self._subjects.turn(key, turn), record, record.epoch, TURN_KEPT)

    async def ask_interrupt(self, key: SessionKey, turn: str) -> None:
        """Leave an interrupt for a turn that nobody owns yet."""
        try:
            await self._js.put(self._subjects.interrupt(key, turn), b"{}", {}, INTERRUPT_KEPT)
        except Refused as error:
            raise Unavailable(str(error)) from error

    async def interrupt_asked(self, key: SessionKey, turn: str) -> bool:
        """Whether somebody left one."""
        return (
            await self._js.last(self._subjects.state_stream, self._subjects.interrupt(key, turn)) is not None
        )

    # -- transcripts

    async def append_transcript(self, key: SessionKey, entries: bytes, last: int) -> int:
        """Append to the session's transcript if its last sequence is still ``last``; returns the new one.

        Raises:
            Conflict: another owner has appended.
            Contended: try again.
        """
        subject = self._subjects.transcript(key)
        try:
            return (await self._js.put(subject, entries, expecting(last))).seq
        except (Unavailable, Refused) as error:
            found = await self._js.first(self._subjects.log_stream, subject, last + 1)
            if found is not None and found.data == entries:  # only the answer was lost
                return found.sequence
            raise cas_error(error, subject) from error

    async def transcript_end(self, key: SessionKey) -> int:
        """The sequence of the transcript's last append; 0 without any."""
        found = await self._js.last(self._subjects.log_stream, self._subjects.transcript(key))
        return found.sequence if found else 0

    async def transcript(self, key: SessionKey) -> tuple[list[bytes], int]:
        """All appends in order, and the last sequence (0 without any)."""
        subject, last = self._subjects.transcript(key), 0
        parts: list[bytes] = []
        while True:
            found = await self._js.first(self._subjects.log_stream, subject, last + 1)
            if found is None:
                return parts, last
            parts.append(found.data)
            last = found.sequence

    # -- sessions

    async def bound(self, key: SessionKey) -> BoundRecord | None:
        """What the session is bound to; None where nothing had to be stored about it."""
        found = await self.read(BoundRecord, self._subjects.bound(key))
        return found[0] if found else None

    async def put_bound(self, key: SessionKey, record: BoundRecord, epoch: int) -> None:
        """Write it, fenced by the owner record of that epoch; it stays until the session is purged.

        Raises as ``put_turn``.
        """
        await self.put_fenced(key, self._subjects.bound(key), record, epoch)

    async def session(self, key: SessionKey) -> tuple[SessionRecord | None, int]:
        """Whose session it is, and the record's sequence; None and 0 when it is nobody's."""
        return await self.read(SessionRecord, self._subjects.about(key)) or (None, 0)

    async def put_session(self, key: SessionKey, record: SessionRecord, expected: int) -> None:
        """Write whose it is, if the record's sequence is still ``expected`` (0: none).

        Raises:
            Conflict: somebody else was faster.
            Unavailable: not known whether it was written.
        """
        ttl = None if record.sent else LOOKED_AT_KEPT
        await self.swap(self._subjects.about(key), record, expected, ttl)

    async def _let_name_go(self, key: SessionKey) -> None:
        """The session's name is free again, after a while."""
        record, sequence = await self.session(key)
        if record is not None:
            released = record.model_copy(update={"sent": False})
            with suppress(Conflict):  # its user has begun it anew meanwhile
                await self.swap(self._subjects.about(key), released, sequence, DELETED_KEPT)

    async def ticket(self, digest: str) -> tuple[TicketRecord, int] | None:
        """What the ticket of that digest lets in, and the record's sequence; None when there is none."""
        return await self.read(TicketRecord, self._subjects.ticket(digest))

    async def put_ticket(self, digest: str, record: TicketRecord, expected: int, ttl: float) -> None:
        """Write it, to be forgotten after ``ttl`` seconds. Raises as ``put_session``."""
        await self.swap(self._subjects.ticket(digest), record, expected, ttl)

    async def purge(self, key: SessionKey) -> None:
        """Forget the session: messages, transcript, records, and at last who owns it.

        Its name stays its user's for ``DELETED_KEPT`` seconds. Raises Unavailable.
        """
        subjects = self._subjects
        for stream, subject in (
            (subjects.request_stream, subjects.requests(key)),
            (subjects.log_stream, subjects.transcript(key)),
            *((subjects.state_stream, subject) for subject in subjects.records_of(key)),
        ):
            await self._js.purge(stream, subject)
        await self._let_name_go(key)

    # -- any record

    async def read(self, model: type[M], subject: str) -> tuple[M, int] | None:
        """A record and its sequence; None where there is none. Raises BadInput, Unavailable."""
        found = await self._js.last(self._subjects.state_stream, subject)
        return (decode(model, found.data), found.sequence) if found else None

    async def swap(self, subject: str, record: Message, expected: int, ttl: float | None = None) -> None:
        """Write it, if the record's sequence is still ``expected`` (0: none); kept for ``ttl`` seconds.

        Raises:
            Conflict: somebody else was faster.
            Unavailable: not known whether it was written.
        """
        try:
            await self._js.put(subject, record.encode(), expecting(expected), ttl)
        except Refused as error:
            raised = cas_error(error, subject)
            raise Unavailable(str(raised)) if isinstance(raised, Contended) else raised from error

    async def put_fenced(
        self, key: SessionKey, subject: str, record: Message, epoch: int, ttl: float | None = None
    ) -> None:
        """Write it, if the session's owner is still that of this epoch; kept for ``ttl`` seconds.

        Raises:
            Conflict: the session has another owner.
            Contended: try again.
        """
        fence = {
            "Nats-Expected-Last-Subject-Sequence": str(epoch),
            "Nats-Expected-Last-Subject-Sequence-Subject": self._subjects.owner(key),
        }
        try:
            await self._js.put(subject, record.encode(), fence, ttl)
        except Refused as error:
            raise cas_error(error, subject) from error


def _recorded(message: Stored) -> Recorded:
    turn = message.subject.rpartition(".")[2]
    return Recorded(message.sequence, turn, decode_turn_record(message.data))
