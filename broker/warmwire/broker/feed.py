"""One session's events as this process follows them: the I/O around ``reader``. Shared by edge and producer library.

However many viewers a session has here, it has one subscription, one reader and one ring of recent events.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

import structlog
from nats.aio.subscription import Subscription

from warmwire.broker import envelope as codec
from warmwire.broker.bus import Arrived, Bus
from warmwire.broker.envelope import Cursor, Envelope, Position
from warmwire.broker.errors import BadInput, NoResponder, Unavailable
from warmwire.broker.events import Block, Snapshot
from warmwire.broker.messages import Finished, OwnerView, Replay, decode
from warmwire.broker.names import SessionKey, Subjects
from warmwire.broker.reader import ASK_AGAIN, Action, Ask, AskRecord, Item, Lost, Reader, Shown, View
from warmwire.broker.store import Store

log = structlog.get_logger(__name__)

RING_BYTES = 64 * 1024
"""Bytes of recent events kept per session for viewers that come back. Older ones are asked of the owner."""
ASK_WITHIN = 1.0
"""Seconds that an owner may take to answer."""
POSITION_WITHIN = 0.5
"""Seconds that opening a feed waits for its first position; then it goes on and the reader keeps asking."""
LINGER = 15.0
"""Seconds that a feed outlives its last viewer, so that a reconnect finds its ring."""

Listener = Callable[[Item], None]


class Feed:
    """Follows one session and tells its listeners, in order. Use ``Feeds.acquire``."""

    def __init__(self, bus: Bus, store: Store, subjects: Subjects, key: SessionKey) -> None:
        self.key = key
        self.listeners: list[Listener] = []
        self._bus = bus
        self._store = store
        self._subjects = subjects
        self._reader = Reader(monotonic())
        self._subscription: Subscription | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ring: deque[Envelope] = deque()
        self._ring_bytes = 0
        self._ring_start: Position | None = None
        self._positioned = asyncio.Event()

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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._subscription is not None and self._bus.connected:
            await self._subscription.unsubscribe()

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

        Raises:
            Unavailable: the owner does not answer.
        """
        recent = self._recent(cursor.position)
        if recent is not None:
            return recent
        view = await self._ask_owner(Replay(turn=cursor.turn, epoch=cursor.epoch, seq=cursor.seq))
        shown = (
            [] if view.snapshot is None or view.turn is None else [Shown(view.turn, view.at, view.snapshot)]
        )
        past: list[Item] = (
            list(view.events) if view.events is not None else [Lost(cursor.position, view.at), *shown]
        )
        return past + (self._recent(view.at) or [])

    # -- arriving

    def _arrived(self, message: Arrived) -> None:
        try:
            envelope = codec.decode(message.data)
        except BadInput as error:
            log.warning(
                "alien message on an event subject dropped", subject=message.subject, error=str(error)
            )
            return
        self._act(self._reader.event(envelope, monotonic()))

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Ask):
                self._begin(self._ask(action.after))
            elif isinstance(action, AskRecord):
                self._begin(self._ask_record(action.turn))
            else:
                self._show(action)
        if self._reader.position is not None:
            self._positioned.set()

    def _show(self, item: Item) -> None:
        if isinstance(item, Envelope):
            self._remember(item)
        else:
            self._ring.clear()
            self._ring_bytes = 0
            self._ring_start = item.at if isinstance(item, Shown) else item.until
        for listener in tuple(self.listeners):
            listener(item)

    # -- the ring

    def _remember(self, envelope: Envelope) -> None:
        self._ring.append(envelope)
        self._ring_bytes += len(envelope.event)
        while self._ring_bytes > RING_BYTES:
            oldest = self._ring.popleft()
            self._ring_bytes -= len(oldest.event)
            self._ring_start = oldest.position

    def _recent(self, after: Position) -> list[Item] | None:
        """The events after a position, if the ring still knows it."""
        for number in range(len(self._ring) - 1, -1, -1):
            if self._ring[number].position == after:
                return list(self._ring)[number + 1 :]
        return list(self._ring) if after == self._ring_start else None

    # -- asking

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, after: Position | None) -> None:
        question = Replay(epoch=after.epoch, seq=after.seq) if after else Replay()
        try:
            self._act(self._reader.answered(await self._ask_owner(question), monotonic()))
        except NoResponder:
            await self._ask_owner_record()
        except Unavailable:
            self._reader.unanswered()

    async def _ask_owner_record(self) -> None:
        try:
            owned = await self._store.owner(self.key)
        except Unavailable:
            self._reader.unanswered()
            return
        if owned is not None and owned.record.worker is not None:
            self._reader.unanswered()  # named but silent: being born, paused or dead
        else:
            self._act(self._reader.vacant(owned.sequence if owned else 0, monotonic()))

    async def _ask_record(self, turn: str) -> None:
        terminal = None
        try:
            record = await self._store.turn(self.key, turn)
            if isinstance(record, Finished):
                terminal = codec.decode(record.envelope.encode())
        except (Unavailable, BadInput) as error:
            log.warning("turn record could not be read", turn=turn, error=str(error))
        self._act(self._reader.recorded(turn, terminal, monotonic()))

    async def _ask_owner(self, question: Replay) -> View:
        answer = await self._bus.request(self._subjects.control(self.key), question.encode(), ASK_WITHIN)
        try:
            return _view(decode(OwnerView, answer))
        except BadInput as error:
            raise Unavailable(f"the owner answered nonsense: {error}") from error


def _view(view: OwnerView) -> View:
    events = None if view.events is None else tuple(codec.decode(event.encode()) for event in view.events)
    snapshot = None if view.snapshot is None else view.snapshot.encode()
    return View(Position(view.epoch, view.seq), view.turn, events, snapshot)


class Feeds:
    """The feeds of this process, one per session that somebody here is following."""

    def __init__(self, bus: Bus, store: Store, subjects: Subjects) -> None:
        self._bus = bus
        self._store = store
        self._subjects = subjects
        self._feeds: dict[SessionKey, tuple[Feed, asyncio.Task[None]]] = {}
        self._users: dict[SessionKey, int] = {}
        self._closing: set[asyncio.Future[None]] = set()
        self._ticker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch the time."""
        self._ticker = asyncio.create_task(self._tick(), name="feeds")
        self._bus.on_reconnect(self._reconnected)

    async def stop(self) -> None:
        """Close every feed."""
        self._bus.forget_reconnect(self._reconnected)
        if self._ticker is not None:
            self._ticker.cancel()
        for feed, opening in self._feeds.values():
            opening.cancel()
            await feed.close()
        self._feeds.clear()

    async def acquire(self, key: SessionKey) -> Feed:
        """The session's feed, opened. Give it back with ``release``. Raises Unavailable."""
        self._users[key] = self._users.get(key, 0) + 1
        if key not in self._feeds:
            feed = Feed(self._bus, self._store, self._subjects, key)
            self._feeds[key] = (feed, asyncio.create_task(feed.open()))
        feed, opening = self._feeds[key]
        try:
            await asyncio.shield(opening)
        except Unavailable:
            if self._feeds.get(key, (None,))[0] is feed:
                del self._feeds[key]
            self.release(key)
            raise
        except asyncio.CancelledError:
            self.release(key)
            raise
        return feed

    def release(self, key: SessionKey) -> None:
        """Somebody no longer needs the session's feed; it closes ``LINGER`` seconds after the last."""
        self._users[key] -= 1
        if self._users[key] == 0:
            del self._users[key]
            asyncio.get_running_loop().call_later(LINGER, self._close_if_unused, key)

    def _close_if_unused(self, key: SessionKey) -> None:
        if key not in self._users and key in self._feeds:
            feed, _ = self._feeds.pop(key)
            closing = asyncio.ensure_future(feed.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _reconnected(self) -> None:
        for feed, _ in tuple(self._feeds.values()):
            feed.reconnected(monotonic())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(ASK_AGAIN)
            now = monotonic()
            for feed, _ in tuple(self._feeds.values()):
                feed.tick(now)


class Follower:
    """One turn as one viewer follows it: from its beginning or a cursor, each event once, to its terminal event.

    ``sink`` is called with each item; after the terminal event ``ended`` is true and it is called no more.
    """

    def __init__(self, feed: Feed, store: Store, turn: str, sink: Listener) -> None:
        self.turn = turn
        self.ended = False
        self._feed = feed
        self._store = store
        self._sink = sink
        self._position = Position(0, 0)
        self._waiting: list[Item] | None = None

    def begin(self) -> None:
        """Follow a turn that is about to be submitted."""
        self._feed.expect(self.turn)
        self._feed.listeners.append(self._live)

    async def resume(self, cursor: Cursor) -> None:
        """Follow from a cursor; returns once what was missed has been given to the sink. Raises Unavailable."""
        self._position = cursor.position
        self._waiting = []
        self._feed.listeners.append(self._live)
        try:
            record = await self._store.turn(self._feed.key, self.turn)
            finished = record if isinstance(record, Finished) else None
            if finished is None:
                self._feed.expect(self.turn)
            for item in await self._missed(cursor, finished):
                self._give(item)
        finally:
            waiting, self._waiting = self._waiting or [], None
            for item in waiting:
                self._give(item)

    def stop(self) -> None:
        """Follow no longer."""
        if self._live in self._feed.listeners:
            self._feed.listeners.remove(self._live)

    async def _missed(self, cursor: Cursor, finished: Finished | None) -> list[Item]:
        if finished is None:
            try:
                return await self._feed.since(cursor)
            except NoResponder:
                return []  # between two owners: the next one begins the turn again and says so
        terminal = codec.decode(finished.envelope.encode())
        if cursor.position >= terminal.position:
            self.ended = True
            return []
        try:
            missed = await self._feed.since(cursor)
        except Unavailable:
            missed = []
        whole = not any(isinstance(item, Lost) for item in missed) and terminal in missed
        return missed if whole else _from_record(cursor, finished, terminal)

    def _live(self, item: Item) -> None:
        if self._waiting is not None:
            self._waiting.append(item)
        else:
            self._give(item)

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
            return True
        if item.turn != self.turn:
            return False
        return isinstance(item, Shown) or item.terminal or item.position > self._position


def _from_record(cursor: Cursor, finished: Finished, terminal: Envelope) -> list[Item]:
    """A finished turn whose events are gone: its whole text, then its end."""
    block = Block(message=0, index=0, kind="text", text=finished.text)
    event = Snapshot(
        turn=terminal.turn, attempt=terminal.attempt, blocks=(block,), truncated=finished.truncated
    )
    before = Position(terminal.epoch, terminal.seq - 1)
    return [Lost(cursor.position, before), Shown(terminal.turn, before, event.encode()), terminal]
