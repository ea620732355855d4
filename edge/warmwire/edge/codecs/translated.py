"""A turn for viewers that read another shape than ours: translated as it goes out, past the ladder.

What waits for such a viewer are the events that any viewer is sent; merging, forgetting and catching up are
the outbox's as ever. A shape is told just what goes out, in order, so it knows exactly what its viewer has.
"""

from __future__ import annotations

from collections.abc import Callable

from warmwire.broker.reading.reader import Item, Lost, Shown
from warmwire.broker.wire.envelope import Envelope
from warmwire.broker.wire.events import TurnReset
from warmwire.broker.wire.names import SessionKey
from warmwire.edge.codecs.told import Shape
from warmwire.edge.delivery.outbox import Entry, Outbox
from warmwire.edge.delivery.sse import DONE
from warmwire.edge.delivery.viewing import TurnView
from warmwire.producer.submit import Sessions


class TranslatedOutbox(Outbox):
    """Gives out each event in its viewer's shape. ``last`` ends the stream."""

    __slots__ = ("_begun", "last", "shape")

    def __init__(self, shape: Shape, limit: int, rollup: float = 0.0, last: bytes = DONE) -> None:
        super().__init__(limit, rollup)
        self.shape = shape
        self.last = last
        self._begun = False

    def allow_at_once(self, write: Callable[[bytes], bool]) -> None:
        """Nothing: every event passes through ``take``."""

    async def take(self) -> tuple[list[Entry], bool]:
        """As with any outbox; the last that comes is what says that it cannot go on."""
        taken, more = await super().take()
        if not self._begun:
            self._begun, taken = True, standing(taken)
        told: list[Entry] = []
        for frame, item, channel in taken:
            told.append((frame if item is None else self.shape.add(item), item, channel))
            if self.shape.over:
                self.end()
                return [*told, (self.last, None, None)], False
        return told, more


def standing(entries: list[Entry]) -> list[Entry]:
    """The beginning of a turn, which nobody has been told yet, without what was taken back since."""
    kept: list[Entry] = []
    messages: list[int] = []  # where each begins
    for entry in entries:
        item = entry[1]
        if isinstance(item, Lost | Shown):
            return entries  # it does not begin at the beginning
        if item is not None and item.type == "turn_reset":
            first = TurnReset.model_validate_json(item.event).message
            del kept[messages[first] if first < len(messages) else len(kept) :], messages[first:]
            continue
        if item is not None and item.type == "message_start":
            messages.append(len(kept))
        kept.append(entry)
    return kept


class TranslatedView(TurnView):
    """One turn in another shape."""

    def __init__(self, outbox: TranslatedOutbox, sessions: Sessions, key: SessionKey, turn: str) -> None:
        super().__init__(outbox, sessions, key, turn)
        self.end: Envelope | None = None
        self._shape = outbox.shape
        self._last = outbox.last

    @property
    def told_all(self) -> bool:
        """Whether the end has gone out to the viewer."""
        return self.end is not None and self.channel.sent is self.end

    def open(self) -> None:
        """How the shape begins."""
        self.outbox.put(self._shape.begin())

    def show(self, item: Item) -> None:
        """An event."""
        if isinstance(item, Envelope) and item.terminal:
            self.end = item
        super().show(item)

    def elsewhere(self) -> bytes:
        """This edge leaves."""
        return self._shape.error("edge_leaving", "this edge is leaving; the turn goes on") + self._last

    def expired(self) -> bytes:
        """Its token is good no longer."""
        text = "the token has expired: come back with a new one"
        return self._shape.error("token_expired", text) + self._last

    def _at_end(self) -> None:
        self.outbox.put(self._last)
        self.outbox.end()
