"""Submitting user messages and following their turns, by callback: what ``Turn`` and the edge stand on."""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic

from opentelemetry.trace import SpanKind

from warmwire.broker.errors import Conflict, NoResponder, Unavailable
from warmwire.broker.logs import logger
from warmwire.broker.nats.asking import ask
from warmwire.broker.nats.bus import Bus
from warmwire.broker.nats.store import Accepted, Queued, Store
from warmwire.broker.reading.feed import Feeds, Listener, OnEnd
from warmwire.broker.reading.follower import WAITING_LIMIT, Follower
from warmwire.broker.reading.reader import Item, Lost
from warmwire.broker.telemetry import inject, tracer
from warmwire.broker.wire.envelope import Cursor, Position
from warmwire.broker.wire.messages import (
    Finished,
    Interrupt,
    InterruptReply,
    M,
    Message,
    OwnerView,
    Permission,
    PermissionReply,
    Replay,
    decode,
)
from warmwire.broker.wire.names import SessionKey, Subjects
from warmwire.producer.errors import KeyReused, MessageTooLarge, NotAsked, QuestionClosed, SessionBusy
from warmwire.producer.request import Request
from warmwire.producer.resume import Found, judge
from warmwire.producer.session_follower import SessionFollower

log = logger(__name__)

ACCEPT_WITHIN = 10.0
"""Seconds in which an acceptance is tried again; an election of the stream's leader takes about 5."""
FIRST_PAUSE = 0.1
"""Seconds before the second try; each further pause is twice as long."""
HEADERS = 1024
"""Bytes that the headers of a user message may take."""


class _Held:
    """A sink that keeps what comes until it is known whether that is the beginning."""

    def __init__(self) -> None:
        self._items: list[Item] = []

    def __call__(self, item: Item) -> None:
        if len(self._items) <= WAITING_LIMIT:
            self._items.append(item)

    def release(self, follower: Follower, sink: Listener) -> bool:
        """It is: the sink gets that, and what comes from now on. False if there was more than is kept."""
        if len(self._items) > WAITING_LIMIT:
            return False
        follower.tell(sink)
        for item in self._items:
            sink(item)
        return True


class Following:
    """Somebody here who follows a turn or a session, by its feed. ``stop`` it, also after its end."""

    def __init__(self, feeds: Feeds, key: SessionKey, follower: Follower | SessionFollower) -> None:
        self.key = key
        self._feeds = feeds
        self._stop = follower.stop
        self._stopped = False

    def mute(self) -> None:
        """Give the sink nothing more; the session's feed stays for who follows next. ``stop`` it, too."""
        self._stop()

    def stop(self) -> None:
        """Give the sink nothing more and let the session's feed go."""
        if not self._stopped:
            self._stopped = True
            self._stop()
            self._feeds.release(self.key)


class Followed(Following):
    """A turn."""

    def __init__(self, feeds: Feeds, key: SessionKey, follower: Follower) -> None:
        super().__init__(feeds, key, follower)
        self.turn = follower.turn
        self._follower = follower

    @property
    def ended(self) -> bool:
        """Whether the sink has been given the terminal event, or had it already."""
        return self._follower.ended


class Watched(Following):
    """Every turn of a session."""

    def __init__(self, feeds: Feeds, key: SessionKey, follower: SessionFollower) -> None:
        super().__init__(feeds, key, follower)
        self._follower = follower

    @property
    def cursor(self) -> Cursor:
        """Resumes just after what the sink has been given."""
        return self._follower.cursor


class Sessions:
    """All sessions that this process writes to or watches, over one connection."""

    def __init__(self, bus: Bus, subjects: Subjects, on_end: OnEnd | None = None) -> None:
        self._bus = bus
        self._subjects = subjects
        self._store = Store(bus, subjects)
        self._feeds = Feeds(bus, self._store, subjects, on_end=on_end)

    def start(self) -> None:
        """Begin to watch the time."""
        self._feeds.start()

    async def stop(self) -> None:
        """Close every feed."""
        await self._feeds.stop()

    async def submit(self, request: Request, sink: Listener) -> Followed:
        """Publish a user message and follow its turn; the sink may be called before this returns.

        A repetition (same idempotency key) publishes nothing new and follows the turn from its beginning.
        Raises as ``publish``.
        """
        held = _Held()
        follower = Follower(await self._feeds.acquire(request.key), self._store, request.turn, held)
        followed = Followed(self._feeds, request.key, follower)
        try:
            follower.begin()
            first = await self.publish(request)
            if (first or not request.keyed) and held.release(follower, sink):
                return followed
        except BaseException:
            followed.stop()
            raise
        # A first submission may have happened elsewhere: whatever it has brought so far comes first.
        followed.stop()
        return await self.follow(request.key, Cursor(request.turn, 0, 0), sink)

    async def publish(self, request: Request) -> bool:
        """Publish a user message; of a repetition (same idempotency key) nothing.

        Returns whether it is known to be the first submission.

        Raises:
            SessionBusy: asked to reject and the session is busy.
            KeyReused: the idempotency key stands for another message.
            MessageTooLarge: for the NATS server.
            QueueFull, StoreFull: not accepted.
            Unavailable: perhaps accepted; a repetition with the same idempotency key is safe.
        """
        key, turn = request.key, request.turn
        record = await self._store.turn(key, turn) if request.keyed else None
        if record is not None:
            _check_same(request, record.digest)
            return False
        accepted = await self._accept(request)
        if request.keyed and accepted.duplicate and await self._is_gone(request):
            await self._store.submit(key, request.message, inject(), repeated=True)
        if request.message.options.double_texting == "interrupt":
            await self._interrupt_before(key, accepted.sequence)
        return not accepted.duplicate

    async def _is_gone(self, request: Request) -> bool:
        """Whether the server remembers a message that is nowhere: its session was deleted."""
        for queued in await self._store.queued(request.key):
            if queued.message.turn == request.turn:
                _check_same(request, queued.message.digest)
                return False
        return await self._store.turn(request.key, request.turn) is None

    async def _interrupt_before(self, key: SessionKey, sequence: int) -> None:
        for queued in reversed(await self._store.queued(key)):  # so that none of them begins meanwhile
            if queued.sequence < sequence:
                await self.interrupt(key, queued.message.turn)

    async def judge(self, key: SessionKey, cursor: Cursor | None) -> Cursor | Lost | None:
        """What a viewer with that cursor (None: it could not be read) is to be told. Raises Unavailable."""
        waiting = await self._store.queued(key)
        queued = cursor is not None and any(each.message.turn == cursor.turn for each in waiting)
        view = await self._view(key)
        recorded = cursor is not None and await self._store.turn(key, cursor.turn) is not None
        at = Position(view.epoch, view.seq) if view else Position(0, 0)
        return judge(cursor, Found(queued, view.turn if view else None, at, recorded))

    async def follow(self, key: SessionKey, cursor: Cursor, sink: Listener) -> Followed:
        """Follow a turn; never submits. What was missed has been given to the sink when this returns.

        It has ``ended`` and the sink was told nothing if the cursor was the turn's end.

        Raises:
            Unavailable: it cannot be said what was missed; nothing was given.
        """
        follower = Follower(await self._feeds.acquire(key), self._store, cursor.turn, sink)
        followed = Followed(self._feeds, key, follower)
        try:
            await follower.resume(cursor)
        except BaseException:
            followed.stop()
            raise
        return followed

    async def watch(self, key: SessionKey, cursor: Cursor | None, sink: Listener, **how: bool) -> Watched:
        """Follow every turn of a session; ``cursor`` and ``how`` as for ``SessionFollower.begin``."""
        follower = SessionFollower(await self._feeds.acquire(key), self._store, sink)
        watched = Watched(self._feeds, key, follower)
        try:
            await follower.begin(cursor, **how)
        except BaseException:
            watched.stop()
            raise
        return watched

    async def waiting(self, key: SessionKey) -> tuple[Queued, ...]:
        """The messages that wait or run, in order. Raises Unavailable."""
        return await self._store.queued(key)

    async def knows(self, key: SessionKey, turn: str) -> bool:
        """Whether the turn's message has been accepted and is remembered. Raises Unavailable."""
        if await self._store.turn(key, turn) is not None:
            return True
        return any(queued.message.turn == turn for queued in await self._store.queued(key))

    async def turns_of(self, tenant: str) -> int:
        """How many turns of the tenant wait or run. Raises Unavailable."""
        return await self._store.queued_of(tenant)

    async def kept_of(self, tenant: str) -> int:
        """How many sessions of the tenant there are. Raises Unavailable."""
        return await self._store.sessions_of(tenant)

    async def viewed(self, most: int) -> list[tuple[SessionKey, str]]:
        """Turns that wait or run for a viewer, among the first so many messages. Raises Unavailable."""
        return [
            (key, queued.message.turn)
            async for key, queued in self._store.all_queued(most)
            if queued.message.viewed
        ]

    async def interrupt(self, key: SessionKey, turn: str | None = None) -> str | None:
        """Stop a turn (None: the one at hand): now if it runs, else as soon as it would begin.

        Returns the turn that is stopped, None if there is nothing to stop. Never stops a later turn.
        Raises Unavailable.
        """
        stopped = await self._stopped_by_owner(key, turn)
        if stopped is not None:
            return stopped
        if turn is None:
            queued = await self._store.queued(key)
            if not queued:
                return None
            turn = queued[0].message.turn
        if isinstance(await self._store.turn(key, turn), Finished):
            return None  # its end is told before it leaves the queue
        await self._store.ask_interrupt(key, turn)
        await self._stopped_by_owner(key, turn)  # it may have begun just before that was stored
        return turn

    async def permit(self, key: SessionKey, answer: Permission) -> None:
        """Answer a question of the CLI's.

        Raises:
            NotAsked: nobody has asked that.
            QuestionClosed: it is open no longer: the first answer counts, and only in time.
            Unavailable: the owner does not answer; perhaps it has the answer.
        """
        try:
            said = await self._ask_owner(key, answer, PermissionReply)
        except NoResponder:  # with its owner a question is gone
            raise NotAsked(answer.request) from None
        if said.outcome == "closed":
            raise QuestionClosed(answer.request)
        if said.outcome == "unknown":
            raise NotAsked(answer.request)

    async def _stopped_by_owner(self, key: SessionKey, turn: str | None) -> str | None:
        try:
            return (await self._ask_owner(key, Interrupt(turn=turn), InterruptReply)).turn
        except NoResponder:
            log.debug("nobody owns the session yet; the interrupt waits for its turn", turn=turn)
            return None

    # -- submitting

    async def _accept(self, request: Request) -> Accepted:
        size, most = len(request.message.encode()) + HEADERS, self._bus.max_payload
        if size > most:
            raise MessageTooLarge(size, most - HEADERS)
        queue = f"{self._subjects.prefix}.req"
        attributes = {
            "messaging.system": "nats",
            "messaging.operation.type": "send",
            "messaging.destination.name": queue,
            "messaging.message.id": request.turn,
            "gen_ai.conversation.id": request.key.session,
        }
        with tracer().start_as_current_span(f"send {queue}", kind=SpanKind.PRODUCER, attributes=attributes):
            return await self._until_accepted(request, inject())

    async def _until_accepted(self, request: Request, headers: dict[str, str]) -> Accepted:
        """Tried again with the same turn id: accepted once, whatever was lost."""
        key, message = request.key, request.message
        reject = message.options.double_texting == "reject"
        until, pause = monotonic() + ACCEPT_WITHIN, FIRST_PAUSE
        while True:
            try:
                return await self._store.submit(key, message, headers, only_if_idle=reject)
            except Conflict as error:
                raise SessionBusy(key.session) from error
            except Unavailable as error:
                if monotonic() + pause > until:
                    raise
                log.warning("not accepted yet, trying again", turn=request.turn, error=str(error))
            await asyncio.sleep(pause)
            pause *= 2

    # -- asking

    async def _view(self, key: SessionKey) -> OwnerView | None:
        try:
            return await self._ask_owner(key, Replay(), OwnerView)
        except NoResponder:
            return None

    async def _ask_owner(self, key: SessionKey, question: Message, answer: type[M]) -> M:
        return await ask(self._bus, self._subjects.control(key), question, partial(decode, answer))


def _check_same(request: Request, digest: str) -> None:
    if digest and digest != request.message.digest:  # without one nobody could read the message
        raise KeyReused
