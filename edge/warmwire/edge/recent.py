"""Messages that were accepted a moment ago: an EventSource that connects twice must not ask twice.

A browser's EventSource has no way to send an idempotency key, and repeats its whole URL when its first
connection breaks before an id has arrived.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from warmwire.broker.wire.names import SessionKey
from warmwire.producer.request import Request

WITHIN = 10.0
"""Seconds in which the same message again is taken for a repetition."""
REMEMBERED = 10_000
"""Sessions remembered, at most; past it the oldest is forgotten: a repetition there is a second turn."""


@dataclass(slots=True)
class Entry:
    """A submission. ``settled`` once it is known whether it was ``accepted``."""

    digest: str
    turn: str
    at: float
    accepted: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class Recent:
    """The last submission of each session that this process has seen."""

    def __init__(self) -> None:
        self._entries: OrderedDict[SessionKey, Entry] = OrderedDict()

    def begin(self, request: Request, now: float) -> Entry:
        """The request is about to be submitted."""
        self._forget_old(now)
        entry = Entry(request.message.digest, request.turn, now)
        self._entries[request.key] = entry
        self._entries.move_to_end(request.key)
        return entry

    async def turn_for(self, request: Request, now: float) -> str | None:
        """The turn that answers the same message, if it was submitted within ``WITHIN`` seconds."""
        entry = self._entries.get(request.key)
        if entry is None or entry.digest != request.message.digest or now - entry.at > WITHIN:
            return None
        await entry.settled.wait()
        return entry.turn if entry.accepted else None

    def _forget_old(self, now: float) -> None:
        while self._entries:
            key, oldest = next(iter(self._entries.items()))
            if len(self._entries) < REMEMBERED and now - oldest.at <= WITHIN:
                return
            del self._entries[key]
