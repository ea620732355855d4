"""Watching a session: every turn of it, from now on or from a cursor, each event once and in order."""

from __future__ import annotations

from warmwire.broker.errors import NoResponder
from warmwire.broker.nats.store import Store
from warmwire.broker.reading.feed import Feed, Listener, ending_of
from warmwire.broker.reading.follower import WAITING_LIMIT, check_bound
from warmwire.broker.reading.reader import Ending, Item, Lost, Shown, View, whole
from warmwire.broker.wire.envelope import END, Cursor, Envelope, Position
from warmwire.broker.wire.events import TERMINAL
from warmwire.broker.wire.messages import Replay
from warmwire.producer.resume import NOWHERE, UNREAD

ENDED_LIMIT = 20
"""Turns that have ended since a cursor and are shown whole, the newest ones; those before are in the gap."""
RECORDS_LIMIT = 200
"""Turn records that are looked through for them, the oldest first."""


class SessionFollower:
    """A session as one viewer follows it. ``sink`` is called with each item, ``stop`` ends it."""

    def __init__(self, feed: Feed, store: Store, sink: Listener) -> None:
        self.turn = NOWHERE.turn  # of what the sink was given last
        self._feed = feed
        self._store = store
        self._sink = sink
        self._position: tuple[int, int] = Position(0, 0)
        self._open: set[str] = set()  # turns of which the sink has had something, but not the end
        self._waiting: list[Item] | None = None

    @property
    def cursor(self) -> Cursor:
        """Resumes just after what the sink has been given."""
        return Cursor(self.turn, *self._position)

    async def begin(self, cursor: Cursor | None, *, readable: bool = True) -> None:
        """Watch from a cursor, or from now on: then the turn that runs is shown as a snapshot.

        Returns once what came before has been given to the sink. The cases with a cursor, in this order:

        1. What came after it is in memory here, or with the owner: that.
        2. Turns have ended since: a gap, and of each its text and its end.
        3. A turn runs: what came after those ends, else a gap and a snapshot.
        4. It could not be read (not ``readable``), nobody has given it out, or what came after it is
           forgotten: a gap, and as from now on.

        Raises:
            Unavailable: it cannot be said what there is; nothing was given, repeat it later.
        """
        self._waiting = []
        self._feed.listeners.append(self._live)
        try:
            told = await (self._since(cursor) if cursor else self._now(lost=not readable))
            check_bound(self._waiting)
        except BaseException:
            self.stop()
            raise
        waiting, self._waiting = self._waiting, None
        for item in told:
            self._tell(item)
        for item in waiting:
            self._give(item)

    def stop(self) -> None:
        """Watch no longer."""
        if self._live in self._feed.listeners:
            self._feed.listeners.remove(self._live)

    # -- the past

    async def _now(self, *, lost: bool) -> list[Item]:
        view = await self._ask(Replay())
        self._position = at = view.at if view else (await self._last())[0]
        gap = [Lost(UNREAD, at)] if lost else []
        return [*gap, *_running(view)]

    async def _since(self, cursor: Cursor) -> list[Item]:
        here = self._position = cursor.position
        self.turn = cursor.turn
        recent = self._feed.recent(here)
        if recent is not None:
            return [*recent]
        view = await self._ask(Replay(epoch=cursor.epoch, seq=cursor.seq))
        events = _events(here, view)
        if view is not None and events is not None and view.at.epoch == here.epoch:
            return [*events]
        items, here = _ended(here, await self._endings(here, {event.turn for event in events or ()}))
        if view is None:
            at, most, ended = await self._last()
            forgotten = not items and here < at and here != ended  # what came after it, record and all
            return [*items, Lost(here, at)] if forgotten or here > most else items
        if events is not None:
            return [*items, *events]
        return [*items, Lost(here, view.at), *_running(view)] if view.at != here else items

    async def _ask(self, question: Replay) -> View | None:
        try:
            return await self._feed.ask(question)
        except NoResponder:
            return None

    async def _last(self) -> tuple[Position, Position, Position]:
        """Where a session without a living owner stands at least, how far it may have come, its last end."""
        owned = await self._store.owner(self._feed.key)
        last = await self._store.last_turn(self._feed.key)
        ending = ending_of(last.record) if last else None
        ended = ending.terminal.position if ending else Position(0, 0)
        if owned is None:
            return ended, ended, ended
        at = max(ended, Position(owned.sequence, 0))
        if owned.record.worker is None:  # released: what comes next has a higher epoch
            return at, Position(owned.sequence, 0), ended
        return at, Position(owned.sequence, END), ended

    async def _endings(self, here: Position, but: set[str]) -> list[Ending]:
        """The turns that ended after a position."""
        records = await self._store.turns(self._feed.key, 0, RECORDS_LIMIT)
        endings = [
            ending for found in records if (ending := ending_of(found.record)) and found.turn not in but
        ]
        after = [ending for ending in endings if ending.terminal.position > here]
        return sorted(after, key=lambda ending: ending.terminal.position)[-ENDED_LIMIT:]

    # -- giving

    def _live(self, item: Item) -> None:
        if self._waiting is None:
            if type(item) is Envelope and item[:2] > self._position and item.type not in TERMINAL:
                # Nearly every item comes this way, once per viewer: no more work than it takes.
                self._position = item[:2]
                if item.turn != self.turn or item.turn not in self._open:
                    self.turn = item.turn
                    self._open.add(item.turn)
                self._sink(item)
            else:
                self._give(item)
        elif len(self._waiting) <= WAITING_LIMIT:
            self._waiting.append(item)

    def _give(self, item: Item) -> None:
        if self._concerns(item):
            self._tell(item)

    def _concerns(self, item: Item) -> bool:
        if isinstance(item, Lost):
            return item.until > self._position
        if isinstance(item, Shown):
            return item.at >= self._position or item.turn in self._open
        return item.position > self._position or (item.terminal and item.turn in self._open)

    def _tell(self, item: Item) -> None:
        if isinstance(item, Lost):
            self._position = item.until
        else:
            self.turn = item.turn
            self._position = max(self._position, item.at if isinstance(item, Shown) else item.position)
            if isinstance(item, Envelope) and item.terminal:
                self._open.discard(item.turn)
            else:
                self._open.add(item.turn)
        self._sink(item)


def _running(view: View | None) -> list[Item]:
    if view is None or view.turn is None or view.snapshot is None:
        return []
    return [Shown(view.turn, view.at, view.snapshot)]


def _events(here: Position, view: View | None) -> list[Envelope] | None:
    """All that came after a position; None if the owner does not have it, or it lies in the future."""
    if view is None or view.events is None or view.at < here:
        return None
    return whole(here, view)


def _ended(here: Position, endings: list[Ending]) -> tuple[list[Item], Position]:
    """What is said of turns that have ended, and where that leads."""
    items: list[Item] = [Lost(here, endings[0].before)] if endings else []
    for ending in endings:
        items += [Shown(ending.terminal.turn, ending.before, ending.snapshot), ending.terminal]
        here = ending.terminal.position
    return items, here
