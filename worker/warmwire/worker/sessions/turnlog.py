"""What an owner has published, in its memory: the log that readers are repaired from. Pure.

A delta costs an append. Text is put together only when somebody asks for it, or when old events make room.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from itertools import islice

import msgspec

from warmwire.broker.wire.envelope import Position
from warmwire.broker.wire.events import Block, Snapshot
from warmwire.broker.wire.messages import RECORDED_TEXT_LIMIT, Replay

EVENTS_LIMIT = 256 * 1024
"""Bytes of events kept of the turn at hand; older ones live on as text only."""
ENDED_LIMIT = 8 * 1024
"""Bytes of events kept of a turn that has ended, for readers that missed its end. Its record has the text."""


class _Content(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""
    thinking: str = ""


class _Event(msgspec.Struct, gc=False):
    """The fields of an event that make up text."""

    type: str
    index: int = 0
    content_block: _Content | None = None
    delta: _Content | None = None


class _Reset(msgspec.Struct, gc=False):
    message: int


class _Enveloped(msgspec.Struct, gc=False):
    event: msgspec.Raw


_events = msgspec.json.Decoder(_Event)
_resets = msgspec.json.Decoder(_Reset)
_envelopes = msgspec.json.Decoder(_Enveloped)


class TurnLog:
    """What a turn has published: ``first`` is the sequence of the oldest event that is still whole."""

    __slots__ = ("_bytes", "_envelopes", "_text", "attempt", "begun", "first", "turn")

    def __init__(self, turn: str, attempt: int, first: int) -> None:
        self.turn = turn
        self.attempt = attempt
        self.begun = first
        self.first = first
        self._envelopes: deque[bytes] = deque()
        self._bytes = 0
        self._text = _Text()

    @property
    def last(self) -> int:
        """The sequence of the newest event; the one before the beginning while there is none."""
        return self.first + len(self._envelopes) - 1

    def append(self, envelope: bytes) -> None:
        """An event in its envelope; its sequence is the one after the last."""
        self._envelopes.append(envelope)
        self._bytes += len(envelope)
        while self._bytes > EVENTS_LIMIT and len(self._envelopes) > 1:
            self._text.fold(_event_in(self._forget_oldest()))

    def end(self) -> None:
        """The turn is over: from now on there is only the end of it, and no text."""
        self._text = _Text()
        while self._bytes > ENDED_LIMIT and len(self._envelopes) > 1:
            self._forget_oldest()

    def since(self, seq: int) -> tuple[str, ...] | None:
        """The envelopes after a sequence; None when some of them are gone."""
        if seq + 1 < self.first:
            return None
        return tuple(envelope.decode() for envelope in islice(self._envelopes, seq + 1 - self.first, None))

    def snapshot(self) -> Snapshot:
        """The text so far, per block."""
        text = self._whole_text()
        return Snapshot(turn=self.turn, attempt=self.attempt, blocks=text.listed(), truncated=text.truncated)

    def answer(self) -> tuple[str, bool]:
        """The answer's text, without thinking, and whether it was cut at ``RECORDED_TEXT_LIMIT``."""
        text = self._whole_text()
        return "".join(block.text for block in text.listed() if block.kind == "text"), text.truncated

    def _forget_oldest(self) -> bytes:
        envelope = self._envelopes.popleft()
        self._bytes -= len(envelope)
        self.first += 1
        return envelope

    def _whole_text(self) -> _Text:
        text = self._text.copy()
        for envelope in self._envelopes:
            text.fold(_event_in(envelope))
        return text


def _event_in(envelope: bytes) -> bytes:
    return bytes(_envelopes.decode(envelope).event)


class History:
    """What is known of an ownership's events: those of the turn at hand, and the end of the turn before."""

    def __init__(self) -> None:
        self._logs: list[TurnLog] = []

    def begin(self, log: TurnLog) -> None:
        """A turn begins; its first event will be the one after the last."""
        self._logs = [*self._logs[-1:], log]

    def end(self) -> None:
        """The turn at hand has ended."""
        self._logs = self._logs[-1:]
        self._logs[0].end()

    def answer(self, question: Replay, epoch: int, seq: int) -> tuple[str, ...] | None:
        """The envelopes that are asked for, by an owner that stands at this place; None if some are gone."""
        if question.epoch is None or question.seq is None:
            return None
        after, here = Position(question.epoch, question.seq), Position(epoch, seq)
        if question.turn is not None and question.seq == 0:
            return self.of_turn(question.turn)
        if after > here:
            return None
        last = after.seq if after.epoch == epoch else 0
        return () if last == seq else self.since(last)

    def since(self, seq: int) -> tuple[str, ...] | None:
        """The envelopes after a sequence of this epoch; None when some of them are gone."""
        if not self._logs or seq + 1 < self._logs[0].first:
            return None
        parts = [log.since(max(seq, log.begun - 1)) for log in self._logs if seq < log.last]
        return None if None in parts else tuple(envelope for part in parts for envelope in part or ())

    def of_turn(self, turn: str) -> tuple[str, ...] | None:
        """What has come from the beginning of a turn on: nothing of one that is not known here."""
        return next((self.since(log.begun - 1) for log in self._logs if log.turn == turn), ())


class _Text:
    """Text per (message, block), folded from events."""

    def __init__(self) -> None:
        self._message = -1
        self._size = 0
        self._cut_in: int | None = None  # the message in which the limit was reached
        self._blocks: dict[tuple[int, int], tuple[str, list[str]]] = {}

    @property
    def truncated(self) -> bool:
        return self._cut_in is not None

    def copy(self) -> _Text:
        other = _Text()
        other._message, other._size, other._cut_in = self._message, self._size, self._cut_in
        other._blocks = {place: (kind, list(parts)) for place, (kind, parts) in self._blocks.items()}
        return other

    def listed(self) -> tuple[Block, ...]:
        return tuple(
            Block(message=message, index=index, kind=kind, text="".join(parts))
            for (message, index), (kind, parts) in sorted(self._blocks.items())
        )

    def fold(self, event: bytes) -> None:
        if event.startswith(b'{"type":"turn_reset"'):
            self._forget_from(_resets.decode(event).message)
            return
        try:
            self._take(_events.decode(event))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # of a shape that we do not know: it was passed on as it is, and adds no text here

    def _take(self, event: _Event) -> None:
        if event.type == "message_start":
            self._message += 1
        elif event.type == "content_block_start" and event.content_block is not None:
            kind = event.content_block.type
            self._blocks[self._message, event.index] = (kind, [])
            self._add(event.index, kind, event.content_block)
        elif event.type == "content_block_delta" and event.delta is not None:
            kind = "thinking" if event.delta.type == "thinking_delta" else "text"
            self._add(event.index, kind, event.delta)

    def _add(self, index: int, kind: str, content: _Content) -> None:
        text = content.thinking or content.text
        if not text or self.truncated:
            return
        room = RECORDED_TEXT_LIMIT - self._size
        if _size(text) > room:
            self._cut_in = self._message
            text = _cut(text, room)
        self._size += _size(text)
        self._blocks.setdefault((self._message, index), (kind, []))[1].append(text)

    def _forget_from(self, message: int) -> None:
        for place in [place for place in self._blocks if place[0] >= message]:
            self._size -= sum(map(_size, self._blocks.pop(place)[1]))
        self._message = message - 1
        if self._cut_in is not None and self._cut_in >= message:
            self._cut_in = None


def _size(text: str) -> int:
    """Bytes that a text takes in JSON, which is how records and snapshots travel."""
    return len(msgspec.json.encode(text)) - 2


def _cut(text: str, room: int) -> str:
    """The longest beginning that takes at most ``room`` bytes in JSON."""
    return text[: bisect_right(range(1, len(text) + 1), room, key=lambda length: _size(text[:length]))]
