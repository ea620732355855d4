"""The routes without ``/v1``, as the guide's snippets expect them: text deltas alone, append-only. Pure.

``data:`` goes without ``event:``, so that ``onmessage`` gets it. An error has an ``event:`` line, so that
``onmessage``, which expects text, does not.
"""

from __future__ import annotations

import msgspec

from warmwire.broker.reading.reader import Item, Shown
from warmwire.broker.wire.envelope import Envelope
from warmwire.broker.wire.events import Snapshot, TurnFailed
from warmwire.edge.delivery.merge import is_text
from warmwire.edge.delivery.sse import on_one_line


class Text:
    """Whether text has begun to flow to a viewer, and what may still be said then."""

    def __init__(self) -> None:
        self.flows = False

    def takes(self, item: Item) -> bool:
        """Whether it takes back nothing of what was shown."""
        if isinstance(item, Envelope):
            if item.type == "turn_reset":
                return not self.flows
            self.flows = self.flows or is_text(item)
            return True
        return not self.flows

    def instead_of(self, item: Item) -> list[bytes]:
        """A snapshot for a viewer that has no text yet, as deltas."""
        if not isinstance(item, Shown):
            return []
        blocks = Snapshot.model_validate_json(item.event).blocks
        deltas = [_delta(block.index, block.text) for block in blocks if block.kind == "text" and block.text]
        self.flows = bool(deltas)
        return deltas


def encode(item: Item, _turn: str, _session: str) -> bytes:
    """A text delta; of everything else nothing."""
    if isinstance(item, Envelope) and is_text(item):
        return frame(on_one_line(item.event), str(item.cursor))
    return b""


def encode_json(item: Item, _turn: str, _session: str) -> bytes:
    """The same for ``/chat/ws``, where each delta is a frame of its own."""
    return item.event if isinstance(item, Envelope) and is_text(item) else b""


def done(cursor: str) -> bytes:
    """The end."""
    return b"data: [DONE]\nid: %b\n\n" % cursor.encode()


def failure(end: Envelope) -> bytes:
    """The turn failed: its terminal event."""
    return b"event: error\ndata: %b\nid: %b\n\n" % (on_one_line(end.event), str(end.cursor).encode())


def error(why: str, cursor: str) -> bytes:
    """The stream cannot go on."""
    event = msgspec.json.encode({"type": "error", "message": why})
    return b"event: error\ndata: %b\nid: %b\n\n" % (event, cursor.encode())


def code_of(end: Envelope) -> str:
    """Why the turn failed."""
    return TurnFailed.model_validate_json(end.event).code


def _delta(index: int, text: str) -> bytes:
    delta = {"type": "text_delta", "text": text}
    return msgspec.json.encode({"type": "content_block_delta", "index": index, "delta": delta})


def frame(event: bytes, cursor: str) -> bytes:
    """A delta, and the cursor just after it."""
    return b"data: %b\nid: %b\n\n" % (event, cursor.encode())
