"""When a worker must hold still: as long as it cannot hear itself, others may hold it dead. Pure.

    OPEN ── unheard for FREEZE_AFTER: Freeze ──▶ FROZEN ── heard: ReadOwners ──▶ RETURNING ── read: Thaw
      ▲                                            ▲                                │  │
      │                                            └────────── unheard again ───────┘  │
      └────────────────────────────────────────────────────────────────────────────────┘

A heartbeat counts from when it was *sent*: one that lay in the socket while the process was stopped is no
news. Nobody who hears what we hear holds us dead while the fence is open: ``DEAD_AFTER`` is twice as long.
Frozen, a worker publishes nothing, answers nobody, pulls nothing, sends no in-progress acks, judges nobody,
and its CLIs are stopped. What nobody has claimed meanwhile then goes on where it was. Safety does not rest
on this (see ``ownership``); it keeps two CLIs from working on one turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

FREEZE_AFTER = 1.5
"""Seconds unheard after which a worker freezes; half of ``liveness.DEAD_AFTER``, three heartbeats."""


class State(Enum):
    """Whether the worker may work."""

    OPEN = auto()
    FROZEN = auto()
    RETURNING = auto()


@dataclass(frozen=True, slots=True)
class Freeze:
    """Stop every CLI (SIGSTOP), withhold every event."""


@dataclass(frozen=True, slots=True)
class ReadOwners:
    """Read the owner record of every session; abandon those that are lost, then report ``read``."""

    number: int


@dataclass(frozen=True, slots=True)
class Thaw:
    """Let the CLIs of what is left run on (SIGCONT), send what was withheld, hear the others afresh."""


Command = Freeze | ReadOwners | Thaw


class Fence:
    """One worker's. Times are its own monotonic seconds. Every method returns what to do, in order."""

    def __init__(self, now: float) -> None:
        self.state = State.OPEN
        self._heard = now  # when the newest heartbeat that came back was sent
        self._readings = 0

    def open(self, now: float) -> bool:
        """Whether the worker may work at this very moment, even if no tick has noticed that it may not."""
        return self.state is State.OPEN and not self._unheard(now)

    def heard(self, sent_at: float, now: float) -> list[Command]:
        """A heartbeat of our own has come back."""
        commands = self.tick(now)  # a pause that nobody has noticed yet was a pause all the same
        self._heard = max(self._heard, sent_at)
        if self.state is not State.FROZEN or self._unheard(now):
            return commands
        self.state = State.RETURNING
        self._readings += 1
        return [*commands, ReadOwners(self._readings)]

    def tick(self, now: float) -> list[Command]:
        """Time has passed; call it every half second or so."""
        if not self._unheard(now):
            return []
        was, self.state = self.state, State.FROZEN
        return [Freeze()] if was is State.OPEN else []

    def read(self, number: int, now: float) -> list[Command]:
        """The owner records have been read, all of them."""
        if self.state is not State.RETURNING or number != self._readings or self._unheard(now):
            return []
        self.state = State.OPEN
        return [Thaw()]

    def _unheard(self, now: float) -> bool:
        return now - self._heard > FREEZE_AFTER
