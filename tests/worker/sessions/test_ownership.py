from __future__ import annotations

import pytest

from warmwire.broker.nats.store import Owned
from warmwire.broker.wire.messages import OwnerRecord
from warmwire.worker.sessions.ownership import Claim, Forward, Placement, lost, place


def owned(worker: str | None, sequence: int = 5) -> Owned:
    return Owned(OwnerRecord(worker=worker, nonce="n"), sequence)


@pytest.mark.parametrize(
    ("record", "owner_dead", "expected"),
    [
        (None, False, Claim(0)),  # 1: nobody has ever had it
        (owned(None), False, Claim(5)),  # 1: released
        (owned("w1"), False, Claim(5)),  # 2: our own claim, whose answer was lost
        (owned("w2"), True, Claim(5)),  # 3: the owner is dead
        (owned("w2"), False, Forward("w2")),  # 4: the owner lives
    ],
)
def test_who_runs_a_message(record: Owned | None, owner_dead: bool, expected: Placement) -> None:
    assert expected == place(record, "w1", owner_dead=owner_dead)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (owned("w1", 5), False),
        (owned("w2", 6), True),
        (owned("w1", 6), True),  # claimed anew by ourselves: another epoch
        (owned(None, 6), True),  # released
        (None, True),
    ],
)
def test_a_session_is_lost_once_its_record_is_another(record: Owned | None, expected: bool) -> None:
    assert expected is lost(record, 5)
