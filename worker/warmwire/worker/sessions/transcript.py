"""Transcripts as they are stored: a list of appends, each some lines of JSON. Pure.

The entries of one turn count together or not at all: where they need several appends, each says which part it
is, and a set that lacks its last part is skipped. Two kinds of lines are ours and not the CLI's:

* an ``epoch`` entry begins an ownership. It moves the subject's last sequence, so that an append of the owner
  before is refused;
* a ``turn`` entry is the last of a turn's entries and says how the turn ended: whoever takes the session over
  finds the answer by it, when the owner before died between storing the answer and storing the turn's record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
from pydantic import Field, TypeAdapter, ValidationError

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.events import TurnCompleted, TurnEnd, TurnFailed, TurnInterrupted

APPEND_LIMIT = 512 * 1024
"""Bytes of one append; what is longer becomes several."""

_OURS = b'{"type":"warmwire/'
_EPOCH = _OURS + b'epoch",'
_TURN = _OURS + b'turn",'
_FIRST, _MORE, _LAST = b"(", b"+", b")"  # no line of JSON that we store begins like this

_ends: TypeAdapter[TurnCompleted | TurnInterrupted | TurnFailed] = TypeAdapter(
    Annotated[TurnCompleted | TurnInterrupted | TurnFailed, Field(discriminator="type")]
)


class _EpochEntry(msgspec.Struct):
    epoch: int


class _TurnEntry(msgspec.Struct):
    end: msgspec.Raw


_epochs = msgspec.json.Decoder(_EpochEntry)
_turn_entries = msgspec.json.Decoder(_TurnEntry)


@dataclass(frozen=True, slots=True)
class Answered:
    """A turn whose answer is in the transcript: each message's id and text, and how the turn ended."""

    messages: tuple[tuple[str, str], ...]
    end: TurnEnd


def epoch_entry(epoch: int) -> bytes:
    """The append that begins an ownership."""
    return b'%b"epoch":%d}' % (_EPOCH, epoch)


def epoch(stored: Sequence[bytes]) -> int:
    """The epoch of the last ownership that has said so here; 0 without any."""
    said = [append for append in stored if append.startswith(_EPOCH)]
    return _epochs.decode(said[-1]).epoch if said else 0


def turn_entry(end: TurnEnd) -> bytes:
    """The last entry of a turn."""
    return b'%b"turn":"%b","end":%b}' % (_TURN, end.turn.encode(), end.encode())


def appends(entries: Iterable[bytes]) -> list[bytes]:
    """The entries of one turn as appends of at most ``APPEND_LIMIT`` bytes."""
    whole = b"\n".join(entries)
    if len(whole) <= APPEND_LIMIT:
        return [whole] if whole else []
    step = APPEND_LIMIT - 1
    first, *more, last = [whole[start : start + step] for start in range(0, len(whole), step)]
    return [_FIRST + first, *(_MORE + part for part in more), _LAST + last]


def conversation(stored: Sequence[bytes]) -> bytes:
    """The transcript file's content; empty when there has been no conversation yet."""
    lines = [line for turn in _turns(stored) for line in turn.split(b"\n") if not line.startswith(_OURS)]
    return b"".join(line + b"\n" for line in lines)


def entries_of(stored: Sequence[bytes]) -> list[bytes]:
    """Every entry that counts, ours too."""
    return [line for turn in _turns(stored) for line in turn.split(b"\n") if line]


def answered(stored: Sequence[bytes], turn: str) -> Answered | None:
    """The answer to a turn, if the transcript holds it.

    Raises:
        BadInput: it does, and is damaged or of a version that we do not know.
    """
    head = b'%b"turn":"%b",' % (_TURN, turn.encode())
    for entries in (appended.split(b"\n") for appended in _turns(stored)):
        if entries[-1].startswith(head):
            try:
                end = _turn_entries.decode(entries[-1]).end
                return Answered(tuple(_messages(entries)), _ends.validate_json(bytes(end)))
            except (msgspec.DecodeError, ValidationError) as error:
                raise BadInput("transcript", f"holds an end of turn {turn} that cannot be read") from error
    return None


def _turns(stored: Sequence[bytes]) -> Iterator[bytes]:
    """The appends, with those of one turn put together; parts without their last one are left out."""
    parts: list[bytes] = []
    for append in stored:
        mark = append[:1]
        if mark not in (_FIRST, _MORE, _LAST):
            parts.clear()
            yield append
        elif mark == _FIRST or parts:
            parts = [*(parts if mark != _FIRST else ()), append[1:]]
            if mark == _LAST:
                yield b"".join(parts)
                parts.clear()


class _Block(msgspec.Struct):
    type: str = ""
    text: str = ""


class _Message(msgspec.Struct):
    id: str = ""
    model: str = ""
    content: str | list[_Block] = ""


class _Entry(msgspec.Struct):
    """The fields of a transcript entry that an answer is made of."""

    type: str = ""
    sidechain: bool = msgspec.field(name="isSidechain", default=False)
    message: _Message | None = None


_entries = msgspec.json.Decoder(_Entry)


def _messages(lines: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """What the model said; not its sub-agents, and not what the CLI wrote in its place."""
    for line in lines:
        entry = _readable(line)
        if entry.type != "assistant" or entry.sidechain or entry.message is None:
            continue
        content = entry.message.content
        blocks = [_Block("text", content)] if isinstance(content, str) else content
        text = "".join(block.text for block in blocks if block.type == "text")
        if text and entry.message.model != "<synthetic>":
            yield entry.message.id, text


def _readable(line: bytes) -> _Entry:
    """An entry; an empty one for what is of another shape, as the CLI has many kinds."""
    try:
        return _entries.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Entry()
