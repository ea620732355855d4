"""The events of one turn in its owner's memory: the log that readers are repaired from. Pure.

A delta costs an append. Text is put together only when somebody asks for it, or when old events make room.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

import msgspec

from warmwire.broker.events import Block, Snapshot
from warmwire.broker.messages import RECORDED_TEXT_LIMIT

EVENTS_LIMIT = 256 * 1024
"""Bytes of events kept per turn; older ones live on as text only."""


class _Content(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""
    thinking: str = ""


class _Event(msgspec.Struct, gc=False):
    """The fields of a streaming event that make up text."""

    type: str
    index: int = 0
    content_block: _Content | None = None
    delta: _Content | None = None


_events = msgspec.json.Decoder(_Event)


class TurnLog:
    """What a turn has published: ``first`` is the sequence of the oldest event that is still whole."""

    def __init__(self, turn: str, attempt: int, first: int) -> None:
        self.turn = turn
        self.attempt = attempt
        self.begun = first
        self.first = first
        self._events: deque[tuple[bytes, bytes]] = deque()
        self._bytes = 0
        self._text = _Text()

    @property
    def whole(self) -> bool:
        """Whether the events go back to the turn's beginning."""
        return self.first == self.begun

    def append(self, event: bytes, envelope: bytes) -> None:
        """One event and its envelope; their sequence is the one after the last."""
        self._events.append((event, envelope))
        self._bytes += len(envelope)
        while self._bytes > EVENTS_LIMIT and len(self._events) > 1:
            oldest, sent = self._events.popleft()
            self._bytes -= len(sent)
            self.first += 1
            self._text.fold(oldest)

    def since(self, seq: int) -> tuple[str, ...] | None:
        """The envelopes after a sequence; None when some of them are gone."""
        if seq + 1 < self.first:
            return None
        return tuple(envelope.decode() for _, envelope in islice(self._events, seq + 1 - self.first, None))

    def snapshot(self) -> Snapshot:
        """The text so far, per block."""
        text = self._whole_text()
        return Snapshot(turn=self.turn, attempt=self.attempt, blocks=text.listed(), truncated=text.truncated)

    def answer(self) -> tuple[str, bool]:
        """The answer's text, without thinking, and whether it was cut at ``RECORDED_TEXT_LIMIT``."""
        text = self._whole_text()
        return "".join(block.text for block in text.listed() if block.kind == "text"), text.truncated

    def _whole_text(self) -> _Text:
        text = self._text.copy()
        for event, _ in self._events:
            text.fold(event)
        return text


class _Text:
    """Text per (message, block), folded from events."""

    def __init__(self) -> None:
        self.truncated = False
        self._message = -1
        self._size = 0
        self._blocks: dict[tuple[int, int], tuple[str, list[str]]] = {}

    def copy(self) -> _Text:
        other = _Text()
        other.truncated, other._message, other._size = self.truncated, self._message, self._size
        other._blocks = {place: (kind, list(parts)) for place, (kind, parts) in self._blocks.items()}
        return other

    def listed(self) -> tuple[Block, ...]:
        return tuple(
            Block(message=message, index=index, kind=kind, text="".join(parts))
            for (message, index), (kind, parts) in sorted(self._blocks.items())
        )

    def fold(self, raw: bytes) -> None:
        if raw.startswith(b'{"type":"turn_reset"'):
            self._forget_from(msgspec.json.decode(raw)["message"])
            return
        if not raw.startswith((b'{"type":"message_start"', b'{"type":"content_block_')):
            return
        event = _events.decode(raw)
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
        room = RECORDED_TEXT_LIMIT - self._size
        if len(text) > room:
            self.truncated = True
            text = text[:room]
        if text:
            self._size += len(text)
            self._blocks.setdefault((self._message, index), (kind, []))[1].append(text)

    def _forget_from(self, message: int) -> None:
        for place in [place for place in self._blocks if place[0] >= message]:
            self._size -= sum(map(len, self._blocks.pop(place)[1]))
        self._message = message - 1
