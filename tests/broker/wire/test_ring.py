"""The ring: whole, in order, and bounded."""

from __future__ import annotations

from warmwire.broker.wire.envelope import Envelope, Position
from warmwire.broker.wire.ring import ENVELOPE_BYTES, RING_BYTES, Ring

from tests.broker.made import delta, ended, started


def filled(*events: Envelope) -> Ring:
    ring = Ring()
    for event in events:
        ring.add(event)
    return ring


def test_it_gives_what_came_after_a_position() -> None:
    ring = filled(started(1, 5), delta(1, 6), delta(1, 7))
    assert [delta(1, 6), delta(1, 7)] == ring.after(Position(1, 5))
    assert [] == ring.after(Position(1, 7))


def test_it_knows_the_position_just_before_its_first_event() -> None:
    assert [started(1, 5)] == filled(started(1, 5)).after(Position(1, 4))


def test_it_does_not_know_what_was_before() -> None:
    assert filled(started(1, 5)).after(Position(1, 3)) is None


def test_it_does_not_know_what_is_still_to_come() -> None:
    assert filled(started(1, 5)).after(Position(1, 6)) is None
    assert Ring().after(Position(0, 0)) is None


def test_it_goes_on_over_epochs() -> None:
    ring = filled(delta(1, 5), started(2, 1), delta(2, 2))
    assert [started(2, 1), delta(2, 2)] == ring.after(Position(1, 5))


def test_it_begins_anew_after_a_loss() -> None:
    ring = filled(delta(1, 5))
    ring.begin(Position(1, 9))
    ring.add(delta(1, 10))
    assert [delta(1, 10)] == ring.after(Position(1, 9))
    assert ring.after(Position(1, 5)) is None


def test_an_ending_that_comes_late_is_not_kept() -> None:
    ring = filled(delta(2, 1), ended(1, 9), delta(2, 2))
    assert [delta(2, 2)] == ring.after(Position(2, 1))


def test_it_is_bounded_and_then_whole_from_a_later_position() -> None:
    ring = Ring()
    size = len(delta(1, 1).event) + ENVELOPE_BYTES
    room = RING_BYTES // size
    for number in range(1, room + 3):
        ring.add(delta(1, number))
    kept = ring.after(Position(1, 3))
    assert kept is not None
    assert room - 1 == len(kept)
    assert ring.after(Position(1, 1)) is None


def test_one_event_over_its_bound_leaves_it_empty_but_in_place() -> None:
    huge = delta(1, 2)._replace(event=b"x" * (RING_BYTES + 1))
    ring = filled(delta(1, 1), huge)
    assert [] == ring.after(Position(1, 2))
    assert ring.after(Position(1, 1)) is None
