"""What JetStream keeps for warmwire, in memory: the protocol of the records in one place.

queue        User messages of all sessions, one sequence for all. A delivered message belongs to whoever has
             it for ``ACK_WAIT`` seconds, which ``progress`` begins anew; then it is delivered again. An ack
             is answered before the message is gone (``settle``): for a moment the server still has it.
owners       Who has a session. Written only over the sequence that was read (compare-and-swap). The record's
             sequence is the epoch. Released: the record names nobody.
turns        How far a turn is. Written only while the owner record still has the writer's epoch (the fence).
transcripts  Appends. Written only if nothing was appended since the last that the writer knows (the chain).

The model watches, too: it fails at once where a worker breaks a rule that no later check would see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from warmwire.broker.errors import Conflict
from warmwire.broker.nats.store import Owned
from warmwire.broker.nats.streams import ACK_WAIT
from warmwire.broker.wire.messages import Finished, OwnerRecord, TurnRecord, UserMessage


@dataclass
class Queued:
    """A user message in the work queue."""

    session: str
    message: UserMessage
    sequence: int
    deliveries: int = 0
    due: float = 0.0
    acked: bool = False


@dataclass
class Server:
    """The streams of one installation; ``now`` in seconds."""

    now: float = 0.0
    queue: dict[int, Queued] = field(default_factory=dict)
    owners: dict[str, Owned] = field(default_factory=dict)
    turns: dict[tuple[str, str], TurnRecord] = field(default_factory=dict)
    interrupts: set[tuple[str, str]] = field(default_factory=set)
    transcripts: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    accepted: list[Queued] = field(default_factory=list)
    finished: list[tuple[str, Finished]] = field(default_factory=list)
    refused: int = 0
    _sequence: int = 0
    _state: int = 1000
    _log: int = 0

    # -- the queue

    def submit(self, session: str, message: UserMessage) -> Queued:
        """Accept a message."""
        self._sequence += 1
        queued = Queued(session, message, self._sequence)
        self.queue[queued.sequence] = queued
        self.accepted.append(queued)
        return queued

    def due(self) -> Iterator[Queued]:
        """What a pull would give, in order."""
        return (queued for queued in self.queue.values() if queued.due <= self.now and not queued.acked)

    def deliver(self, queued: Queued) -> int:
        """Give a message to somebody; returns how often it has been given by now."""
        queued.deliveries += 1
        queued.due = self.now + ACK_WAIT
        return queued.deliveries

    def progress(self, sequence: int) -> None:
        """Somebody is at work on it."""
        if sequence in self.queue:
            self.queue[sequence].due = self.now + ACK_WAIT

    def give_back(self, sequence: int) -> None:
        """Somebody will not do it."""
        if sequence in self.queue:
            self.queue[sequence].due = self.now

    def ack(self, sequence: int) -> None:
        """It is done. Whoever says so must have seen to it that how it ended is known."""
        queued = self.queue.get(sequence)
        if queued is not None:
            record = self.turns.get((queued.session, queued.message.turn))
            assert isinstance(record, Finished), f"{queued} is acknowledged, but its end is not stored"
            queued.acked = True

    def head(self, session: str, after: int) -> int | None:
        """The first message of a session that is still stored, of those after a sequence."""
        stored = (queued.sequence for queued in self.queue.values() if queued.session == session)
        return min((sequence for sequence in stored if sequence > after), default=None)

    def settle(self) -> None:
        """What has been acknowledged is removed."""
        self.queue = {sequence: queued for sequence, queued in self.queue.items() if not queued.acked}

    def forget_acks(self) -> None:
        """The server was killed: acks that it has not acted on are gone."""
        for queued in self.queue.values():
            queued.acked = False

    # -- owners

    def owner(self, session: str) -> Owned | None:
        """The owner record."""
        return self.owners.get(session)

    def write_owner(self, session: str, record: OwnerRecord, expected: int) -> int:
        """Claim or release: compare-and-swap; returns the new sequence. Raises Conflict."""
        found = self.owners.get(session)
        if found is not None and found.record == record:
            return found.sequence  # the answer was lost
        self._refuse_unless(expected == (found.sequence if found else 0), "own")
        self._state += 1
        self.owners[session] = Owned(record, self._state)
        return self._state

    # -- turns

    def turn(self, session: str, turn: str) -> tuple[TurnRecord | None, bool]:
        """A turn's record, and whether somebody has left an interrupt for it."""
        return self.turns.get((session, turn)), (session, turn) in self.interrupts

    def put_turn(self, session: str, turn: str, record: TurnRecord) -> None:
        """Fenced by the owner record. Raises Conflict."""
        owned = self.owners.get(session)
        self._refuse_unless(owned is not None and owned.sequence == record.epoch, "turn")
        before = self.turns.get((session, turn))
        assert not isinstance(before, Finished) or before == record, f"{turn} ends a second time: {record}"
        if isinstance(record, Finished) and before != record:
            self.finished.append((session, record))
        self._state += 1
        self.turns[session, turn] = record

    def ask_interrupt(self, session: str, turn: str) -> None:
        """Leave an interrupt for whoever runs the turn."""
        self.interrupts.add((session, turn))

    # -- transcripts

    def append(self, session: str, entries: bytes, last: int) -> int:
        """Chained on the last append; returns the new sequence. Raises Conflict."""
        stored = self.transcripts.setdefault(session, [])
        after = [part for sequence, part in stored if sequence > last]
        if after[:1] == [entries]:
            return next(sequence for sequence, _ in stored if sequence > last)  # the answer was lost
        self._refuse_unless(not after, "log")
        self._log += 1
        stored.append((self._log, entries))
        return self._log

    def transcript(self, session: str) -> tuple[list[bytes], int]:
        """All appends, and the last sequence."""
        stored = self.transcripts.get(session, [])
        return [entries for _, entries in stored], stored[-1][0] if stored else 0

    def _refuse_unless(self, right: bool, subject: str) -> None:
        if not right:
            self.refused += 1
            raise Conflict(subject)
