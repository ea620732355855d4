"""What travels besides events: user messages, records, requests to an owner, heartbeats.

All frozen, all versioned by ``v`` where they are stored, all tolerant of fields that a newer version adds.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from warmwire.broker.errors import BadInput

ContentBlock = dict[str, object]
"""A content block, as the Messages API has them; passed on as it is."""
Content = str | tuple[ContentBlock, ...]
"""A user message's content: text, or content blocks."""

CREDENTIAL_LIMIT = 16 * 1024
"""Characters of a sealed credential, at most."""

PermissionMode = Literal["default", "acceptEdits", "auto", "bypassPermissions", "dontAsk", "plan"]
"""What Claude Code knows; a profile says which of them a turn may ask for."""

THINKING_LIMIT = 128_000
"""Tokens of thinking that a turn may ask for, whatever its profile allows."""

OPTION_LIMIT = 200
"""Characters of a model's or a profile's name, at most."""

ANSWER_LIMIT = 64 * 1024
"""Characters of the input that an answer to a question may put in place of the CLI's."""
REASON_LIMIT = 1000
"""Characters of the reason why a tool is refused."""

RECORDED_TEXT_LIMIT = 256 * 1024
"""Bytes of answer text that a turn record keeps."""

RECORDED_QUESTION_LIMIT = 64 * 1024
"""Bytes of a user message's text that a turn record keeps, and that a list of messages shows."""


class Message(BaseModel):
    """Base of all that is stored or sent as JSON."""

    # Strings are not cached: no turn id comes often enough, and what people write is not to stay in memory.
    model_config = ConfigDict(frozen=True, extra="ignore", cache_strings="keys")

    def encode(self) -> bytes:
        """Compact JSON; absent values left out."""
        return self.model_dump_json(exclude_none=True).encode()


class TurnOptions(Message):
    """How one turn is to be run."""

    model: str | None = Field(default=None, max_length=OPTION_LIMIT)
    profile: str | None = Field(default=None, max_length=OPTION_LIMIT)
    system_prompt: str | None = None
    permission_mode: PermissionMode | None = None
    thinking_tokens: int | None = Field(default=None, ge=0, le=THINKING_LIMIT)
    on_worker_loss: Literal["retry", "fail"] = "retry"
    double_texting: Literal["enqueue", "interrupt", "reject"] = "enqueue"
    on_disconnect: Literal["continue", "cancel"] = "continue"


class Question(Message):
    """A user message as it is shown beside its answer: text of at most ``RECORDED_QUESTION_LIMIT`` bytes."""

    text: str
    truncated: bool = False


class UserMessage(Message):
    """One user message in the work queue; its session is its subject's."""

    v: Literal[1] = 1
    turn: str = Field(min_length=1, max_length=64)
    content: Content
    options: TurnOptions = TurnOptions()
    sent_ms: int
    credential: str | None = Field(default=None, max_length=CREDENTIAL_LIMIT)
    """The user's token, sealed: see ``sealed``. No part of the digest, as each sealing is another text."""
    viewed: bool | None = None
    """An edge has sent it for a viewer, and it is to stop when nobody views it any more."""

    @property
    def question(self) -> Question:
        """What people read of it: its text, the texts of its blocks one below the other; bounded."""
        text = self.content
        if not isinstance(text, str):
            texts = [block.get("text") for block in text if block.get("type") == "text"]
            text = "\n\n".join(each for each in texts if isinstance(each, str))
        whole = text.encode()
        kept = whole[:RECORDED_QUESTION_LIMIT]
        return Question(text=kept.decode(errors="ignore"), truncated=len(kept) < len(whole))

    @property
    def digest(self) -> str:
        """Names the body: the same ``Idempotency-Key`` with another digest is a mistake.

        Defaults are left out, so that an option added later changes no digest.
        """
        body = self.model_dump_json(include={"content", "options"}, exclude_defaults=True).encode()
        return hashlib.sha256(body).hexdigest()[:32]


class Addressed(Message):
    """As much of a user message as is needed to tell its sender that the rest was not understood."""

    turn: str = Field(min_length=1, max_length=64)
    sent_ms: int = 0


class OwnerRecord(Message):
    """Who owns a session. ``worker`` is absent once it was released.

    The nonce makes each claim's bytes its own: a worker whose acknowledgement was lost finds its claim by it.
    """

    v: Literal[1] = 1
    worker: str | None = None
    nonce: str


class BoundRecord(Message):
    """What a session is bound to from its first turn on, and what it has used.

    ``system_prompt`` is the one that was asked for. What is used is counted where the profile limits it.
    """

    v: Literal[1] = 1
    profile: str
    system_prompt: str | None = None
    tokens: int = 0
    usd: float = 0.0


class Started(Message):
    """A turn that was given to a CLI, for the ``attempt``-th time."""

    v: Literal[1] = 1
    state: Literal["started"] = "started"
    attempt: int
    epoch: int
    worker: str
    digest: str
    traceparent: str | None = None
    """The attempt as a span: the next one links to it. Absent where nobody traces."""


class Finished(Message):
    """A turn that has ended: its terminal envelope, byte for byte, its text, and what was asked.

    ``question`` is absent in records of versions that did not keep it.
    """

    v: Literal[1] = 1
    state: Literal["finished"] = "finished"
    attempt: int
    epoch: int
    digest: str
    envelope: str
    text: str
    truncated: bool = False
    question: Question | None = None


class SessionRecord(Message):
    """Whose session it is: who opened it, by the subject of a token. Nobody has one without authentication.

    ``sent``: with a message, not only by looking; the record stays then for as long as the session.
    """

    v: Literal[1] = 1
    user: str
    sent: bool = False


class TicketRecord(Message):
    """What a ticket lets in: one caller to one session, until ``expires`` (Unix seconds).

    ``opened`` names the stream that it has opened. ``caller_expires`` is when that stream ends.
    """

    v: Literal[1] = 1
    tenant: str
    subject: str
    scopes: tuple[str, ...]
    sessions: tuple[str, ...] | None = None
    session: str
    expires: float
    caller_expires: float | None = None
    opened: str | None = None


TurnRecord = Started | Finished
_turn_records: TypeAdapter[TurnRecord] = TypeAdapter(Annotated[TurnRecord, Field(discriminator="state")])


class Replay(Message):
    """Asks the owner for all that came after a position; without one, only where it stands.

    With ``turn`` and sequence 0: for that turn from its beginning.
    """

    op: Literal["replay"] = "replay"
    turn: str | None = None
    epoch: int | None = None
    seq: int | None = None


class Interrupt(Message):
    """Asks the owner to stop a turn; without a turn, the one that runs."""

    op: Literal["interrupt"] = "interrupt"
    turn: str | None = None


class Close(Message):
    """Asks the owner to stop the session's process and let it go."""

    op: Literal["close"] = "close"


class Release(Message):
    """Asks the owner to let the session go after the turn that runs, and not to take it again at once."""

    op: Literal["release"] = "release"


class Permission(Message):
    """Tells the owner the answer to a ``permission_requested`` event."""

    op: Literal["permission"] = "permission"
    request: str = Field(min_length=1, max_length=64)
    allow: bool
    turn: str | None = None
    """Answer only if it is this turn's."""
    input: str | None = Field(default=None, max_length=ANSWER_LIMIT)
    """What the tool gets instead of what the model has asked for: a JSON object, byte for byte."""
    reason: str | None = Field(default=None, max_length=REASON_LIMIT)
    """Why not; the model is told."""

    @field_validator("input")
    @classmethod
    def _is_an_object_in_one_line(cls, text: str | None) -> str | None:
        """A line that the CLI cannot read would be its end."""
        try:
            good = text is None or isinstance(json.loads(text, parse_constant=_no_json), dict)
        except (ValueError, RecursionError):
            good = False
        if not good or set("\r\n") & set(text or ""):
            raise ValueError("must be a JSON object in one line")
        return text

    @property
    def instead(self) -> bytes | None:
        """``input`` as bytes."""
        return None if self.input is None else self.input.encode()


def _no_json(constant: str) -> None:
    """What Python takes for a number besides: NaN, Infinity."""
    raise ValueError(constant)


Control = Replay | Interrupt | Close | Release | Permission
_controls: TypeAdapter[Control] = TypeAdapter(Annotated[Control, Field(discriminator="op")])


class OwnerView(Message):
    """The owner's answer to ``Replay``: where it stands, and what was asked for.

    ``events`` are envelopes in order, without a hole, from just after the asked position (if of an earlier
    epoch, from the first) up to ``(epoch, seq)``; absent when the owner does not have all of them.
    ``snapshot`` is an event, present when ``events`` is not and a turn is open.
    """

    epoch: int
    seq: int
    turn: str | None = None
    events: tuple[str, ...] | None = None
    snapshot: str | None = None


class InterruptReply(Message):
    """What an interrupt met. ``turn`` is the one that it stops."""

    turn: str | None = None


class PermissionReply(Message):
    """What an answer has met.

    ``taken``: the question was open, and has this answer now; ``closed``: it had been answered, was too late,
    or its turn is over; ``unknown``: this owner has not asked it, or not in that turn.
    """

    outcome: Literal["taken", "closed", "unknown"]


class Forward(Message):
    """A user message on its way from the worker that pulled it to the owner, who is to acknowledge it."""

    data: str
    headers: dict[str, str] = {}
    ack: str
    sequence: int
    deliveries: int


class ForwardReply(Message):
    """``mine``: the owner has taken the message and its acknowledgement upon itself."""

    mine: bool


class SlowTurn(Message):
    """A turn whose first delta took long; ``session`` with its tenant."""

    turn: str
    session: str
    ttft_ms: int


class Recently(Message):
    """Turns since the worker's start; ms to the first delta of the last ones: median, 95th, longest."""

    ended: int = 0
    failed: int = 0
    ttft_ms: tuple[int, ...] = ()
    slowest: tuple[SlowTurn, ...] = ()


class Tiers(Message):
    """A worker's CLI processes."""

    warm: int = 0
    frozen: int = 0
    spare: int = 0


class Drain(Message):
    """Asks a worker to leave in order, as SIGTERM does; it answers with its last heartbeat."""

    op: Literal["drain"] = "drain"


class Claim(Message):
    """Asks a worker to claim a session that nobody owns; ``session`` is with its tenant."""

    op: Literal["claim"] = "claim"
    tenant: str
    session: str


class Claimed(Message):
    """Whether the worker owns the session now."""

    mine: bool


class Heartbeat(Message):
    """A worker lives. ``free`` is how many more turns it could run now.

    ``sent`` is by the worker's own monotonic clock, in seconds: of use to nobody but itself.
    """

    worker: str
    version: str
    sent: float = 0.0
    free: int
    running: int
    sessions: int
    draining: bool = False
    recently: Recently | None = None
    tiers: Tiers | None = None
    """For operators: nothing is decided by these two."""


M = TypeVar("M", bound=Message)


WorkerControl = Drain | Claim
_worker_controls: TypeAdapter[WorkerControl] = TypeAdapter(
    Annotated[WorkerControl, Field(discriminator="op")]
)


def _bad_input(what: str, error: ValidationError) -> BadInput:
    """Names the field and the rule, and repeats nothing of the input: it may hold secrets."""
    first = error.errors(include_url=False, include_input=False)[0]
    fields = {field for model in Message.__subclasses__() for field in model.model_fields}
    where = [str(part) for part in first["loc"] if part in fields]  # a key of a mapping is input, too
    problem = "is of no known kind" if first["type"] == "union_tag_invalid" else first["msg"]
    return BadInput(".".join([what, *where]), problem)


def decode(model: type[M], data: bytes) -> M:
    """Read one message.

    Raises:
        BadInput: naming the field.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise _bad_input(model.__name__, error) from None


def decode_turn_record(data: bytes) -> TurnRecord:
    """Read a turn record. Raises BadInput."""
    try:
        return _turn_records.validate_json(data)
    except ValidationError as error:
        raise _bad_input("TurnRecord", error) from None


def decode_worker_control(data: bytes) -> WorkerControl:
    """Read a request to a worker. Raises BadInput."""
    try:
        return _worker_controls.validate_json(data)
    except ValidationError as error:
        raise _bad_input("WorkerControl", error) from None


def decode_control(data: bytes) -> Control:
    """Read a request to an owner. Raises BadInput."""
    try:
        return _controls.validate_json(data)
    except ValidationError as error:
        raise _bad_input("Control", error) from None
