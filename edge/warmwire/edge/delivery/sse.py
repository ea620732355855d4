"""Server-sent events as bytes. Pure. This module is on the path of every delta.

A frame is written in one piece and ends with its ``id:``, because some clients take the id over when they
read that line, before they hand out the event: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re

from warmwire.broker.reading.reader import Item
from warmwire.broker.wire.envelope import Cursor, Envelope
from warmwire.broker.wire.events import TurnQueued
from warmwire.producer.answer import event_of
from warmwire.producer.resume import NOWHERE

KEEP_ALIVE = b":\n"
"""A comment, without a blank line: some clients take an empty block for an event."""
DONE = b"data: [DONE]\n\n"
RETRY = b"retry: 1000\n\n"
"""Milliseconds that a browser waits before it connects again."""
LEAVING = (500, 3000)
"""The same when an edge leaves: some time between these, so that not all come back in one moment."""

_KNOWN_TYPES = 64
"""Event types whose first line is kept ready; there are about thirty."""
_PLAIN = re.compile(r"[\x21-\x7e]{1,64}\Z")

EXPIRED = (
    b"event: error\n"
    b'data: {"type":"error","code":"token_expired",'
    b'"message":"the token has expired: come back with a new one"}\n\n'
)
"""What a viewer is sent last when its token is good no longer; it keeps its cursor."""


def opening(turn: str) -> bytes:
    """What a viewer of a resumed turn is sent first. An id with empty data: a reconnect always has one."""
    return b"id: %b\n\n%b" % (str(Cursor(turn, 0, 0)).encode(), RETRY)


def watching(cursor: str) -> bytes:
    """What a viewer of a session is sent first."""
    return b"id: %b\n\n%b" % (cursor.encode(), RETRY)


def come_back(after_ms: int) -> bytes:
    """What a viewer is sent last, when the stream ends though there is more to come."""
    return b"retry: %d\n\n" % after_ms


def accepted(turn: str, session: str) -> bytes:
    """What a viewer of a new turn is sent first."""
    queued = TurnQueued(turn=turn, session_id=session)
    return opening(turn) + frame(queued.type, queued.encode(), str(Cursor(turn, 0, 0)))


NOTHING = b"id: %b\n\n" % str(NOWHERE).encode()
"""Ends a stream that had nothing to continue: who comes back with that id is told that it is done."""


def frame(type_: str, event: bytes, cursor: str) -> bytes:
    """One event."""
    return b"%b%b\nid: %b\n\n" % (_head(type_), on_one_line(event), cursor.encode())


def encode(item: Item, turn: str, _session: str) -> bytes:
    """An event as a viewer of ``/v1`` is sent it."""
    if not isinstance(item, Envelope):
        event = event_of(item, turn)
        return frame(event.type, event.raw, event.cursor or "")
    epoch, seq, turn_, _, type_, raw = item
    head = _heads.get(type_) or _head(type_)
    return b"%b%b\nid: %b.%d.%d\n\n" % (head, on_one_line(raw), turn_.encode(), epoch, seq)


def on_one_line(event: bytes) -> bytes:
    """Line ends would end the field. In JSON they stand between tokens only, where a space does as well."""
    if b"\n" in event or b"\r" in event:
        return event.replace(b"\r", b" ").replace(b"\n", b" ")
    return event


_heads: dict[str, bytes] = {}


def _head(type_: str) -> bytes:
    head = _heads.get(type_)
    if head is None:
        # A type that cannot stand on a line of its own goes without: the event says it itself.
        head = b"event: %b\ndata: " % type_.encode() if _PLAIN.match(type_) else b"data: "
        if len(_heads) < _KNOWN_TYPES:
            _heads[type_] = head
    return head
