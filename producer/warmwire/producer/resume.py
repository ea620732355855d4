"""What a cursor from a stranger asks for. Pure: the reading is done in ``submit``.

The cases, in this order:

1. It says itself that there is nothing to continue (``NOWHERE``): nothing.
2. It is of a turn that is known, or that may be waiting: that turn, from there. Whether the position was ever
   given out is the follower's to judge.
3. It could not be read, or nobody knows the turn: the turn that runs in the session, from a snapshot.
4. As 3, and nothing runs: a gap.

Nothing here trusts a cursor, and nothing here submits.
"""

from __future__ import annotations

from dataclasses import dataclass

from warmwire.broker.reading.reader import Lost
from warmwire.broker.wire.envelope import END, Cursor, Position

NOWHERE = Cursor("0", 0, 0)
"""Given out where there is nothing to continue, so that who comes back with it is told that it is done."""
UNREAD = Position(END, END)
"""Stands for a position that could not be read: nobody has given it out, so gap and snapshot answer it."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a session and of the cursor's turn. Read in this order, a turn that ends is known.

    ``queued``: its message waits or runs. ``running``: the turn that the owner runs. ``at``: where the
    session stands. ``recorded``: the cursor's turn has a record.
    """

    queued: bool
    running: str | None
    at: Position
    recorded: bool


def judge(cursor: Cursor | None, found: Found) -> Cursor | Lost | None:
    """The cursor to follow, the gap to tell, or None; without ``cursor`` it could not be read."""
    if cursor == NOWHERE:
        return None
    if cursor is not None and (found.recorded or found.queued or found.running == cursor.turn):
        return cursor
    if found.running is not None:
        return Cursor(found.running, *UNREAD)
    return Lost(cursor.position if cursor else UNREAD, found.at)
