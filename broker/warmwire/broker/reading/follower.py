"""One turn as one viewer follows it, on its session's feed: from its beginning or a cursor to its end."""

from __future__ import annotations

from warmwire.broker.errors import NoResponder, Unavailable
from warmwire.broker.nats.store import Store
from warmwire.broker.reading.feed import Feed, Listener, ending_of
from warmwire.broker.reading.reader import Ending, Item, Lost, Shown
from warmwire.broker.wire.envelope import END, Cursor, Envelope, Position
from warmwire.broker.wire.events import TERMINAL

WAITING_LIMIT = 10_000
"""Events that may arrive while a follower asks for what it missed; past it resuming fails."""


class Follower:
    """One turn as one viewer follows it: from its beginning or a cursor, each event once, to its end.

    ``sink`` is called with each item; after the terminal event ``ended`` is true and it is called no more.
    """

    __slots__ = ("_feed", "_position", "_sink", "_store", "_waiting", "ended", "turn")

    def __init__(self, feed: Feed, store: Store, turn: str, sink: Listener) -> None:
        self.turn = turn
        self.ended = False
        self._feed = feed
        self._store = store
        self._sink = sink
        self._position: tuple[int, int] = Position(
            0, 0
        )  # of this turn's last event that the sink has been given
        self._waiting: list[Item] | None = None

    def begin(self) -> None:
        """Follow a turn that is about to be submitted."""
        self._feed.expect(self.turn)
        self._feed.listeners.append(self._live)

    async def resume(self, cursor: Cursor) -> None:
        """Follow from a cursor; returns once what was missed has been given to the sink.

        The cases, in this order:

        1. The turn has ended just at the cursor: nothing is given, ``ended`` is true.
        2. It has ended: what came after the cursor, else ``Lost``, its whole text and its terminal event.
        3. It was never begun: all is still to come.
        4. It has an owner: what came after the cursor, else ``Lost`` and a snapshot.
        5. It is between two owners: the next one begins it again, and says so.

        A cursor in the future was given out by nobody: ``Lost``, and from then on what there is.

        Raises:
            Unavailable: it cannot be said what was missed; nothing was given, repeat it later.
        """
        self._position = cursor.position
        self._waiting = []
        self._feed.listeners.append(self._live)
        try:
            missed = await self._missed(cursor)
            check_bound(self._waiting)
        except BaseException:
            self.stop()
            raise
        waiting, self._waiting = self._waiting, None
        for item in missed:
            if isinstance(item, Lost):
                self._position = item.until
            self._give(item)
        for item in waiting:
            self._give(item)

    def tell(self, sink: Listener) -> None:
        """From now on give it to this one."""
        self._sink = sink

    def stop(self) -> None:
        """Follow no longer."""
        if self._live in self._feed.listeners:
            self._feed.listeners.remove(self._live)

    async def _missed(self, cursor: Cursor) -> list[Item]:
        record = await self._store.turn(self._feed.key, self.turn)
        ending = ending_of(record)
        if ending is not None:
            return await self._missed_of_ended(cursor, ending)
        self._feed.expect(self.turn)
        if record is None:
            return _unless_given_out(cursor, Position(0, 0))
        try:
            return await self._feed.since(cursor)
        except NoResponder:
            return _unless_given_out(cursor, Position(record.epoch, END))

    async def _missed_of_ended(self, cursor: Cursor, ending: Ending) -> list[Item]:
        if cursor.position == ending.terminal.position:
            self.ended = True
            self.stop()
            return []
        try:
            missed = await self._feed.since(cursor)
        except Unavailable:
            missed = []  # the record has it too
        if ending.terminal in missed and not isinstance(missed[0], Lost):
            return missed
        return [
            Lost(cursor.position, ending.before),
            Shown(self.turn, ending.before, ending.snapshot),
            ending.terminal,
        ]

    def _live(self, item: Item) -> None:
        if self._waiting is None:
            if type(item) is Envelope and item.turn == self.turn and item.type not in TERMINAL:
                # Nearly every item comes this way: no more work than it takes.
                position = item[:2]
                if position > self._position and not self.ended:
                    self._position = position
                    self._sink(item)
            else:
                self._give(item)
        elif len(self._waiting) <= WAITING_LIMIT:
            self._waiting.append(item)

    def _give(self, item: Item) -> None:
        if self.ended or not self._concerns(item):
            return
        if isinstance(item, Envelope):
            self._position = max(self._position, item.position)
            self.ended = item.terminal
        self._sink(item)
        if self.ended:
            self.stop()

    def _concerns(self, item: Item) -> bool:
        if isinstance(item, Lost):
            return item.until >= self._position
        if item.turn != self.turn:
            return False
        if isinstance(item, Shown):
            return item.at >= self._position
        return item.terminal or item.position > self._position


def check_bound(waiting: list[Item]) -> None:
    """Raises Unavailable."""
    if len(waiting) > WAITING_LIMIT:
        raise Unavailable(f"more than {WAITING_LIMIT} events came while the past was asked for")


def _unless_given_out(cursor: Cursor, latest: Position) -> list[Item]:
    """Nothing was missed; but a cursor after the latest position that there can be is nobody's."""
    return [Lost(cursor.position, Position(0, 0))] if cursor.position > latest else []
