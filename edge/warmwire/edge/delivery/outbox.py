"""What one connection still has to be sent: bounded, and the ladder for a viewer that does not keep up.

1. Text deltas that wait are merged (``merge``).
2. When even so more than ``limit`` bytes wait, they are forgotten, and nothing more is kept until the
   connection takes something again. Then each followed thing is continued from the last event that went
   out, as if its viewer had come back: from memory, from the owner, or with a snapshot.
3. A connection that takes nothing for too long is cut (``stream`` and ``websocket`` watch the time).

A feed's callback puts frames in; one coroutine per connection takes what has gathered. A delta costs no task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import groupby
from typing import TYPE_CHECKING

from warmwire.broker.reading.reader import Item, Lost, Shown
from warmwire.broker.telemetry import events_shown, rungs
from warmwire.broker.wire.envelope import Cursor, Envelope, Position
from warmwire.broker.wire.names import SessionKey
from warmwire.edge.delivery.merge import is_text, merged

if TYPE_CHECKING:
    from warmwire.edge.tracing import Delivery

FIRST_BYTES = 64
"""Bytes that a frame costs in memory beside its content, about."""


class Channel:
    """One turn or session as one connection is told of it."""

    __slots__ = (
        "again",
        "at_end",
        "begun_from",
        "behind",
        "delivery",
        "encoder",
        "key",
        "rolling",
        "sent",
        "turn",
        "whole_session",
    )

    def __init__(self, key: SessionKey, turn: str | None, encoder: Encoder) -> None:
        self.key = key
        self.turn = turn or "0"  # of a session that is watched: the turn that was shown last
        self.whole_session = turn is None
        self.encoder = encoder
        self.behind = False
        self.sent: Item | None = None
        self.begun_from: Cursor | None = None  # where it goes on as long as nothing was sent
        self.again: Callable[[], Awaitable[None]] = _never
        self.at_end: Callable[[], None] | None = None  # for a channel that ends with its turn
        self.delivery: Delivery | None = None  # of a turn whose first delta has not been sent
        self.rolling = ""  # the turn whose first delta has been sent

    def went_out(self, item: Item) -> None:
        """The item is on its way to the viewer."""
        self.sent = item
        if self.delivery is not None:
            self.delivery.taken(item)

    @property
    def cursor(self) -> Cursor | None:
        """Where to go on: just after what was sent last."""
        if self.sent is None:
            return self.begun_from
        turn = self.turn if isinstance(self.sent, Lost) else self.sent.turn
        return Cursor(turn, *position_of(self.sent))


class Encoder:
    """Encodes what a feed tells its listeners: each item once, however many viewers it has.

    A feed tells one item to all its listeners before the next, so remembering the last one is enough.
    """

    __slots__ = ("_encode", "item", "last")

    def __init__(self, encode: Callable[[Item, str, str], bytes]) -> None:
        self._encode = encode
        self.item: Item | None = None
        self.last = b""  # its frame

    def frame(self, item: Item, channel: Channel) -> bytes:
        """The item as a viewer is sent it; empty if it is not."""
        if item is not self.item:
            self.last = self._encode(item, channel.turn, channel.key.session)
            self.item = None if isinstance(item, Lost) else item  # a gap names what the viewer follows
        return self.last

    def once(self, item: Item, channel: Channel) -> bytes:
        """As ``frame``, of an item that is nobody else's."""
        return self._encode(item, channel.turn, channel.key.session)


Entry = tuple[bytes, Item | None, Channel | None]
"""A frame; and where it is an event, which one, and of what."""


class Outbox:
    """See the module. ``limit`` is in bytes, ``rollup`` (how long a delta may wait for others) in seconds."""

    __slots__ = (
        "_at_once",
        "_behind",
        "_bytes",
        "_due",
        "_limit",
        "_open",
        "_rollup",
        "_timer",
        "_waiting",
        "_woken",
        "ended",
        "gone",
        "slow",
    )

    def __init__(self, limit: int, rollup: float = 0.0) -> None:
        self.ended = False
        self.gone = False
        self.slow = False
        self._at_once: Callable[[bytes], bool] | None = None
        self._limit = limit
        self._rollup = rollup
        self._waiting: list[Entry] = []
        self._bytes = 0
        self._open = False
        self._due = False
        self._behind: list[Channel] = []
        self._timer: asyncio.TimerHandle | None = None
        self._woken = asyncio.Event()

    def show(self, channel: Channel, item: Item) -> None:
        """The sink of a channel."""
        if self.ended or self.gone or channel.behind:
            return
        encoder = channel.encoder  # what follows is done for each viewer of each delta
        frame = encoder.last if item is encoder.item else encoder.frame(item, channel)
        if channel.whole_session and not isinstance(item, Lost):
            channel.turn = item.turn
        if frame:
            events_shown.value += 1
        free = self._open and not (self._waiting or self.slow)
        if frame and free and self._at_once and self._at_once(frame):
            channel.sent = item
            if channel.delivery is not None:
                channel.delivery.taken(item)
        elif frame and not self._keep(frame, item, channel):
            return
        if channel.at_end is not None and isinstance(item, Envelope) and item.terminal:
            channel.at_end()

    def _keep(self, frame: bytes, item: Item, channel: Channel) -> bool:
        """Until the connection takes it; False if it fell behind by that."""
        self._waiting.append((frame, item, channel))
        self._bytes += len(frame) + FIRST_BYTES
        if self._bytes > self._limit and self._open:
            self._squeeze()
            rungs["merged"].value += 1
            if self._bytes > self._limit / 2:  # else it would be squeezed for each event from here on
                self._fall_behind()
                return False
        if not (self._rollup and self._may_wait(item, channel)):
            self._wake()
        return True

    def allow_at_once(self, write: Callable[[bytes], bool]) -> None:
        """An event for which none waits may be written by this, at once; it says whether it has.

        Then a connection that keeps up costs no wake-up of its coroutine.
        """
        if not self._rollup:
            self._at_once = write

    def put(self, frame: bytes) -> None:
        """A frame that is no event. Before the first is taken the bound is what an owner keeps."""
        if self.ended or self.gone:
            return
        self._waiting.append((frame, None, None))
        self._bytes += len(frame) + FIRST_BYTES
        if self._bytes > 2 * self._limit and self._open:
            self.leave()  # these are answers to what the client itself sends, and does not read
        self._wake()

    def end(self) -> None:
        """Nothing more is to come: finish once everything is sent."""
        self.ended = True
        self._wake()

    def leave(self) -> None:
        """The client is gone."""
        self.gone = True
        self._waiting.clear()
        self._behind.clear()
        self._wake()

    def forget(self, channel: Channel) -> None:
        """The channel is followed no longer."""
        if channel in self._behind:
            self._behind.remove(channel)

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent."""
        return not self._waiting

    @property
    def waiting(self) -> int:
        """Frames that wait to be sent."""
        return len(self._waiting)

    async def take(self) -> tuple[list[Entry], bool]:
        """All that has gathered, and whether more may come; waits for it."""
        while not (self._due or self.ended or self.gone):
            self._woken.clear()
            await self._woken.wait()
        if self._behind and not self.ended:
            await self._catch_up()
        if self.slow or self._rollup:
            self._squeeze()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        taken, self._waiting = self._waiting, []
        self._bytes, self._open, self._due = 0, True, False
        for _, item, channel in taken:
            if channel is not None and item is not None:
                channel.went_out(item)
        return taken, not self.ended

    def _wake(self) -> None:
        self._due = True
        self._woken.set()

    def _may_wait(self, item: Item, channel: Channel) -> bool:
        """Whether it is a text delta, and not the first of its turn."""
        if not isinstance(item, Envelope) or not is_text(item):
            return False
        if channel.rolling != item.turn:
            channel.rolling = item.turn
            return False
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._rollup, self._wake)
        return True

    def _squeeze(self) -> None:
        """Rung 1."""
        squeezed: list[Entry] = []
        for (_, is_event), group in groupby(self._waiting, _kind):
            entries = list(group)
            channel = entries[0][2]
            if is_event and channel is not None and len(entries) > 1:
                items = [item for _, item, _ in entries if isinstance(item, Envelope)]
                squeezed += [(channel.encoder.once(item, channel), item, channel) for item in merged(items)]
            else:
                squeezed += entries
        self._waiting = squeezed
        self._bytes = sum(len(frame) + FIRST_BYTES for frame, _, _ in squeezed)

    def _fall_behind(self) -> None:
        """Rung 2: for every channel whose events wait."""
        rungs["snapshot"].value += 1
        for _, _, channel in self._waiting:
            if channel is not None and not channel.behind:
                channel.behind = True
                self._behind.append(channel)
        self._waiting = [entry for entry in self._waiting if entry[2] is None]
        self._bytes = sum(len(frame) + FIRST_BYTES for frame, _, _ in self._waiting)
        self._wake()

    async def _catch_up(self) -> None:
        """The connection takes something again. What comes meanwhile has the bound that an owner has."""
        self._open = False
        self.slow = True
        behind, self._behind = self._behind, []
        for channel in behind:
            channel.behind = False
            await channel.again()


def position_of(item: Item) -> Position:
    """Where it leads."""
    if isinstance(item, Lost):
        return item.until
    return item.at if isinstance(item, Shown) else item.position


def _kind(entry: Entry) -> tuple[int, bool]:
    _, item, channel = entry
    return id(channel), isinstance(item, Envelope)


async def _never() -> None:
    """For a channel that is not bounded."""
