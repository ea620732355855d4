"""A history: what producers sent and what each viewer was given, in the order in which it was noticed.

One record a line in a JSONL file; `kind` says which. Times are monotonic seconds of the recording process.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

Place = tuple[int, int]
"""(epoch, seq)."""


class Record(msgspec.Struct, frozen=True, tag_field="kind", tag=str.lower, omit_defaults=True, kw_only=True):
    """Base of all records."""

    at: float = 0.0


class Accepted(Record, frozen=True):
    """A producer was told that its message is accepted; `order` is its place in the queue."""

    session: str
    turn: str
    order: int
    expected: str | None = None


class Refused(Record, frozen=True):
    """A producer was told that its message is not accepted: it must never be answered."""

    session: str
    turn: str
    why: str


class Doubtful(Record, frozen=True):
    """A producer does not know; both outcomes are right."""

    session: str
    turn: str
    why: str


class Joined(Record, frozen=True):
    """A viewer begins to watch a session, or one turn of it. `fresh`: before there was anything to see."""

    viewer: str
    session: str
    turn: str | None = None
    fresh: bool = True


class Seen(Record, frozen=True):
    """An event was given to a viewer. `first` is the oldest sequence in it when several were merged.

    `text` (with the block's `index`) is what it adds to the answer; `message` is where a reset goes back to.
    """

    viewer: str
    epoch: int
    seq: int
    turn: str
    type: str
    first: int | None = None
    message: int = 0
    index: int = 0
    text: str = ""
    worker: str | None = None


class Gap(Record, frozen=True):
    """A viewer was told that what came after one place, up to and including another, is gone."""

    viewer: str
    after: Place
    until: Place


class Snapshot(Record, frozen=True):
    """A viewer was given the text of a turn so far: `blocks` of (message, index, text)."""

    viewer: str
    epoch: int
    seq: int
    turn: str
    blocks: tuple[tuple[int, int, str], ...] = ()


class Broke(Record, frozen=True):
    """A viewer's connection broke; what follows was given to it after it came back."""

    viewer: str


class Left(Record, frozen=True):
    """A viewer went away before the end of its own accord."""

    viewer: str


class Recorded(Record, frozen=True):
    """What the turn record holds in the end."""

    session: str
    turn: str
    ending: str
    text: str
    truncated: bool = False


class Fault(Record, frozen=True):
    """A fault was injected."""

    what: str


Any = Accepted | Refused | Doubtful | Joined | Seen | Gap | Snapshot | Broke | Left | Recorded | Fault

_decoder = msgspec.json.Decoder(Any)


def read(path: Path) -> list[Any]:
    """A recorded history."""
    return [_decoder.decode(line) for line in path.read_bytes().splitlines() if line.strip()]


def lines(history: Iterable[Any]) -> Iterator[bytes]:
    """The records as they are written to a file."""
    return (msgspec.json.encode(record) + b"\n" for record in history)


def write(path: Path, history: Iterable[Any]) -> None:
    """Keep a history for later."""
    with path.open("wb") as file:
        file.writelines(lines(history))
