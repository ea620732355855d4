"""Made-up values for the tests of this folder."""

from __future__ import annotations

import json

from warmwire.broker.reading.reader import Ending, View
from warmwire.broker.wire import envelope as codec
from warmwire.broker.wire.envelope import Envelope, EnvelopeWriter, Position
from warmwire.broker.wire.events import TurnCompleted, TurnStarted
from warmwire.broker.wire.messages import Finished


def wrapped(epoch: int, seq: int, event: bytes, turn: str = "t1") -> bytes:
    """An event's envelope as it travels."""
    return EnvelopeWriter(epoch, turn, 1).wrap(seq, event)


def delta(epoch: int, seq: int, turn: str = "t1") -> Envelope:
    """An event that adds text; its text is its position."""
    body = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": f"{epoch}.{seq} "},
    }
    return codec.decode(wrapped(epoch, seq, json.dumps(body, separators=(",", ":")).encode(), turn))


def started(epoch: int, seq: int, turn: str = "t1") -> Envelope:
    """An event that begins a turn."""
    event = TurnStarted(turn=turn, session_id="s", attempt=1, worker="w").encode()
    return codec.decode(wrapped(epoch, seq, event, turn))


def ended(epoch: int, seq: int, turn: str = "t1") -> Envelope:
    """A terminal event."""
    event = TurnCompleted(turn=turn, attempt=1, duration_ms=1).encode()
    return codec.decode(wrapped(epoch, seq, event, turn))


def travelling(envelope: Envelope) -> bytes:
    """An envelope as it travels."""
    return wrapped(envelope.epoch, envelope.seq, envelope.event, envelope.turn)


def ending(epoch: int, seq: int, turn: str = "t1") -> Ending:
    """How a turn ended, from its record."""
    return Ending(ended(epoch, seq, turn), b'{"type":"snapshot"}')


def finished(terminal: Envelope, text: str = "whole text") -> Finished:
    """The record of a turn that has ended."""
    return Finished(
        attempt=1, epoch=terminal.epoch, digest="d", envelope=travelling(terminal).decode(), text=text
    )


def view(epoch: int, seq: int, turn: str | None = None, events: tuple[Envelope, ...] | None = None) -> View:
    """An owner's answer, with a snapshot where the real one would have one."""
    snapshot = b'{"type":"snapshot"}' if events is None and turn else None
    return View(Position(epoch, seq), turn, events, snapshot)
