"""Who asks, and what they may do. Pure: time and records are arguments.

A caller is known by a token or a ticket; with authentication off everybody is ``ANYBODY``. What a session's
record says of its user decides the rest: ``judge``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

from warmwire.broker.wire.messages import SessionRecord
from warmwire.broker.wire.names import DEFAULT_TENANT


class Scope(StrEnum):
    """What a token's ``scope`` may hold; what else stands there is ignored."""

    READ = "chat:read"
    WRITE = "chat:write"
    ADMIN = "sessions:admin"
    METRICS = "metrics:read"


class Need(Enum):
    """What a request is about to do with a session: the scopes that it takes, whether it may open one."""

    SEND = (Scope.WRITE,), True
    WATCH = (Scope.READ,), True
    CONVERSE = (Scope.WRITE, Scope.READ), True
    READ = (Scope.READ,), False
    CHANGE = (Scope.WRITE,), False

    def __init__(self, scopes: tuple[Scope, ...], opens: bool) -> None:
        self.scopes = scopes
        self.opens = opens


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Limits may be kept by ``tenant`` and ``subject``.

    ``sessions`` are names that may end in ``*``; None: any. ``only`` is the one session of a ticket.
    ``expires`` (Unix seconds) is when streams of this caller end; None: never.
    """

    tenant: str
    subject: str
    scopes: frozenset[Scope] = frozenset(Scope)
    sessions: tuple[str, ...] | None = None
    expires: float | None = None
    only: str | None = None
    ticket: str | None = field(default=None, repr=False)
    """The digest of the ticket, if it was one."""

    def lacks(self, scopes: Iterable[Scope]) -> Scope | None:
        """The first of these that the caller does not have."""
        return next((scope for scope in scopes if scope not in self.scopes), None)

    def covers(self, session: str) -> bool:
        """Whether the token, or ticket, is for that session at all."""
        if self.only not in (None, session):
            return False
        return self.sessions is None or any(_matches(pattern, session) for pattern in self.sessions)

    def names(self, session: str) -> bool:
        """Whether the token names that very session: who issued it lets its holder read it."""
        return self.sessions is not None and session in self.sessions


ANYBODY = Caller(DEFAULT_TENANT, "anybody")
"""Everybody, while authentication is off."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who is to be shown something, and how: ``rollup_ms`` in ms, ``guide`` for the guide's routes."""

    caller: Caller
    rollup_ms: int = 0
    guide: bool = False


class Verdict(Enum):
    """What is answered."""

    ALLOWED = auto()
    OPENS = auto()
    """Allowed if nothing else is known of the session; it is the caller's from then on."""
    KEEPS = auto()
    """Allowed; the caller's record, which was to be forgotten after a while, now stays."""
    FOREIGN = auto()
    UNKNOWN = auto()
    """It may be there or not: the answer is the same."""


def judge(caller: Caller, session: str, record: SessionRecord | None, need: Need) -> Verdict:
    """What a caller may do with a session, whose record may be absent. Its scopes are judged elsewhere."""
    reads = Scope.WRITE not in need.scopes
    if not caller.covers(session):
        return Verdict.FOREIGN
    if record is not None and record.user == caller.subject:
        return Verdict.ALLOWED if record.sent or reads or not need.opens else Verdict.KEEPS
    if Scope.ADMIN in caller.scopes and (record is not None or not need.opens):
        return Verdict.ALLOWED
    if reads and caller.names(session):
        return Verdict.ALLOWED  # never its user: it may come before that one
    if record is None and need.opens:
        return Verdict.OPENS
    return Verdict.FOREIGN if need.opens else Verdict.UNKNOWN


def _matches(pattern: str, session: str) -> bool:
    return session.startswith(pattern[:-1]) if pattern.endswith("*") else session == pattern
