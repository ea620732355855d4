"""A turn in its owner's hands, and the commands that move it on, from ``session`` to ``host``. Pure."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from enum import Enum, auto

import msgspec

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.envelope import EnvelopeWriter
from warmwire.broker.wire.events import TurnEnd
from warmwire.broker.wire.messages import (
    Addressed,
    BoundRecord,
    Question,
    Started,
    TurnRecord,
    UserMessage,
    decode,
)
from warmwire.worker.budget import Breach, Meter
from warmwire.worker.errors import ErrorCode
from warmwire.worker.profiles import Profiles, Setup
from warmwire.worker.sessions.patience import Step, next_step
from warmwire.worker.sessions.permissions import ANSWER_WITHIN
from warmwire.worker.sessions.turnlog import TurnLog

ATTEMPTS = 3
"""Times that a turn is tried."""
DELIVERIES = 20
"""Times that a message may be delivered before it is given up as poison."""

_UUIDS = uuid.UUID("d5f3f2a4-6c0e-5f7e-8b7a-0d2f6a1c9e11")


class Stage(Enum):
    """Where the session's current turn stands."""

    IDLE = auto()
    CHECKING = auto()
    STARTING = auto()
    RUNNING = auto()
    ENDING = auto()


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every session of a worker; seconds."""

    stall_timeout: float
    answer_within: float = ANSWER_WITHIN
    profiles: Profiles = field(default_factory=Profiles)


@dataclass(frozen=True, slots=True)
class Held:
    """A user message that this worker answers for: it keeps it from being redelivered, and acks it."""

    message: UserMessage
    sequence: int
    ack: str
    deliveries: int
    traceparent: str | None = None
    unreadable: str = ""
    """Why ``message`` is a stand-in that has only the turn's id; empty where it could be read."""

    @classmethod
    def read(cls, data: bytes, sequence: int, ack: str, deliveries: int, traceparent: str | None) -> Held:
        """From the queue. What is of another version is held, too: its sender waits for an end.

        Raises:
            BadInput: not even the turn can be read.
        """
        try:
            return cls(decode(UserMessage, data), sequence, ack, deliveries, traceparent)
        except BadInput as error:
            known = decode(Addressed, data)
            stand_in = UserMessage(turn=known.turn, content="", sent_ms=known.sent_ms)
            return cls(stand_in, sequence, ack, deliveries, traceparent, str(error))

    @property
    def digest(self) -> str:
        """Of the message, for its record; empty where it could not be read."""
        return "" if self.unreadable else self.message.digest

    @property
    def question(self) -> Question | None:
        """What was asked, as far as it could be read."""
        return None if self.unreadable else self.message.question

    def newest(self, other: Held | None) -> Held:
        """The later delivery of the two; deliveries may overtake each other on their way here."""
        return self if other is None or other.deliveries <= self.deliveries else other


@dataclass(frozen=True, slots=True)
class FindHead:
    """Which message is the head of the session's queue? Answer with ``head``.

    What stands up to ``after`` is acknowledged; the server may still have it for a moment.
    """

    after: int = 0


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """What is known about the turn? Answer with ``record``."""

    turn: str


@dataclass(frozen=True, slots=True)
class PutRecord:
    """Store the turn's record, fenced. Answer with ``stored``.

    ``bound``: before that, what its session is bound to and has used.
    """

    turn: str
    record: TurnRecord
    bound: BoundRecord | None = None


@dataclass(frozen=True, slots=True)
class KeepInterrupt:
    """Store that the turn is to be interrupted, so that it is whoever has the session next. Not answered."""

    turn: str


@dataclass(frozen=True, slots=True)
class AppendTranscript:
    """Store new transcript entries, all or none. Answer with ``appended``."""

    entries: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class NeedCli:
    """See to it that a CLI process with the conversation so far is there. Answer with ``cli_ready``."""

    setup: Setup
    credential: str | None = None


@dataclass(frozen=True, slots=True)
class Give:
    """Write a line to the CLI."""

    line: bytes


@dataclass(frozen=True, slots=True)
class SignalCli:
    """Interrupt the CLI by a signal: it has no line for that."""


@dataclass(frozen=True, slots=True)
class TerminateCli:
    """Ask the CLI process to end, by SIGTERM; its exit is reported."""


@dataclass(frozen=True, slots=True)
class KillCli:
    """End the CLI process now; its exit is not reported."""


class Publish(msgspec.Struct, frozen=True):
    """Send an event. There is one for each delta, and a dataclass would take four times as long to make."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """Acknowledge the message: its turn has ended. Answer with ``acked``."""

    held: Held


@dataclass(frozen=True, slots=True)
class Ended:
    """A turn has ended; for those who count."""

    held: Held
    end: TurnEnd


Command = (
    FindHead
    | ReadRecord
    | PutRecord
    | KeepInterrupt
    | AppendTranscript
    | NeedCli
    | Give
    | SignalCli
    | TerminateCli
    | KillCli
    | Publish
    | Ack
    | Ended
)


@dataclass(slots=True)
class Turn:
    """The turn at hand. Times are monotonic seconds.

    First ``record_stored`` and ``cli_ready``, then ``given``. ``end`` is how it ends, ``finishing`` says that
    the record of it is being stored, ``over`` that everybody has been told.
    """

    held: Held
    attempt: int
    begun: float
    log: TurnLog
    writer: EnvelopeWriter
    record_stored: bool = False
    cli_ready: bool = False
    given: bool = False
    interrupted_at: float | None = None
    terminated: bool = False
    first_delta: float | None = None
    messages: int = 0
    message_open: bool = False
    streamed: set[str] = field(default_factory=set)
    mirrored: list[bytes] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)
    breach: Breach | None = None  # of a limit, for which it is being stopped
    end: TurnEnd | None = None
    finishing: bool = False
    over: bool = False

    @property
    def id(self) -> str:
        """The turn id."""
        return self.held.message.turn

    @property
    def visible(self) -> bool:
        """Whether viewers have heard of it and not yet of its end."""
        return self.log.last >= self.log.begun and not self.over

    def next_step(self, now: float, stall_timeout: float) -> Step:
        """What is next for a CLI that was interrupted; SIGTERM is next once."""
        waited = now - (now if self.interrupted_at is None else self.interrupted_at)
        step = next_step(waited, stall_timeout, terminated=self.terminated)
        self.terminated = self.terminated or step is Step.TERMINATE
        return step

    @property
    def cli_uuid(self) -> str:
        """The message's id in the CLI: the same for the same attempt, so that the CLI drops a repetition."""
        return str(uuid.uuid5(_UUIDS, f"{self.id}/{self.attempt}"))


def not_again(held: Held, found: Started | None) -> Breach | None:
    """Why a turn is not (or no longer) run; ``found`` is the record of its last attempt."""
    if held.unreadable:
        return Breach(ErrorCode.UNREADABLE_MESSAGE, held.unreadable)
    if found is not None and found.digest != held.message.digest:
        return Breach(ErrorCode.INVALID_REQUEST, "Its Idempotency-Key belongs to another message.")
    if (found is not None and found.attempt >= ATTEMPTS) or held.deliveries > DELIVERIES:
        return Breach(ErrorCode.TOO_MANY_ATTEMPTS, "")
    if found is not None and held.message.options.on_worker_loss == "fail":
        return Breach(ErrorCode.WORKER_LOST, "")
    return None
