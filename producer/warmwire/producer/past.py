"""What was said in a session before: turns that have ended, and those that wait or run."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from warmwire.broker.nats.store import Store
from warmwire.broker.wire import envelope as codec
from warmwire.broker.wire.messages import Finished, UserMessage
from warmwire.broker.wire.names import SessionKey

PAGE = 200
"""Turns that are asked for at a time."""


@dataclass(frozen=True, slots=True)
class PastTurn:
    """A turn that has ended. ``ending``: completed, interrupted, failed.

    ``message`` is what was asked, None where that was not kept; ``truncated`` says whether ``text`` was cut.
    """

    turn: str
    ending: str
    message: str | None
    text: str
    truncated: bool


@dataclass(frozen=True, slots=True)
class WaitingTurn:
    """A turn that waits or runs, and the text of its message."""

    turn: str
    message: str

    @property
    def beginning(self) -> str:
        """The cursor from which ``resume`` shows all of it."""
        return str(codec.Cursor(self.turn, 0, 0))


Page = Callable[[int], Awaitable[tuple[list[PastTurn], int | None]]]
"""Turns from a place on, the oldest first, and the place of the next page."""


async def last_of(page: Page, most: int) -> tuple[PastTurn, ...]:
    """The last ``most`` turns, the oldest first; records are kept for a day, so the pages end."""
    found, after = deque[PastTurn](maxlen=most), 0
    while True:
        turns, more = await page(after)
        found.extend(turns)
        if more is None:
            return tuple(found)
        after = more


@dataclass(frozen=True, slots=True)
class Ended:
    """A turn that has ended, as it is stored."""

    turn: str
    record: Finished


async def ended_turns(store: Store, key: SessionKey, after: int, most: int) -> tuple[list[Ended], int | None]:
    """Of up to ``most`` records from a place on those of ended turns; and the place of the next page.

    Raises Unavailable.
    """
    found = await store.turns(key, after, most)
    ended = [Ended(each.turn, each.record) for each in found if isinstance(each.record, Finished)]
    return ended, found[-1].sequence if len(found) == most else None


def recorded(found: Ended) -> PastTurn:
    """From its record."""
    record = found.record
    ending = codec.decode(record.envelope.encode()).type.removeprefix("turn_")
    asked = record.question.text if record.question else None
    return PastTurn(found.turn, ending, asked, record.text, record.truncated)


def waiting_of(message: UserMessage) -> WaitingTurn:
    """From a message of the queue."""
    return WaitingTurn(message.turn, message.question.text)
