"""Each case of what a cursor asks for."""

from __future__ import annotations

import pytest

from warmwire.broker.reading.reader import Lost
from warmwire.broker.wire.envelope import Cursor, Position
from warmwire.producer.resume import NOWHERE, UNREAD, Found, judge

HERE = Position(100, 5)
CURSOR = Cursor("t1", 100, 3)
NOTHING = Found(queued=False, running=None, at=HERE, recorded=False)
OTHER_RUNS = Found(queued=False, running="t2", at=HERE, recorded=False)


@pytest.mark.parametrize("found", [NOTHING, OTHER_RUNS])
def test_the_cursor_that_was_given_out_for_nothing_asks_for_nothing(found: Found) -> None:
    assert judge(NOWHERE, found) is None


@pytest.mark.parametrize(
    "found",
    [
        Found(queued=False, running=None, at=HERE, recorded=True),
        Found(queued=True, running=None, at=HERE, recorded=False),
        Found(queued=True, running="t2", at=HERE, recorded=False),
        Found(queued=False, running="t1", at=HERE, recorded=False),
    ],
)
def test_a_turn_that_is_known_or_may_wait_is_followed(found: Found) -> None:
    assert judge(CURSOR, found) == CURSOR


@pytest.mark.parametrize("cursor", [None, CURSOR])
def test_otherwise_the_turn_that_runs_is_followed_from_a_snapshot(cursor: Cursor | None) -> None:
    assert judge(cursor, OTHER_RUNS) == Cursor("t2", *UNREAD)


def test_otherwise_there_is_a_gap() -> None:
    assert judge(None, NOTHING) == Lost(UNREAD, HERE)
    assert judge(CURSOR, NOTHING) == Lost(CURSOR.position, HERE)
