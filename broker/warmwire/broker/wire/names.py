"""Names: tenants, sessions, turns, and the subjects that are built from them.

This is the one place where a subject is built. NATS accepts ``*`` and ``>`` in places where they would let
one client read everybody's text, so nothing unchecked may reach a subject.
Subject rules: https://docs.nats.io/nats-concepts/subjects
"""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from typing import Literal

from warmwire.broker.errors import BadInput

NAME_LIMIT = 64
"""Characters in a tenant, session or turn id, at most."""

DEFAULT_TENANT = "default"
"""The tenant of everybody while authentication is off."""

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
"""What ``match`` accepts may stand in a subject and in an SSE ``id``."""

_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,32}\Z")
_TURN_SPACE = uuid.UUID("7a1d5f0e-5b1c-5c58-9a44-3c1f0d6a7e21")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of record: ``word`` stands in its subjects, before the names of what it is ``of``."""

    word: str
    of: Literal["session", "turn", "ticket"]
    writers: tuple[str, ...]
    """Roles that may write it."""
    outlives_session: bool = False


RECORDS = (
    Kind("own", "session", writers=("worker",)),
    Kind("turn", "turn", writers=("worker",)),
    Kind("int", "turn", writers=("edge", "worker", "producer", "operator")),
    Kind("ses", "session", writers=("edge",), outlives_session=True),
    Kind("bnd", "session", writers=("worker",)),
    Kind("tkt", "ticket", writers=("edge",), outlives_session=True),
)
"""All kinds of records. A new one comes last: the stream of those that run is then extended by it."""

_OF_SESSIONS = {"req", "log", "evt", "ctl", "fwd", "see"} | {
    kind.word for kind in RECORDS if kind.of != "ticket"
}


def check_name(field: str, value: object) -> str:
    """Return ``value`` if it may stand in a subject.

    Raises:
        BadInput: naming ``field`` and the rule.
    """
    if isinstance(value, str) and NAME.match(value):
        return value
    raise BadInput(field, f"must be 1 to {NAME_LIMIT} characters of A-Z a-z 0-9 _ -")


def new_turn_id(now_ms: int) -> str:
    """A UUIDv7 (RFC 9562, section 5.7) from Unix time in ms: unique, and sorted by time."""
    random = int.from_bytes(os.urandom(10), "big")
    value = (
        (now_ms & (1 << 48) - 1) << 80
        | 0x7 << 76
        | (random >> 68 & 0xFFF) << 64
        | 0b10 << 62
        | random & (1 << 62) - 1
    )
    return str(uuid.UUID(int=value))


def turn_id_for(tenant: str, session: str, key: str) -> str:
    """The turn id of an ``Idempotency-Key``: the same key in the same session is the same turn."""
    return str(uuid.uuid5(_TURN_SPACE, f"{tenant}/{session}/{key}"))


def service_subjects(verb: str, name: str, service_id: str) -> tuple[str, str, str]:
    """Where NATS's service discovery asks all services, those of a name, and one."""
    every = f"$SRV.{verb}"
    of_name = f"{every}.{check_name('name', name)}"
    return every, of_name, f"{of_name}.{check_name('id', service_id)}"


@dataclass(frozen=True, slots=True)
class SessionKey:
    """A session's full name; checked on the way in."""

    tenant: str
    session: str

    def __post_init__(self) -> None:
        check_name("tenant", self.tenant)
        check_name("session_id", self.session)

    def __str__(self) -> str:
        return f"{self.tenant}.{self.session}"


@dataclass(frozen=True, slots=True)
class Subjects:
    """Every subject and stream name, from the prefix that an installation uses."""

    prefix: str = "ww"

    def __post_init__(self) -> None:
        if not _PREFIX.match(self.prefix):
            raise BadInput("prefix", "must be 1 to 32 characters of A-Z a-z 0-9 _ -")

    def requests(self, key: SessionKey) -> str:
        """User messages of a session, in the work queue."""
        return f"{self.prefix}.req.{key}"

    def tenant_requests(self, tenant: str) -> str:
        """User messages of all the tenant's sessions."""
        return f"{self.prefix}.req.{check_name('tenant', tenant)}.*"

    @property
    def all_requests(self) -> str:
        """Every user message."""
        return f"{self.prefix}.req.*.*"

    def owner(self, key: SessionKey) -> str:
        """Who owns the session; the record's stream sequence is the epoch."""
        return f"{self.prefix}.own.{key}"

    def turn(self, key: SessionKey, turn: str) -> str:
        """The turn's record."""
        return f"{self.prefix}.turn.{key}.{check_name('turn', turn)}"

    def turns(self, key: SessionKey) -> str:
        """Every turn record of the session."""
        return f"{self.prefix}.turn.{key}.*"

    def interrupt(self, key: SessionKey, turn: str) -> str:
        """An interrupt for a turn that nobody owns yet."""
        return f"{self.prefix}.int.{key}.{check_name('turn', turn)}"

    def record(self, word: str, key: SessionKey) -> str:
        """A session's record of that kind."""
        return f"{self.prefix}.{word}.{key}"

    def records_of(self, key: SessionKey) -> tuple[str, ...]:
        """Every record that goes with the session, at last who owns it."""
        return tuple(
            f"{self.prefix}.{kind.word}.{key}" + (".*" if kind.of == "turn" else "")
            for kind in reversed(RECORDS)
            if not kind.outlives_session
        )

    @property
    def all_records(self) -> tuple[str, ...]:
        """Every record of every kind."""
        names = {"session": "*.*", "turn": "*.*.*", "ticket": "*"}
        return tuple(f"{self.prefix}.{kind.word}.{names[kind.of]}" for kind in RECORDS)

    def about(self, key: SessionKey) -> str:
        """The session's own record: whose it is."""
        return f"{self.prefix}.ses.{key}"

    def ticket(self, digest: str) -> str:
        """What a ticket lets in; the ticket itself is nowhere, only its digest."""
        return f"{self.prefix}.tkt.{check_name('ticket', digest)}"

    def bound(self, key: SessionKey) -> str:
        """What the session is bound to from its first turn on: its profile, its system prompt."""
        return f"{self.prefix}.bnd.{key}"

    def transcript(self, key: SessionKey) -> str:
        """The CLI's transcript entries."""
        return f"{self.prefix}.log.{key}"

    @property
    def all_transcripts(self) -> str:
        """Every transcript."""
        return f"{self.prefix}.log.*.*"

    def tenant_transcripts(self, tenant: str) -> str:
        """Transcripts of all the tenant's sessions."""
        return f"{self.prefix}.log.{check_name('tenant', tenant)}.*"

    def events(self, key: SessionKey) -> str:
        """Every event; only the owner publishes."""
        return f"{self.prefix}.evt.{key}"

    def control(self, key: SessionKey) -> str:
        """Requests to the owner: interrupt, close, replay."""
        return f"{self.prefix}.ctl.{key}"

    def forwards(self, key: SessionKey) -> str:
        """User messages that another worker pulled, handed to the owner."""
        return f"{self.prefix}.fwd.{key}"

    def viewers(self, key: SessionKey) -> str:
        """Asked to learn who views the session; edges with viewers answer."""
        return f"{self.prefix}.see.{key}"

    @property
    def all_viewers(self) -> str:
        """What every edge listens to, to say who views there."""
        return f"{self.prefix}.see.*.*"

    def heartbeat(self, worker: str) -> str:
        """A worker's heartbeat."""
        return f"{self.prefix}.hb.{check_name('worker', worker)}"

    @property
    def heartbeats(self) -> str:
        """Every worker's heartbeat, to subscribe to."""
        return f"{self.prefix}.hb.*"

    def edge_heartbeat(self, edge: str) -> str:
        """An edge's heartbeat."""
        return f"{self.prefix}.edge.{check_name('edge', edge)}"

    @property
    def edge_heartbeats(self) -> str:
        """Every edge's heartbeat, to subscribe to."""
        return f"{self.prefix}.edge.*"

    def worker_control(self, worker: str) -> str:
        """Operators' requests to one worker."""
        return f"{self.prefix}.wrk.{check_name('worker', worker)}.ctl"

    @property
    def request_stream(self) -> str:
        """The work queue of user messages."""
        return f"{self.prefix.upper()}_REQ"

    @property
    def state_stream(self) -> str:
        """Records of every kind: the last value of each subject."""
        return f"{self.prefix.upper()}_STATE"

    @property
    def log_stream(self) -> str:
        """Transcripts."""
        return f"{self.prefix.upper()}_LOG"

    def session_of(self, subject: str) -> SessionKey:
        """The session that a subject of a session is about.

        Raises:
            BadInput: when the subject is not one of ours.
        """
        parts = subject.split(".")
        if len(parts) < 4 or parts[0] != self.prefix or parts[1] not in _OF_SESSIONS:
            raise BadInput("subject", f"{subject[:120]!r} names no session")
        return SessionKey(parts[2], parts[3])
