"""The envelope around each event, and positions in a session's events.

On the wire: ``{"v":1,"epoch":…,"seq":…,"turn":"…","attempt":1,"event":{…}}``. ``event`` is what the CLI
printed, byte for byte: it is cut out and put in, never re-encoded. This module is on the path of every delta.
"""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

import msgspec

from warmwire.broker.errors import BadEnvelope, BadInput
from warmwire.broker.wire.events import TERMINAL
from warmwire.broker.wire.names import NAME, check_name

VERSION = 1
CURSOR_LIMIT = 128
"""Bytes in a cursor, at most: a longer Last-Event-ID makes browsers ask for permission first (CORS)."""

END = (1 << 63) - 1
"""A sequence after every event of an epoch: "whatever that owner published is in the past"."""

_ALIEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_CURSOR = re.compile(r"([A-Za-z0-9_-]{1,64})\.([0-9]{1,19})\.([0-9]{1,19})\Z")


class Position(NamedTuple):
    """A place in a session's events. Positions are ordered: by epoch, then by sequence."""

    epoch: int
    seq: int


class Cursor(NamedTuple):
    """A position together with the turn that was being read there; what SSE carries as ``id:``."""

    turn: str
    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.turn}.{self.epoch}.{self.seq}"

    @property
    def position(self) -> Position:
        """The position without the turn."""
        return Position(self.epoch, self.seq)

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what ``str`` wrote.

        Raises:
            BadInput: when it is not a cursor.
        """
        found = _CURSOR.match(text)
        if found is None:
            raise BadInput("cursor", "must be <turn>.<epoch>.<seq> as it was given out")
        cursor = cls(found[1], int(found[2]), int(found[3]))
        if max(cursor.position) > END:
            raise BadInput("cursor", f"has a number over {END}")
        return cursor


class Envelope(NamedTuple):
    """One event as published. ``event`` is its raw JSON, ``type`` the type inside it."""

    epoch: int
    seq: int
    turn: str
    attempt: int
    type: str
    event: bytes

    @property
    def position(self) -> Position:
        """Where the event stands in its session."""
        return Position(self.epoch, self.seq)

    @property
    def cursor(self) -> Cursor:
        """The cursor that resumes just after this event."""
        return Cursor(self.turn, self.epoch, self.seq)

    @property
    def terminal(self) -> bool:
        """Whether this event ends its turn."""
        return self.type in TERMINAL


_Count = Annotated[int, msgspec.Meta(ge=1, le=END)]


class _Wire(msgspec.Struct, gc=False):
    v: int
    epoch: _Count
    seq: _Count
    turn: str
    attempt: _Count
    event: msgspec.Raw


class _Typed(msgspec.Struct, gc=False):
    type: str


_wire = msgspec.json.Decoder(_Wire)
_typed = msgspec.json.Decoder(_Typed)


def decode(data: bytes) -> Envelope:
    """Read an envelope.

    Raises:
        BadEnvelope: not JSON, not an envelope, or of a version that we do not speak.
    """
    try:
        wire = _wire.decode(data)
        if not data.isascii():
            data.decode()  # what is skipped over is not checked by msgspec
    except _ALIEN as error:
        raise BadEnvelope(str(error)) from None
    if wire.v != VERSION:
        raise BadEnvelope(f"version {wire.v}, this is version {VERSION}")
    if not NAME.match(wire.turn):
        raise BadEnvelope("a turn id that is none")
    event = bytes(wire.event)
    whole = wire.epoch, wire.seq, wire.turn, wire.attempt, event_type(event), event
    return tuple.__new__(Envelope, whole)  # a third of what it takes by keywords


def event_type(event: bytes) -> str:
    """The ``type`` of an event.

    Raises:
        BadEnvelope: when the event has none.
    """
    try:
        return _typed.decode(event).type
    except _ALIEN as error:
        raise BadEnvelope(f"an event without a type: {error}") from None


class EnvelopeWriter:
    """Wraps the events of one attempt: everything but the sequence is prepared once."""

    __slots__ = ("_head", "_tail")

    def __init__(self, epoch: int, turn: str, attempt: int) -> None:
        self._head = b'{"v":%d,"epoch":%d,"seq":' % (VERSION, epoch)
        self._tail = b',"turn":"%s","attempt":%d,"event":' % (check_name("turn", turn).encode(), attempt)

    def wrap(self, seq: int, event: bytes) -> bytes:
        """The envelope's bytes."""
        return b"%b%d%b%b}" % (self._head, seq, self._tail, event)
