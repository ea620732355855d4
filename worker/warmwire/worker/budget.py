"""What a turn may use, and what it has used so far: limits of a profile, and a meter for one turn. Pure.

Tokens are those that the API reports: input, output, written to and read from the cache. How long an answer
is, the API says at its end; while it is streamed each delta counts as one token, which is never too many.
Dollars are what the CLI reckons; it is asked whenever the turn is about to take another step.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from warmwire.broker.wire.events import Usage
from warmwire.worker.cli import said
from warmwire.worker.errors import ErrorCode

_DOLLARS = re.compile(r"cost:\s+\$([0-9.]+)")


class Limits(BaseModel):
    """Of one turn and of a whole session. None: no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    turn_steps: int | None = Field(default=None, ge=1)
    """Messages of the model in one turn: each use of tools leads to another."""
    turn_seconds: float | None = Field(default=None, gt=0)
    turn_tokens: int | None = Field(default=None, ge=1)
    turn_usd: float | None = Field(default=None, gt=0)
    session_tokens: int | None = Field(default=None, ge=1)
    session_usd: float | None = Field(default=None, gt=0)

    @property
    def counts_session(self) -> bool:
        """Whether it has to be remembered what a session has used."""
        return self.session_tokens is not None or self.session_usd is not None

    @property
    def counts_usd(self) -> bool:
        """Whether the CLI has to be asked what a turn costs."""
        return self.turn_usd is not None or self.session_usd is not None


@dataclass(frozen=True, slots=True)
class Spent:
    """What a session has used before the turn."""

    tokens: int = 0
    usd: float = 0.0


NO_LIMITS = Limits()
NOTHING = Spent()


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit was reached; ``detail`` names it."""

    code: ErrorCode
    detail: str


def used_up(limits: Limits, spent: Spent) -> Breach | None:
    """Whether a session may begin no further turn."""
    if limits.session_tokens is not None and spent.tokens >= limits.session_tokens:
        return Breach(
            ErrorCode.BUDGET_EXCEEDED, f"session_tokens: {spent.tokens} of {limits.session_tokens} are used."
        )
    if limits.session_usd is not None and spent.usd >= limits.session_usd:
        return Breach(
            ErrorCode.BUDGET_EXCEEDED, f"session_usd: {spent.usd:.4f} of {limits.session_usd} are used."
        )
    return None


class _Message(msgspec.Struct, frozen=True):
    usage: said.Usage = said.Usage()


class _Event(msgspec.Struct, frozen=True):
    """The fields of a ``message_start`` and a ``message_delta`` that are used here."""

    message: _Message = _Message()
    usage: said.Usage = said.Usage()


_EVENTS = msgspec.json.Decoder(_Event)


class Meter:
    """Of one turn. ``breach`` is the first limit that it has reached."""

    __slots__ = (
        "_limits",
        "_most",
        "_open",
        "_read",
        "_spent",
        "_steps",
        "_usd",
        "_usd_before",
        "_written",
        "breach",
        "counts_usd",
    )

    def __init__(self, limits: Limits = NO_LIMITS, spent: Spent = NOTHING) -> None:
        self.breach: Breach | None = None
        self.counts_usd = limits.counts_usd
        self._limits = limits
        self._spent = spent
        self._read = said.Usage()
        self._written = 0  # by messages that are whole
        self._open = 0  # by the message that is being streamed
        self._steps = 0
        self._usd_before: float | None = None
        self._usd = 0.0
        self._most = _least(limits.turn_tokens, limits.session_tokens, spent.tokens)

    @property
    def tokens(self) -> int:
        """All tokens of the turn so far."""
        read = self._read
        cached = read.cache_creation_input_tokens + read.cache_read_input_tokens
        return read.input_tokens + cached + self._written + self._open

    @property
    def usage(self) -> Usage:
        """What is known of a turn whose CLI does not say it any more."""
        read = self._read
        return Usage(
            input_tokens=read.input_tokens,
            output_tokens=self._written + self._open,
            cache_read_input_tokens=read.cache_read_input_tokens,
            cache_creation_input_tokens=read.cache_creation_input_tokens,
            cost_usd=self._usd or None,
        )

    def hear(self, line: said.StreamEvent) -> None:
        """An event of the stream, of the turn itself or of a sub-agent."""
        if line.type == "content_block_delta":
            self._open += line.parent_tool_use_id is None
        elif line.type == "message_start":
            self._begin(line)
        elif line.type == "message_delta":
            self._end(line)
        else:
            return
        if self._most is not None and self.breach is None and self.tokens > self._most:
            self.breach = self._too_many_tokens()

    def retried(self) -> None:
        """The message that was being streamed is void, and comes again: what it has cost is not known."""
        self._steps -= 1

    def cost(self, text: str) -> None:
        """What the CLI says that its process has cost; the first answer is from before the turn."""
        found = _DOLLARS.search(text)
        if found is None:
            return
        if self._usd_before is None:
            self._usd_before = float(found[1])
        self._usd = float(found[1]) - self._usd_before
        limits = self._limits
        if self.breach is None and limits.turn_usd is not None and self._usd > limits.turn_usd:
            self._exceeded(f"turn_usd: {self._usd:.4f} of {limits.turn_usd} are used.")
        total = self._spent.usd + self._usd
        if self.breach is None and limits.session_usd is not None and total > limits.session_usd:
            self._exceeded(f"session_usd: {total:.4f} of {limits.session_usd} are used.")

    def passed(self, seconds: float) -> None:
        """Since the turn began."""
        most = self._limits.turn_seconds
        if self.breach is None and most is not None and seconds > most:
            self.breach = Breach(ErrorCode.TIME_LIMIT, f"turn_seconds: {most:g} have passed.")

    def spent(self, usage: Usage) -> Spent:
        """What the session has used with the turn, whose end says this."""
        told = usage.input_tokens + usage.output_tokens
        told += usage.cache_read_input_tokens + usage.cache_creation_input_tokens
        usd = max(usage.cost_usd or 0.0, self._usd)
        return Spent(self._spent.tokens + max(told, self.tokens), self._spent.usd + usd)

    def _begin(self, line: said.StreamEvent) -> None:
        read, more = self._read, _decoded(line).message.usage
        self._read = said.Usage(
            input_tokens=read.input_tokens + more.input_tokens,
            cache_creation_input_tokens=read.cache_creation_input_tokens + more.cache_creation_input_tokens,
            cache_read_input_tokens=read.cache_read_input_tokens + more.cache_read_input_tokens,
        )
        if line.parent_tool_use_id is not None:
            return
        self._written, self._open = self._written + self._open, 0
        self._steps += 1
        most = self._limits.turn_steps
        if self.breach is None and most is not None and self._steps > most:
            self.breach = Breach(ErrorCode.MAX_TURNS, f"turn_steps: it may have {most}.")

    def _end(self, line: said.StreamEvent) -> None:
        """Its count is that of the whole message."""
        written = _decoded(line).usage.output_tokens
        if line.parent_tool_use_id is not None:
            self._written += written
        else:
            self._written, self._open = self._written + max(written, self._open), 0

    def _too_many_tokens(self) -> Breach:
        limits, total = self._limits, self._spent.tokens + self.tokens
        if limits.turn_tokens is not None and self.tokens > limits.turn_tokens:
            detail = f"turn_tokens: {self.tokens} of {limits.turn_tokens} are used."
        else:
            detail = f"session_tokens: {total} of {limits.session_tokens} are used."
        return Breach(ErrorCode.BUDGET_EXCEEDED, detail)

    def _exceeded(self, detail: str) -> None:
        self.breach = Breach(ErrorCode.BUDGET_EXCEEDED, detail)


def _least(of_turn: int | None, of_session: int | None, spent: int) -> int | None:
    left = None if of_session is None else max(0, of_session - spent)
    known = [most for most in (of_turn, left) if most is not None]
    return min(known, default=None)


def _decoded(line: said.StreamEvent) -> _Event:
    try:
        return _EVENTS.decode(line.event)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Event()  # of a shape that we do not know: it tells no usage
