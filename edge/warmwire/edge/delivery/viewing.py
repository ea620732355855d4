"""What a viewer follows: a turn, or a whole session; and how it goes on after it fell behind."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from warmwire.broker.errors import Unavailable
from warmwire.broker.logs import logger
from warmwire.broker.reading.reader import Item
from warmwire.broker.wire.envelope import Cursor, Envelope
from warmwire.broker.wire.names import SessionKey
from warmwire.edge.delivery import guide, sse
from warmwire.edge.delivery.outbox import Channel, Encoder, Outbox, position_of
from warmwire.producer.resume import NOWHERE
from warmwire.producer.submit import Followed, Sessions, Watched

log = logger(__name__)


class Viewing(ABC):
    """One channel into an outbox, and the followed thing behind it. ``show`` is its sink."""

    def __init__(self, outbox: Outbox, channel: Channel) -> None:
        self.outbox = outbox
        self.channel = channel
        self.followed: Followed | Watched | None = None
        channel.again = self._again

    @property
    def key(self) -> SessionKey:
        """The session."""
        return self.channel.key

    def show(self, item: Item) -> None:
        """An event."""
        self.outbox.show(self.channel, item)

    def stop(self) -> None:
        """Follow no longer."""
        self.outbox.forget(self.channel)
        if self.followed is not None:
            self.followed.stop()

    def elsewhere(self) -> bytes:
        """What the viewer is sent last when the stream ends though there is more to come."""
        return sse.come_back(random.randint(*sse.LEAVING))

    def expired(self) -> bytes:
        """What it is sent last when its token is good no longer."""
        return sse.EXPIRED

    @abstractmethod
    async def follow(self, cursor: Cursor) -> None:
        """Go on from a cursor. Raises Unavailable."""

    async def _again(self) -> None:
        cursor, before = self.channel.cursor, self.followed
        if before is not None:
            before.mute()  # what it heard while we ask would come before what was missed
        try:
            await self.follow(cursor or NOWHERE)
        except Unavailable as error:
            log.warning("a viewer that fell behind cannot go on; it comes back", error=str(error))
            self.outbox.end()
        if before is not None and before is not self.followed:
            before.stop()


class TurnView(Viewing):
    """One turn, to its end, after which the response ends."""

    encoder = Encoder(sse.encode)

    def __init__(self, outbox: Outbox, sessions: Sessions, key: SessionKey, turn: str) -> None:
        super().__init__(outbox, Channel(key, turn, self.encoder))
        self.turn = turn
        self._sessions = sessions
        self.channel.begun_from = Cursor(turn, 0, 0)
        self.channel.at_end = self._at_end

    @property
    def ended(self) -> bool:
        """Whether the viewer has had the end, or had it already."""
        return isinstance(self.followed, Followed) and self.followed.ended

    def open(self) -> None:
        """What the viewer of a new turn is sent first."""
        self.outbox.put(sse.accepted(self.turn, self.key.session))

    def reopen(self) -> None:
        """What a viewer that comes back is sent first."""
        self.outbox.put(sse.RETRY)

    def nothing(self, item: Item) -> None:
        """There was nothing to go on with: say so, and end."""
        self.show(item)
        self.outbox.put(sse.NOTHING + sse.DONE)
        self.outbox.end()

    async def follow(self, cursor: Cursor) -> None:
        """Go on from a cursor. Raises Unavailable."""
        self.channel.begun_from = cursor
        self.followed = await self._sessions.follow(self.key, cursor, self.show)

    def _at_end(self) -> None:
        self.outbox.put(sse.DONE)
        self.outbox.end()


class GuideView(TurnView):
    """One turn as the guide's snippets read it: text that only grows, then ``[DONE]``.

    What would take back text that was shown ends the stream with an error, and stops the turn.
    """

    encoder = Encoder(guide.encode)

    def __init__(
        self,
        outbox: Outbox,
        sessions: Sessions,
        key: SessionKey,
        turn: str,
        stop_turn: Callable[[SessionKey, str], None],
    ) -> None:
        super().__init__(outbox, sessions, key, turn)
        self._stop_turn = stop_turn
        self._text = guide.Text()

    def open(self) -> None:
        """An id, so that a reconnect does not ask again."""
        self.outbox.put(sse.opening(self.turn))

    def nothing(self, item: Item) -> None:  # noqa: ARG002 - whatever it is, it is no text
        """There is nothing to go on with."""
        self.outbox.put(guide.error("nothing to continue", str(NOWHERE)) + guide.done(str(NOWHERE)))
        self.outbox.end()

    def show(self, item: Item) -> None:
        """An event; of most of them nothing is sent."""
        if not self._text.takes(item):
            if not self.outbox.ended:
                self._stop_turn(self.key, self.turn)
            self._fail("text that was shown is void", str(Cursor(self.turn, 0, 0)))
            return
        for event in self._text.instead_of(item):
            self._put_delta(event, item)
        if isinstance(item, Envelope) and item.terminal:
            self._end(item)
        else:
            self.outbox.show(self.channel, item)

    async def follow(self, cursor: Cursor) -> None:
        """Go on from a cursor: with one of an event there is text already. Raises Unavailable."""
        self._text.flows = self._text.flows or cursor.seq > 0
        await super().follow(cursor)

    def _taken(self, item: Item) -> None:
        if self.channel.delivery is not None:
            self.channel.delivery.taken(item)

    def _put_delta(self, event: bytes, item: Item) -> None:
        self._taken(item)
        self.outbox.put(guide.frame(event, str(Cursor(self.turn, *position_of(item)))))

    def _end(self, item: Envelope) -> None:
        if self.channel.behind:
            return
        if item.type == "turn_failed":
            self.outbox.put(guide.failure(item))
        self.outbox.put(guide.done(str(item.cursor)))
        self.outbox.end()

    def _fail(self, why: str, cursor: str) -> None:
        self.outbox.put(guide.error(why, cursor) + guide.done(str(NOWHERE)))
        self.outbox.end()


class GuideSocketView(GuideView):
    """The same over a WebSocket: each delta is a frame of its own, and nothing else is sent."""

    encoder = Encoder(guide.encode_json)
    failed: str | None = None

    def _put_delta(self, event: bytes, item: Item) -> None:
        self._taken(item)
        self.outbox.put(event)

    def _end(self, item: Envelope) -> None:
        if self.channel.behind:
            return
        if item.type == "turn_failed":
            self.failed = guide.code_of(item)
        self.outbox.end()

    def _fail(self, why: str, cursor: str) -> None:  # noqa: ARG002 - there are no cursors here
        self.failed = why
        self.outbox.end()


class SessionView(Viewing):
    """A whole session, for as long as the viewer stays."""

    encoder = Encoder(sse.encode)

    def __init__(
        self, outbox: Outbox, sessions: Sessions, key: SessionKey, encoder: Encoder | None = None
    ) -> None:
        super().__init__(outbox, Channel(key, None, encoder or self.encoder))
        self._sessions = sessions
        self._held: list[Item] | None = None

    def show(self, item: Item) -> None:
        """An event."""
        if self._held is None:
            self.outbox.show(self.channel, item)
        else:
            self._held.append(item)

    @contextmanager
    def held(self) -> Iterator[None]:
        """What comes meanwhile is shown afterwards."""
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            for item in held:
                self.outbox.show(self.channel, item)

    @property
    def cursor(self) -> Cursor:
        """Resumes after what has been shown."""
        return self.followed.cursor if isinstance(self.followed, Watched) else NOWHERE

    async def watch(self, cursor: Cursor | None, *, readable: bool) -> None:
        """Watch from a cursor or from now on. Raises Unavailable."""
        self.followed = await self._sessions.watch(self.key, cursor, self.show, readable=readable)
        if self.channel.begun_from is None:
            self.channel.begun_from = self.cursor

    async def follow(self, cursor: Cursor) -> None:
        """Go on from a cursor. Raises Unavailable."""
        await self.watch(cursor, readable=True)
