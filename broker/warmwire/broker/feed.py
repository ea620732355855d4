"""One session's events as this process follows them: the I/O around ``reader``, for edge and producer.

However many viewers a session has here, it has one subscription, one reader and one ring of recent events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import structlog

from warmwire.broker import envelope as codec
from warmwire.broker.bus import Arrived, Bus, Subscription
from warmwire.broker.envelope import END, Cursor, Envelope, Position
from warmwire.broker.errors import BadInput, NoResponder, Unavailable
from warmwire.broker.events import Block, Snapshot
from warmwire.broker.messages import Finished, OwnerView, Replay, TurnRecord, decode
from warmwire.broker.names import SessionKey, Subjects
from warmwire.broker.reader import (
    ASK_AGAIN,
    Action,
    Ask,
    AskRecord,
    Ending,
    Item,
    Lost,
    Reader,
    Shown,
    View,
    whole,
)
from warmwire.broker.ring import Ring
from warmwire.broker.store import Store
from warmwire.broker.tasks import Tasks
from warmwire.broker.telemetry import alien

log = structlog.get_logger(__name__)

ASK_WITHIN = 1.0
"""Seconds that an owner may take to answer."""
POSITION_WITHIN = 0.5
"""Seconds that opening a feed waits for its first position; then it goes on and the reader keeps asking."""
LINGER = 15.0
"""Seconds that a feed outlives its last viewer, so that a reconnect finds its ring."""
LINGERING = 1000
"""Feeds without a viewer that are kept; past it the one longest without is closed at once."""
WAITING_LIMIT = 10_000
"""Events that may arrive while a follower asks for what it missed; past it resuming fails."""

Listener = Callable[[Item], None]


class Feed:
    """Follows one session and tells its listeners, in order. Use ``Feeds.acquire``.

    A listener must not raise; one that does is logged and told nothing more.
    """

    def __init__(self, bus: Bus, store: Store, subjects: Subjects, key: SessionKey) -> None:
        self.key = key
        self.listeners: list[Listener] = []
        self._bus = bus
        self._store = store
        self._subjects = subjects
        self._reader = Reader(monotonic())
        self._ring = Ring()
        self._tasks = Tasks()
        self._looking_up: set[str] = set()
        self._subscription: Subscription | None = None
        self._positioned = asyncio.Event()
        self._alien = False

    async def open(self) -> None:
        """Subscribe, and find out where the session stands. Raises Unavailable."""
        self._subscription = await self._bus.subscribe(self._subjects.events(self.key), self._arrived)
        await self._bus.flush()
        self._act(self._reader.start(monotonic()))
        try:
            async with asyncio.timeout(POSITION_WITHIN):
                await self._positioned.wait()
        except TimeoutError:
            log.info("the session's owner does not answer yet", session=str(self.key))

    async def close(self) -> None:
        """Stop following."""
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        await self._tasks.stop()  # after it: an event may begin a task

    def expect(self, turn: str) -> None:
        """The turn is being submitted here: its end is waited for."""
        self._reader.expect(turn)

    def tick(self, now: float) -> None:
        """Time has passed."""
        self._act(self._reader.tick(now))

    def reconnected(self, now: float) -> None:
        """The connection was gone for a while."""
        self._act(self._reader.reconnected(now))

    async def since(self, cursor: Cursor) -> list[Item]:
        """What came after a cursor, up to where the listeners are now or a little further.

        A ``Lost`` at its beginning says that not all of it can be had; things go on after its ``until``, even
        if that lies before the cursor, which was then given out by nobody.

        Raises:
            NoResponder: there is no owner.
            Unavailable: the owner does not answer.
        """
        recent = self.recent(cursor.position)
        if recent is not None:
            return [*recent]
        view = await self.ask(Replay(turn=cursor.turn, epoch=cursor.epoch, seq=cursor.seq))
        if view.events is not None and view.at >= cursor.position and _unbroken(cursor, view):
            return [*view.events]
        lost = Lost(cursor.position, view.at)
        if view.turn is None or view.snapshot is None:
            return [lost]
        return [lost, Shown(view.turn, view.at, view.snapshot)]

    def recent(self, position: Position) -> list[Envelope] | None:
        """What came after a position, if it is still in memory here."""
        return self._ring.after(position)

    async def ask(self, question: Replay) -> View:
        """What the session's owner answers. Raises NoResponder, Unavailable."""
        answer = await self._bus.request(self._subjects.control(self.key), question.encode(), ASK_WITHIN)
        try:
            return _view(decode(OwnerView, answer))
        except BadInput as error:
            raise Unavailable(f"the owner answered nonsense: {error}") from error

    # -- arriving

    def _arrived(self, message: Arrived) -> None:
        try:
            envelope = codec.decode(message.data)
        except BadInput as error:
            alien.add(1)
            if not self._alien:  # one line, however many there are
                log.warning("alien message on an event subject", subject=message.subject, error=str(error))
            self._alien = True
            return
        self._act(self._reader.event(envelope, monotonic()))

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Ask):
                self._tasks.begin(self._ask(action), "ask the owner")
            elif isinstance(action, AskRecord):
                self._look_up(action.turn)
            else:
                self._show(action)
        if self._reader.position is not None:
            self._positioned.set()

    def _show(self, item: Item) -> None:
        if isinstance(item, Envelope):
            self._ring.add(item)
        else:
            self._ring.begin(item.at if isinstance(item, Shown) else item.until)
        for listener in tuple(self.listeners):
            try:
                listener(item)
            except Exception:
                log.exception("a viewer failed and is left behind", session=str(self.key))
                self.listeners.remove(listener)

    # -- asking

    async def _ask(self, question: Ask) -> None:
        number, after = question.number, question.after
        request = Replay(epoch=after.epoch, seq=after.seq) if after else Replay()
        try:
            view = await self.ask(request)
        except NoResponder:
            await self._ask_owner_record(number)
        except Unavailable:
            self._act(self._reader.unanswered(number))
        else:
            self._act(self._reader.answered(number, view, monotonic()))

    async def _ask_owner_record(self, number: int) -> None:
        try:
            owned = await self._store.owner(self.key)
        except (
            Unavailable,
            BadInput,
        ) as error:  # at an outage of many sessions at once, several times a second
            log.debug("owner record could not be read", session=str(self.key), error=str(error))
            self._act(self._reader.unanswered(number))
            return
        epoch = owned.sequence if owned else 0
        if owned is not None and owned.record.worker is not None:
            self._act(self._reader.unanswered(number, epoch))  # being born, paused or dead
        else:
            self._act(self._reader.vacant(number, epoch, monotonic()))

    def _look_up(self, turn: str) -> None:
        if turn not in self._looking_up:
            self._looking_up.add(turn)
            self._tasks.begin(self._look_up_until_known(turn), "look up a turn")

    async def _look_up_until_known(self, turn: str) -> None:
        ending = None
        while True:
            try:
                async with asyncio.timeout(ASK_WITHIN):  # of a connection that breaks meanwhile nothing comes
                    ending = ending_of(await self._store.turn(self.key, turn))
            except (Unavailable, TimeoutError) as error:
                log.debug("turn record cannot be read yet", turn=turn, error=str(error))
                await asyncio.sleep(ASK_AGAIN)
                continue
            except BadInput as error:
                log.exception("turn record is unreadable", turn=turn, error=str(error))
            break
        self._looking_up.discard(turn)
        self._act(self._reader.recorded(turn, ending, monotonic()))


def _view(view: OwnerView) -> View:
    events = None if view.events is None else tuple(codec.decode(event.encode()) for event in view.events)
    snapshot = None if view.snapshot is None else view.snapshot.encode()
    return View(Position(view.epoch, view.seq), view.turn, events, snapshot)


def _unbroken(cursor: Cursor, view: View) -> bool:
    """With sequence 0 the turn was asked for from its beginning, wherever that is."""
    events = view.events or ()
    first = Position(events[0].epoch, events[0].seq - 1) if events and cursor.seq == 0 else cursor.position
    return whole(first, view) is not None


def ending_of(record: TurnRecord | None) -> Ending | None:
    """How the turn ended, from its record; None while it has not."""
    if not isinstance(record, Finished):
        return None
    terminal = codec.decode(record.envelope.encode())
    block = Block(message=0, index=0, kind="text", text=record.text)
    event = Snapshot(
        turn=terminal.turn, attempt=terminal.attempt, blocks=(block,), truncated=record.truncated
    )
    return Ending(terminal, event.encode())


@dataclass(eq=False, slots=True)
class _Followed:
    """A session that is followed here: its feed and how many use it."""

    feed: Feed
    opening: asyncio.Task[None]
    users: int = 0

    @property
    def failed(self) -> bool:
        """Whether the feed could not be opened."""
        opening = self.opening
        return opening.done() and (opening.cancelled() or opening.exception() is not None)

    async def opened(self) -> Feed:
        """The feed, once it is open. Raises Unavailable."""
        await asyncio.wait({self.opening})
        if self.opening.cancelled():
            raise Unavailable("this process is leaving")
        self.opening.result()
        return self.feed

    async def close(self) -> None:
        """Stop following, or opening."""
        self.opening.cancel()
        await asyncio.wait({self.opening})
        await self.feed.close()


class Feeds:
    """The feeds of this process, one per session that somebody here is following."""

    def __init__(self, bus: Bus, store: Store, subjects: Subjects, linger: float = LINGER) -> None:
        self._bus = bus
        self._store = store
        self._subjects = subjects
        self._linger = linger
        self._followed: dict[SessionKey, _Followed] = {}
        self._lingering: dict[SessionKey, asyncio.TimerHandle] = {}  # the one longest without a viewer first
        self._ticking = Tasks()
        self._closing = Tasks()
        self._stopped = False

    def start(self) -> None:
        """Begin to watch the time."""
        self._ticking.begin(self._tick(), "feeds")
        self._bus.on_reconnect(self._reconnected)

    async def stop(self) -> None:
        """Close every feed."""
        self._stopped = True
        self._bus.forget_reconnect(self._reconnected)
        await self._ticking.stop()
        for key in tuple(self._followed):
            self._close(key)
        await self._closing.finish()

    async def acquire(self, key: SessionKey) -> Feed:
        """The session's feed, opened. Give it back with ``release``. Raises Unavailable."""
        followed = self._follow(key)
        followed.users += 1
        try:
            return await followed.opened()
        except BaseException:
            self._leave(key, followed)
            raise

    def release(self, key: SessionKey) -> None:
        """Somebody no longer needs the session's feed; it closes ``LINGER`` seconds after the last."""
        if not self._stopped:
            self._leave(key, self._followed[key])

    def _follow(self, key: SessionKey) -> _Followed:
        if self._stopped:
            raise Unavailable("this process is leaving")
        if key in self._followed and self._followed[key].failed:
            self._close(key)
        if timer := self._lingering.pop(key, None):
            timer.cancel()
        if key not in self._followed:
            feed = Feed(self._bus, self._store, self._subjects, key)
            self._followed[key] = _Followed(feed, asyncio.create_task(feed.open(), name="open a feed"))
        return self._followed[key]

    def _leave(self, key: SessionKey, followed: _Followed) -> None:
        followed.users -= 1
        if self._followed.get(key) is not followed:
            return  # it could not be opened, and is closed already
        if followed.failed:
            self._close(key)
        elif followed.users == 0:
            loop = asyncio.get_running_loop()
            self._lingering[key] = loop.call_later(self._linger, self._close, key)
            if len(self._lingering) > LINGERING:
                self._close(next(iter(self._lingering)))

    def _close(self, key: SessionKey) -> None:
        if timer := self._lingering.pop(key, None):
            timer.cancel()
        self._closing.begin(self._followed.pop(key).close(), "close a feed")

    def _reconnected(self) -> None:
        for followed in tuple(self._followed.values()):
            followed.feed.reconnected(monotonic())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(ASK_AGAIN)
            now = monotonic()
            for followed in tuple(self._followed.values()):
                try:
                    followed.feed.tick(now)
                except Exception:  # a fault of ours in one session is none in all
                    log.exception("a feed failed", session=str(followed.feed.key))


class Follower:
    """One turn as one viewer follows it: from its beginning or a cursor, each event once, to its end.

    ``sink`` is called with each item; after the terminal event ``ended`` is true and it is called no more.
    """

    def __init__(self, feed: Feed, store: Store, turn: str, sink: Listener) -> None:
        self.turn = turn
        self.ended = False
        self._feed = feed
        self._store = store
        self._sink = sink
        self._position = Position(0, 0)  # of this turn's last event that the sink has been given
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
