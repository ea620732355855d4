"""Events as a caller meets them, and the text that they add up to. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from warmwire.broker.reading.reader import Item, Lost
from warmwire.broker.wire.envelope import Cursor, Envelope
from warmwire.broker.wire.events import TERMINAL, Gap
from warmwire.producer.errors import TextVoid, TurnFailed
from warmwire.producer.resume import UNREAD


@dataclass(frozen=True)
class Event:
    """One thing that happened. ``raw`` is its JSON; ``cursor`` resumes just after it."""

    type: str
    raw: bytes
    cursor: str | None = None

    @cached_property
    def data(self) -> dict[str, Any]:
        """The parsed event."""
        parsed: dict[str, Any] = msgspec.json.decode(self.raw)
        return parsed

    @property
    def text(self) -> str | None:
        """The text that this event adds to the answer, if it adds any."""
        if self.type != "content_block_delta" or b'"text_delta"' not in self.raw:
            return None
        delta = self.data.get("delta", {})
        return str(delta["text"]) if delta.get("type") == "text_delta" else None

    @property
    def turn(self) -> str | None:
        """The turn that it is of, where it has a cursor."""
        return self.cursor.partition(".")[0] if self.cursor else None

    @property
    def terminal(self) -> bool:
        """Whether it ends its turn."""
        return self.type in TERMINAL


def event_of(item: Item, turn: str) -> Event:
    """What a follower of ``turn`` is told."""
    if isinstance(item, Envelope):
        return Event(item.type, item.event, str(item.cursor))
    if isinstance(item, Lost):  # one who loses the connection before the snapshot is to be told again
        return Event("gap", gap_of(item, turn), str(Cursor(turn, *item.after)))
    return Event("snapshot", item.event, str(Cursor(item.turn, *item.at)))


def gap_of(item: Lost, turn: str) -> bytes:
    """The event that says what is lost; ``after`` is empty where it could not be read."""
    after = "" if item.after == UNREAD else str(Cursor(turn, *item.after))
    return Gap(turn=turn, after=after, until=str(Cursor(turn, *item.until))).encode()


class _Failure(msgspec.Struct):
    code: str
    message: str
    retryable: bool


def failure_of(event: Event, text: str) -> TurnFailed:
    """What the event of a failed turn is to who waits for its answer, of which there is ``text``."""
    said = msgspec.json.decode(event.raw, type=_Failure)
    return TurnFailed(said.code, said.message, text, retryable=said.retryable)


class _Block(msgspec.Struct):
    kind: str
    message: int
    index: int
    text: str


class _Snapshot(msgspec.Struct):
    blocks: list[_Block] = []


class Answer:
    """The text of one turn as it grows: of all its messages (a tool loop has several) and blocks."""

    def __init__(self) -> None:
        self._message = -1
        self._blocks: dict[tuple[int, int], str] = {}

    @property
    def text(self) -> str:
        """What there is so far."""
        return "".join(self._blocks[name] for name in sorted(self._blocks))

    def add(self, event: Event) -> None:
        """Take one event into account."""
        if event.type == "message_start":
            self._message += 1
        elif event.type == "turn_reset":
            self._forget_from(int(event.data.get("message", 0)))
        elif event.type == "snapshot":
            self._replace(msgspec.json.decode(event.raw, type=_Snapshot).blocks)
        elif text := event.text:
            name = (self._message, int(event.data.get("index", 0)))
            self._blocks[name] = self._blocks.get(name, "") + text

    def _forget_from(self, message: int) -> None:
        self._blocks = {name: text for name, text in self._blocks.items() if name[0] < message}
        self._message = message - 1

    def _replace(self, blocks: list[_Block]) -> None:
        self._blocks = {(each.message, each.index): each.text for each in blocks if each.kind == "text"}
        self._message = max((each.message for each in blocks), default=self._message)


class Growing:
    """The text of one turn for who can take nothing back: what is new of it, and never a word again.

    A turn that is begun again says nothing until it has said again what was given out.
    """

    def __init__(self) -> None:
        self._answer = Answer()
        self._given: list[str] = []
        self._behind = False

    @property
    def behind(self) -> bool:
        """Whether the turn was begun again and has not yet said again what was given out."""
        return self._behind

    def add(self, event: Event) -> str:
        """What the event adds to what was given out.

        Raises:
            TextVoid: what was given out is not how the answer begins any more.
        """
        self._answer.add(event)
        self._behind = self._behind or event.type in ("snapshot", "turn_reset")
        new = self._caught_up(event) if self._behind else event.text or ""
        if new:
            self._given.append(new)
        return new

    def begin_again(self) -> str:
        """After ``TextVoid``, for who can say that what was given out is void: all there is instead."""
        self._given, self._behind = [self._answer.text], False
        return self._answer.text

    def _caught_up(self, event: Event) -> str:
        given, now = "".join(self._given), self._answer.text
        if now.startswith(given):
            self._behind = False
            return now[len(given) :]
        if event.type == "turn_completed" or not given.startswith(now):
            raise TextVoid(given)
        return ""
