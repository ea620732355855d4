"""Server-sent events as bytes. Pure. This module is on the path of every delta.

A frame is written in one piece and ends with its ``id:``, because some clients take the id over when they
read that line, before they hand out the event: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re

from warmwire.broker.envelope import Cursor, Envelope
from warmwire.broker.events import TurnQueued
from warmwire.broker.reader import Item
from warmwire.producer.answer import event_of
from warmwire.producer.resume import NOWHERE

KEEP_ALIVE = b":\n"
"""A comment, without a blank line: some clients take an empty block for an event."""
DONE = b"data: [DONE]\n\n"
RETRY = b"retry: 1000\n\n"
"""Milliseconds that a browser waits before it connects again."""

_KNOWN_TYPES = 64
"""Event types whose first line is kept ready; there are about thirty."""
_PLAIN = re.compile(r"[\x21-\x7e]{1,64}\Z")


def opening(turn: str) -> bytes:
    """What a viewer of a resumed turn is sent first. An id with empty data: a reconnect always has one."""
    return b"id: %b\n\n%b" % (str(Cursor(turn, 0, 0)).encode(), RETRY)


def accepted(turn: str, session: str) -> bytes:
    """What a viewer of a new turn is sent first."""
    queued = TurnQueued(turn=turn, session_id=session)
    return opening(turn) + frame(queued.type, queued.encode(), str(Cursor(turn, 0, 0)))


NOTHING = b"id: %b\n\n" % str(NOWHERE).encode()
"""Ends a stream that had nothing to continue: who comes back with that id is told that it is done."""


def frame(type_: str, event: bytes, cursor: str) -> bytes:
    """One event."""
    return b"%b%b\nid: %b\n\n" % (_head(type_), _on_one_line(event), cursor.encode())


class Encoder:
    """Encodes what a feed tells its listeners: each item once, however many viewers it has.

    A feed tells one item to all its listeners before the next, so remembering the last one is enough.
    """

    __slots__ = ("_frame", "_item", "_turn")

    def __init__(self) -> None:
        self._item: Item | None = None
        self._turn = ""
        self._frame = b""

    def frame(self, item: Item, turn: str) -> bytes:
        """The item as a follower of ``turn`` is sent it."""
        if item is not self._item or turn != self._turn:
            self._item, self._turn = item, turn
            self._frame = _encode(item, turn)
        return self._frame


def _encode(item: Item, turn: str) -> bytes:
    if not isinstance(item, Envelope):
        event = event_of(item, turn)
        return frame(event.type, event.raw, event.cursor or "")
    epoch, seq, turn_, _, type_, raw = item
    return b"%b%b\nid: %b.%d.%d\n\n" % (_head(type_), _on_one_line(raw), turn_.encode(), epoch, seq)


def _on_one_line(event: bytes) -> bytes:
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
