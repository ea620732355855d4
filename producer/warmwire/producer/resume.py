"""What a cursor asks for, judged from the records and the owner. Pure: the reading is done in ``submit``.

The cases, in this order:

1. It says itself that there is nothing to continue (``NOWHERE``): nothing is told.
2. No cursor could be read, or it is of no turn that is known: a gap is told. If a turn runs in the session,
   that one is followed, from a snapshot.
3. The turn has ended. At its end: nothing is told. Beyond it: its whole text is told. Before it: followed.
4. The position lies in the future (forged, or of a lost history): a gap, and a snapshot if there is one.
5. Otherwise the turn is followed from the cursor.

A cursor is a claim by a stranger: nothing here trusts it, and nothing here submits.
"""

from __future__ import annotations

from dataclasses import dataclass

from warmwire.broker import envelope as codec
from warmwire.broker.envelope import Cursor, Position
from warmwire.broker.events import Block, Snapshot
from warmwire.broker.messages import Finished, OwnerView, TurnRecord
from warmwire.broker.reader import Item, Lost, Shown

NOWHERE = Cursor("0", 0, 0)
"""Given out where there is nothing to continue, so that the next attempt with it is told that it is done."""


@dataclass(frozen=True, slots=True)
class Tell:
    """All there is to tell."""

    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Follow:
    """Tell ``first``, then follow the cursor's turn from the cursor."""

    cursor: Cursor
    first: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a session. Read in this order, a turn that ends meanwhile is never unknown.

    ``queued``: something waits or runs. ``view``: where its owner stands, if any. ``record``: the turn's.
    """

    queued: bool
    view: OwnerView | None
    record: TurnRecord | None

    @property
    def at(self) -> Position:
        """Where the session stands, as far as is known."""
        return Position(self.view.epoch, self.view.seq) if self.view else Position(0, 0)

    @property
    def running(self) -> str | None:
        """The turn that the owner runs."""
        return self.view.turn if self.view else None


def judge(cursor: Cursor | None, found: Found) -> Tell | Follow:
    """What to do for a viewer that comes with a cursor (None: it could not be read)."""
    if cursor == NOWHERE:
        return Tell()
    if cursor is None or not _known(cursor, found):
        after = cursor.position if cursor else Position(0, 0)
        return _without(after, found.running, found) if found.running else Tell((Lost(after, found.at),))
    if isinstance(found.record, Finished):
        return _ended(cursor, found.record)
    if _in_future(cursor, found):
        return _without(cursor.position, cursor.turn, found)
    return Follow(cursor)


def _known(cursor: Cursor, found: Found) -> bool:
    return found.record is not None or found.running == cursor.turn or found.queued


def _in_future(cursor: Cursor, found: Found) -> bool:
    if found.view is not None:
        return cursor.position > found.at
    return found.record is not None and cursor.epoch > found.record.epoch


def _without(after: Position, turn: str, found: Found) -> Follow:
    """Follow a turn without a position to follow it from."""
    lost = Lost(after, found.at)
    if found.view is not None and found.view.snapshot is not None and found.running == turn:
        return Follow(Cursor(turn, *found.at), (lost, Shown(turn, found.at, found.view.snapshot.encode())))
    epoch = found.record.epoch if found.record and not found.view else found.at.epoch
    return Follow(Cursor(turn, epoch, found.at.seq), (lost,))


def _ended(cursor: Cursor, record: Finished) -> Tell | Follow:
    terminal = codec.decode(record.envelope.encode())
    if cursor.position == terminal.position:
        return Tell()
    if cursor.position < terminal.position:
        return Follow(cursor)
    before = Position(terminal.epoch, terminal.seq - 1)
    block = Block(message=0, index=0, kind="text", text=record.text)
    snapshot = Snapshot(turn=cursor.turn, attempt=record.attempt, blocks=(block,), truncated=record.truncated)
    return Tell((Lost(cursor.position, before), Shown(cursor.turn, before, snapshot.encode()), terminal))
