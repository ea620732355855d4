"""What the CLI asks leave for, until somebody answers or the time is up. Pure.

The CLI waits for the answer, for ever if need be; at the deadline it is no. A question has a name of ours
that no other question of the session has had or will have, whoever owns it: an answer that comes late, or
after the session has moved, meets no other question.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from warmwire.broker.wire.events import Event, PermissionRequested, PermissionResolved
from warmwire.worker.cli import said
from warmwire.worker.cli.dialect import Dialect
from warmwire.worker.sessions.deltas import summary

ANSWER_WITHIN = 60.0
"""Seconds that people have for an answer, unless the worker is told otherwise."""
OPEN_LIMIT = 16
"""Questions of a session that may be open; more are refused at once."""
CLOSED_KEPT = 64
"""Questions that are remembered once they are open no longer."""
SHOWN_INPUT = 16 * 1024
"""Bytes of a tool's input that viewers are shown whole; of a larger one only the summary."""
REFUSED = "The user has not allowed this."
TOO_LATE = "Nobody has allowed this in time."
TOO_MANY = "Too many questions are open."

Outcome = Literal["taken", "closed", "unknown"]


@dataclass(frozen=True, slots=True)
class _Asked:
    event: PermissionRequested
    request: str  # its name in the CLI
    wish: said.Wish
    until: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a person. ``input``: what the tool gets instead, a JSON object; ``reason``: why not."""

    allow: bool
    input: bytes | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What comes of it: lines for the CLI and events for viewers."""

    lines: Sequence[bytes] = ()
    events: Sequence[Event] = ()


class Permissions:
    """The questions of one session, of one turn at a time. ``epoch`` is that of the ownership."""

    def __init__(self, epoch: int, dialect: Dialect, within: float = ANSWER_WITHIN) -> None:
        self._epoch = epoch
        self._dialect = dialect
        self._within = within
        self._asked = 0
        self._open: dict[str, _Asked] = {}
        self._closed: deque[str] = deque(maxlen=CLOSED_KEPT)

    @property
    def waiting(self) -> bool:
        """Whether a question is open: the CLI has reason to be silent."""
        return bool(self._open)

    def hear(self, turn: str, line: said.ControlRequest | said.Withdrawn, now: float) -> Said:
        """The CLI asks, or asks no longer."""
        if isinstance(line, said.Withdrawn):
            return self._withdraw(line.request_id)
        return self._ask(turn, line, now)

    def _ask(self, turn: str, request: said.ControlRequest, now: float) -> Said:
        wish = self._dialect.wish(request)
        if wish is None:
            return Said(_told(self._dialect.refuse_line(request.request_id, "not available here")))
        if len(self._open) >= OPEN_LIMIT:
            return Said(_told(self._dialect.deny_line(request.request_id, TOO_MANY)))
        self._asked += 1
        name = f"{self._epoch}-{self._asked}"
        question = PermissionRequested(
            turn=turn,
            request=name,
            tool=wish.tool,
            summary=summary(wish.input),
            input=wish.shown() if len(wish.input) <= SHOWN_INPUT else None,
            within_ms=round(self._within * 1000),
        )
        self._open[name] = _Asked(question, request.request_id, wish, now + self._within)
        return Said(events=[question])

    def open(self, now: float) -> tuple[PermissionRequested, ...] | None:
        """The questions that wait, with the time that is left; None if there are none."""
        return (
            tuple(
                asked.event.model_copy(update={"within_ms": max(0, round((asked.until - now) * 1000))})
                for asked in self._open.values()
            )
            or None
        )

    def answer(self, name: str, answer: Answer, turn: str | None = None) -> tuple[Outcome, Said]:
        """Somebody answers; ``turn``: only if it is that one's."""
        asked = self._open.get(name)
        if asked is None:
            return ("closed" if name in self._closed else "unknown"), Said()
        if turn is not None and turn != asked.event.turn:
            return "unknown", Said()
        if answer.allow:
            line = self._dialect.allow_line(asked.request, asked.wish, answer.input)
        else:
            line = self._dialect.deny_line(asked.request, answer.reason or REFUSED)
        return "taken", Said(_told(line), [self._close(name, "allowed" if answer.allow else "denied")])

    def overdue(self, now: float) -> Said:
        """Those that nobody has answered in time."""
        late = [(name, asked.request) for name, asked in self._open.items() if now >= asked.until]
        lines = [self._dialect.deny_line(request, TOO_LATE) for _, request in late]
        return Said(_told(*lines), [self._close(name, "overdue") for name, _ in late])

    def _withdraw(self, request: str) -> Said:
        names = [name for name, asked in self._open.items() if asked.request == request]
        return Said(events=[self._close(name, "withdrawn") for name in names])

    def over(self) -> None:
        """With the turn its questions are over."""
        self._closed.extend(self._open)
        self._open.clear()

    def _close(
        self, name: str, outcome: Literal["allowed", "denied", "overdue", "withdrawn"]
    ) -> PermissionResolved:
        asked = self._open.pop(name)
        self._closed.append(name)
        return PermissionResolved(turn=asked.event.turn, request=name, outcome=outcome)


def _told(*lines: bytes | None) -> list[bytes]:
    return [line for line in lines if line is not None]
