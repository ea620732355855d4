"""Questions to a session's owner."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from warmwire.broker.errors import BadInput, Unavailable
from warmwire.broker.nats.bus import Bus
from warmwire.broker.wire.messages import Message

OWNER_WITHIN = 1.0
"""Seconds that an owner may take to answer."""

T = TypeVar("T")


async def ask(bus: Bus, subject: str, question: Message, read: Callable[[bytes], T]) -> T:
    """What it answers, read by ``read``, which may raise BadInput.

    Raises:
        NoResponder: nobody owns the session at this moment.
        Unavailable: no answer in time, or none that can be read.
    """
    answer = await bus.request(subject, question.encode(), OWNER_WITHIN)
    try:
        return read(answer)
    except BadInput as error:
        raise Unavailable(f"the owner answered nonsense: {error}") from error
