"""What was said in a session before: turns that have ended, and those that wait or run."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from warmwire.broker.nats.store import Recorded
from warmwire.broker.wire import envelope as codec
from warmwire.broker.wire.messages import Finished, UserMessage

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


def recorded(found: Recorded) -> PastTurn:
    """From a record of a turn that has ended."""
    record = found.record
    assert isinstance(record, Finished)  # noqa: S101 - only these are listed
    ending = codec.decode(record.envelope.encode()).type.removeprefix("turn_")
    asked = record.question.text if record.question else None
    return PastTurn(found.turn, ending, asked, record.text, record.truncated)


def listed(found: dict[str, Any]) -> PastTurn:
    """From an edge's list."""
    return PastTurn(found["turn"], found["ending"], found["message"], found["text"], found["truncated"])


def waiting_of(message: UserMessage) -> WaitingTurn:
    """From a message of the queue."""
    return WaitingTurn(message.turn, message.question.text)
