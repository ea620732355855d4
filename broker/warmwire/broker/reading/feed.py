"""One session's events as this process follows them: the I/O around ``reader``, for edge and producer.

However many viewers a session has here, it has one subscription, one reader and one ring of recent events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from warmwire.broker.errors import BadInput, NoResponder, Unavailable
from warmwire.broker.logs import logger
from warmwire.broker.nats.asking import ask
from warmwire.broker.nats.bus import Bus, Subscription
from warmwire.broker.nats.store import Store
from warmwire.broker.reading.reader import (
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
from warmwire.broker.tasks import Tasks
from warmwire.broker.telemetry import alien, gaps, repairs
from warmwire.broker.wire import envelope as codec
from warmwire.broker.wire.envelope import Cursor, Envelope, Position
from warmwire.broker.wire.events import Block, Snapshot
from warmwire.broker.wire.messages import Finished, OwnerView, Replay, TurnRecord, decode
from warmwire.broker.wire.names import SessionKey, Subjects
from warmwire.broker.wire.ring import Ring

log = logger(__name__)

RECORD_WITHIN = 1.0
"""Seconds after which a turn's record is asked for again."""
POSITION_WITHIN = 0.5
"""Seconds that opening a feed waits for its first position; then it goes on and the reader keeps asking."""
LINGER = 15.0
"""Seconds that a feed outlives its last viewer, so that a reconnect finds its ring."""
LINGERING = 1000
"""Feeds without a viewer that are kept; past it the one longest without is closed at once."""
Listener = Callable[[Item], None]
OnEnd = Callable[[SessionKey, Envelope], None]
"""Called once for each terminal event of a session that is followed here, however many follow it."""


class Feed:
    """Follows one session and tells its listeners, in order. Use ``Feeds.acquire``.

    A listener must not raise; one that does is logged and told nothing more.
    """

    __slots__ = (
        "_alien",
        "_bus",
        "_looking_up",
        "_on_end",
        "_positioned",
        "_reader",
        "_ring",
        "_store",
        "_subjects",
        "_subscription",
        "_tasks",
        "key",
        "listeners",
    )

    def __init__(
        self, bus: Bus, store: Store, subjects: Subjects, key: SessionKey, on_end: OnEnd | None = None
    ) -> None:
        self.key = key
        self._on_end = on_end or _unheard
        self.listeners: list[Listener] = []
        self._bus = bus
        self._store = store
        self._subjects = subjects
        self._reader = Reader(monotonic())
        self._ring = Ring()
        self._tasks = Tasks()
        self._looking_up: dict[str, bool] = {}  # turns, and whether each was asked for again meanwhile
        self._subscription: Subscription | None = None
        self._positioned = asyncio.Event()
        self._alien = False

    async def open(self) -> None:
        """Subscribe, and find out where the session stands. Raises Unavailable."""
        self._subscription = await self._bus.listen(self._subjects.events(self.key), self._arrived)
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
        return await ask(self._bus, self._subjects.control(self.key), question, _view)

    # -- arriving

    def _arrived(self, data: bytes) -> None:
        try:
            envelope = codec.decode(data)
        except BadInput as error:
            alien.add(1)
            if not self._alien:  # one line, however many there are
                subject = self._subjects.events(self.key)
                log.warning("alien message on an event subject", subject=subject, error=str(error))
            self._alien = True
            return
        now = monotonic()
        if self._reader.passes(envelope, now):
            self._ring.add(envelope)
            self._tell(envelope)
        else:
            self._act(self._reader.event(envelope, now))

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Ask):
                self._tasks.begin(self._ask(action), "ask the owner")
            elif isinstance(action, AskRecord):
                self._look_up(action.turn)
            else:
                self._show(action)
                if isinstance(action, Envelope) and action.terminal:  # such a one never simply passes
                    self._on_end(self.key, action)
        if self._reader.position is not None:
            self._positioned.set()

    def _show(self, item: Item) -> None:
        if isinstance(item, Envelope):
            self._ring.add(item)
        else:
            gaps.value += isinstance(item, Lost)
            self._ring.begin(item.at if isinstance(item, Shown) else item.until)
        self._tell(item)

    def _tell(self, item: Item) -> None:
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
        repairs.value += after is not None
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
        except (Unavailable, BadInput) as error:
            # At an outage of many sessions at once, several times a second.
            log.debug("owner record could not be read", session=str(self.key), error=str(error))
            self._act(self._reader.unanswered(number))
            return
        epoch = owned.sequence if owned else 0
        if owned is not None and owned.record.worker is not None:
            self._act(self._reader.unanswered(number, epoch))  # being born, paused or dead
        else:
            self._act(self._reader.vacant(number, epoch, monotonic()))

    def _look_up(self, turn: str) -> None:
        again = turn in self._looking_up
        self._looking_up[turn] = again
        if not again:
            self._tasks.begin(self._look_up_until_known(turn), "look up a turn")

    async def _look_up_until_known(self, turn: str) -> None:
        ending = None
        while True:
            self._looking_up[turn] = False
            try:
                # Of a connection that breaks meanwhile nothing comes.
                async with asyncio.timeout(RECORD_WITHIN):
                    ending = ending_of(await self._store.turn(self.key, turn))
            except (Unavailable, TimeoutError) as error:
                log.debug("turn record cannot be read yet", turn=turn, error=str(error))
                await asyncio.sleep(ASK_AGAIN)
                continue
            except BadInput as error:
                log.exception("turn record is unreadable", turn=turn, error=str(error))
            if ending is not None or not self._looking_up[turn]:
                break  # else what was read may be older than the question
        del self._looking_up[turn]
        self._act(self._reader.recorded(turn, ending, monotonic()))


def _unheard(_key: SessionKey, _terminal: Envelope) -> None:
    """Nobody counts."""


def _view(answer: bytes) -> View:
    view = decode(OwnerView, answer)
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

    def __init__(
        self,
        bus: Bus,
        store: Store,
        subjects: Subjects,
        linger: float = LINGER,
        on_end: OnEnd | None = None,
    ) -> None:
        self._bus = bus
        self._store = store
        self._subjects = subjects
        self._linger = linger
        self._on_end = on_end
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
            feed = Feed(self._bus, self._store, self._subjects, key, self._on_end)
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
