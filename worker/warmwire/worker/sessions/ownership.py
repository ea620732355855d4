"""Who runs a message that this worker has pulled. Pure.

Safety comes from the compare-and-swap that a ``Claim`` leads to, never from what is believed about others.
"""

from __future__ import annotations

from dataclasses import dataclass

from warmwire.broker.nats.store import Owned


@dataclass(frozen=True, slots=True)
class Claim:
    """Claim the session, if its owner record still has this sequence (0: no record)."""

    expected: int


@dataclass(frozen=True, slots=True)
class Forward:
    """Hand the message to the owner."""

    worker: str


Placement = Claim | Forward


def place(owned: Owned | None, worker: str, *, owner_dead: bool) -> Placement:
    """Decide for a session that ``worker`` does not hold in memory.

    1. no record, or a released session: claim it
    2. the record names ourselves, but we do not have the session: a claim whose answer was lost; claim anew
    3. it names a dead worker: claim
    4. it names another: hand the message over; if nobody answers there, ask again later
    """
    if owned is None:
        return Claim(0)
    holder = owned.record.worker
    if holder is None or holder == worker or owner_dead:
        return Claim(owned.sequence)
    return Forward(holder)


def lost(owned: Owned | None, epoch: int) -> bool:
    """Whether a session that was claimed with ``epoch`` is somebody else's by now, or nobody's."""
    return owned is None or owned.sequence != epoch
