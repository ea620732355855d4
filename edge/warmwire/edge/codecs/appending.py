"""A turn for viewers that can only append: what is new of its text, as parts, one after the other. Pure.

``told`` knows what the viewer has had; a shape says how parts and what else there is are written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import msgspec
from pydantic import ValidationError

from warmwire.broker.reading.reader import Item, Lost, Shown
from warmwire.broker.wire.envelope import Envelope
from warmwire.broker.wire.events import (
    End,
    PermissionRequested,
    PermissionResolved,
    Snapshot,
    ToolFinished,
    ToolStarted,
    TurnProgress,
    TurnReset,
    end_of,
)
from warmwire.edge.codecs.told import LONGER, LOST, VOID, Sum, Told, Void

MARKS_LIMIT = 256
"""Messages of a turn to which it may go back without its text becoming void."""

Chunk = Mapping[str, object]
"""What is written as one piece of JSON."""
Chunks = Iterator[Chunk]
Ours = ToolStarted | ToolFinished | PermissionRequested | PermissionResolved | TurnProgress
"""Events of ours that are no text, and that some shape has a place for."""
_OURS: dict[str, type[Ours]] = {
    "tool_started": ToolStarted,
    "tool_finished": ToolFinished,
    "permission_requested": PermissionRequested,
    "permission_resolved": PermissionResolved,
    "turn_progress": TurnProgress,
}
_KINDS = ("text", "thinking")
_MESSAGE = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_stop"}
)


class Content(msgspec.Struct, gc=False):
    """A block as it begins, or a delta of it."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    id: str = ""
    name: str = ""


class _Event(msgspec.Struct, gc=False):
    """The fields of an event that make up an answer."""

    type: str
    index: int = 0
    content_block: Content | None = None
    delta: Content | None = None


_events = msgspec.json.Decoder(_Event)


class Part:
    """Text or thinking that is being told: where it stands in the turn, and its number, from 0."""

    def __init__(self, kind: str, place: tuple[int, int], number: int) -> None:
        self.kind = kind
        self.place = place
        self.number = number


class Appending(ABC):
    """See the module, and ``told.Shape``."""

    def __init__(self) -> None:
        self.over = False
        self.part: Part | None = None
        self.message = -1
        self._parts = 0
        self._attempt = 1
        self._texts = {"text": Told(), "thinking": Told()}
        self._marks: dict[int, dict[str, Sum]] = {}
        self.lost = False

    def add(self, item: Item) -> bytes:
        """The frames of an event; after an error there are no more."""
        if self.over:
            return b""
        chunks: list[Chunk] = []
        try:
            for chunk in self._chunks(item):
                chunks.append(chunk)  # noqa: PERF402 - those before an error stand
        except Void as void:
            self.over = True
            chunks.append(self._error("text_void", f"{void}: look at the turn anew to see it as it is"))
        except (msgspec.DecodeError, ValidationError, UnicodeDecodeError):
            pass  # of a shape that we do not know: it adds nothing that could be shown
        return b"".join(map(self._frame, chunks))

    def error(self, code: str, message: str) -> bytes:
        """The stream ends before its turn."""
        return self._frame(self._error(code, message))

    @property
    def behind(self) -> bool:
        """Whether something is said again, and not all of it yet."""
        return any(told.behind for told in self._texts.values())

    # -- how it is written

    @abstractmethod
    def _frame(self, chunk: Chunk) -> bytes: ...

    @abstractmethod
    def _error(self, code: str, message: str) -> Chunk: ...

    @abstractmethod
    def _begin(self, part: Part) -> Chunks: ...

    @abstractmethod
    def _more(self, part: Part, text: str) -> Chunk: ...

    @abstractmethod
    def _end(self, part: Part) -> Chunk: ...

    @abstractmethod
    def _finish(self, end: End) -> Chunks:
        """The turn has ended."""

    def _message_begins(self) -> Chunks:
        yield from ()

    def _message_ends(self) -> Chunks:
        yield from ()

    def _block_begins(self, index: int, block: Content) -> Chunks:  # noqa: ARG002 - for who overrides it
        """One that is neither text nor thinking."""
        yield from ()

    def _block_grows(self, index: int, delta: Content) -> Chunks:  # noqa: ARG002
        yield from ()

    def _block_ends(self, index: int) -> Chunks:  # noqa: ARG002
        yield from ()

    def _ours(self, event: Ours) -> Chunks:  # noqa: ARG002
        """An event of ours that is no text."""
        yield from ()

    def _takes_back(self, first: int) -> bool:  # noqa: ARG002
        """Whether something else than text was told of messages from that one on."""
        return False

    # -- events

    def _chunks(self, item: Item) -> Chunks:
        if isinstance(item, Lost):
            self.lost = True
        elif isinstance(item, Shown):
            yield from self._snapshot(Snapshot.model_validate_json(item.event))
        elif item.terminal:
            yield from self._terminal(end_of(item.event))
        elif item.type in _MESSAGE:
            if not self.lost:  # else the snapshot, which is to come, has it
                yield from self._streamed(item)
        elif item.type == "turn_reset":
            self._reset(TurnReset.model_validate_json(item.event).message)
        elif item.type in _OURS:
            yield from self._ours(_OURS[item.type].model_validate_json(item.event))

    def _streamed(self, item: Envelope) -> Chunks:
        self._attempt = item.attempt
        event = _events.decode(item.event)
        if event.type == "message_start":
            yield from self._begin_message(self.message + 1)
        elif event.type == "message_stop":
            yield from self._message_ends()
        elif event.type == "content_block_stop":
            yield from self._end_block(event.index)
        elif event.content_block is not None:
            yield from self._begin_block(event.index, event.content_block)
        elif event.delta is not None:
            yield from self._delta(event.index, event.delta)

    def _begin_message(self, number: int) -> Chunks:
        self.message = number
        self._marks[number] = {kind: told.mark() for kind, told in self._texts.items()}
        if len(self._marks) > MARKS_LIMIT:
            del self._marks[next(iter(self._marks))]
        yield from self._message_begins()

    def _begin_block(self, index: int, block: Content) -> Chunks:
        if block.type in _KINDS:
            yield from self._delta(index, block)
        else:
            yield from self._block_begins(index, block)

    def _delta(self, index: int, delta: Content) -> Chunks:
        if delta.thinking:
            yield from self._grow("thinking", (self.message, index), delta.thinking)
        elif delta.text:
            yield from self._grow("text", (self.message, index), delta.text)
        else:
            yield from self._block_grows(index, delta)

    def _end_block(self, index: int) -> Chunks:
        if self.part is not None and self.part.place == (self.message, index) and not self.behind:
            yield from self._end_part()
        yield from self._block_ends(index)

    def _grow(self, kind: str, place: tuple[int, int], text: str) -> Chunks:
        new = self._texts[kind].new(text)
        if not new:
            return
        if self.part is None or (self.part.kind, self.part.place) != (kind, place):
            yield from self._end_part()
            self.part = Part(kind, place, self._parts)
            self._parts += 1
            yield from self._begin(self.part)
        yield self._more(self.part, new)

    def _end_part(self) -> Chunks:
        part, self.part = self.part, None
        if part is not None:
            yield self._end(part)

    # -- what is said again

    def _reset(self, first: int) -> None:
        mark = self._marks.get(first)
        if self._takes_back(first) or (mark is None and first <= self.message):
            raise Void(VOID)
        for kind, told in self._texts.items():
            if mark is not None:
                told.repeat(mark[kind])
        self.message = first - 1

    def _snapshot(self, event: Snapshot) -> Chunks:
        self.lost = False
        before = self.message if event.attempt == self._attempt else -1
        self.message = -1
        for told in self._texts.values():
            told.repeat(Sum())
        for block in event.blocks:
            if block.message != self.message:
                yield from self._begin_message(block.message)
            if block.kind in _KINDS and block.text:
                yield from self._grow(block.kind, (block.message, block.index), block.text)
        if event.truncated or self._texts["text"].behind:
            raise Void(LONGER if event.truncated else VOID)
        self._texts["thinking"].settle()  # a record keeps none of it
        self.message, self._attempt = max(self.message, before), event.attempt
        for question in event.questions or ():
            yield from self._ours(question)

    def _terminal(self, end: End) -> Chunks:
        if end.type == "turn_completed" and (self.lost or self._texts["text"].behind):
            raise Void(LOST if self.lost else VOID)
        yield from self._end_part()
        yield from self._finish(end)
