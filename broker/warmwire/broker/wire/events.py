"""The events that are ours, beside those that the CLI streams. Their names never change meaning.

Everything else on an event subject is an Anthropic streaming event as the CLI gave it:
https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

TERMINAL = frozenset({"turn_completed", "turn_interrupted", "turn_failed"})
"""Exactly one of these ends each accepted turn."""


class Event(BaseModel):
    """What all our events share: the turn that they are about."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    turn: str

    def encode(self) -> bytes:
        """Compact JSON with ``type`` first, absent values left out."""
        fields = self.model_dump_json(exclude_none=True, exclude={"type"}).encode()
        return b'{"type":"%b",%b' % (str(type(self).model_fields["type"].default).encode(), fields[1:])


class TurnQueued(Event):
    """Accepted: it will be answered. Made by the edge or the producer library; it has no cursor."""

    type: Literal["turn_queued"] = "turn_queued"
    session_id: str


class TurnStarted(Event):
    """Given to the CLI."""

    type: Literal["turn_started"] = "turn_started"
    session_id: str
    attempt: int
    worker: str
    model: str | None = None
    traceparent: str | None = None


class TurnReset(Event):
    """Work is repeated: forget this turn's text from its ``message``-th message on (0: all of it)."""

    type: Literal["turn_reset"] = "turn_reset"
    attempt: int
    reason: str
    message: int = 0


class ToolStarted(Event):
    """The CLI uses a tool."""

    type: Literal["tool_started"] = "tool_started"
    name: str
    id: str
    summary: str


class ToolFinished(Event):
    """The tool came back."""

    type: Literal["tool_finished"] = "tool_finished"
    id: str
    is_error: bool
    summary: str


class PermissionRequested(Event):
    """The CLI asks whether it may use a tool, and waits; without an answer ``within_ms`` it may not.

    ``input`` is what the tool would get, unless that is large.
    """

    type: Literal["permission_requested"] = "permission_requested"
    request: str
    tool: str
    summary: str
    input: dict[str, object] | None = None
    within_ms: int


class PermissionResolved(Event):
    """A question is open no longer: answered, overdue (which is no), or taken back by the CLI."""

    type: Literal["permission_resolved"] = "permission_resolved"
    request: str
    outcome: Literal["allowed", "denied", "overdue", "withdrawn"]


class TurnProgress(Event):
    """Nothing else happened for a while, but the CLI is alive."""

    type: Literal["turn_progress"] = "turn_progress"
    elapsed_ms: int
    doing: str


class Usage(BaseModel):
    """What a turn used, in tokens; cost in US dollars as the CLI reckons it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cost_usd: float | None = None


class TurnEnd(Event):
    """What the three endings share. Durations in ms; ``traceparent`` as in ``turn_started``."""

    type: Literal["turn_completed", "turn_interrupted", "turn_failed"]
    attempt: int
    usage: Usage = Usage()
    duration_ms: int
    ttft_ms: int | None = None
    traceparent: str | None = None


class TurnCompleted(TurnEnd):
    """The answer is complete."""

    type: Literal["turn_completed"] = "turn_completed"
    stop_reason: str | None = None


class TurnInterrupted(TurnEnd):
    """Somebody stopped it; the text so far stands."""

    type: Literal["turn_interrupted"] = "turn_interrupted"


class TurnFailed(TurnEnd):
    """There will be no (complete) answer. ``code`` is listed in docs/reference/errors.md."""

    type: Literal["turn_failed"] = "turn_failed"
    code: str
    message: str
    retryable: bool


End = TurnCompleted | TurnInterrupted | TurnFailed
_ends: TypeAdapter[End] = TypeAdapter(Annotated[End, Field(discriminator="type")])


def end_of(event: bytes) -> End:
    """Read a terminal event. Raises ValidationError."""
    return _ends.validate_json(event)


class Block(BaseModel):
    """The text so far of one content block, named by message number in the turn and index."""

    model_config = ConfigDict(frozen=True)

    message: int
    index: int
    kind: str
    text: str


class Snapshot(Event):
    """The turn's text so far, for a viewer that comes late or missed something; and its open questions."""

    type: Literal["snapshot"] = "snapshot"
    attempt: int
    blocks: tuple[Block, ...]
    truncated: bool = False
    questions: tuple[PermissionRequested, ...] | None = None


class Gap(Event):
    """What lies between two positions is gone; a snapshot follows where there is one."""

    type: Literal["gap"] = "gap"
    after: str
    until: str
