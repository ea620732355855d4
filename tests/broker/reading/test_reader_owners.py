"""The reader's rules where owners change or are silent, the connection is new, or turns are left open."""

from __future__ import annotations

from warmwire.broker.reading.reader import (
    OPEN_LIMIT,
    REPAIR_WITHIN,
    SILENCE,
    AskRecord,
    Lost,
    Shown,
)
from warmwire.broker.wire.envelope import Position

from tests.broker.desk import SNAPSHOT, Desk, asked, given
from tests.broker.made import delta, ended, ending, started, view


class TestANewEpoch:
    def test_goes_on_at_once_with_the_same_turn(self, live: Desk) -> None:
        assert [started(2, 1)] == live.event(started(2, 1))

    def test_begins_at_once_when_no_turn_is_open(self, live: Desk) -> None:
        live.event(ended(1, 6))
        assert [started(2, 1, "t2")] == live.event(started(2, 1, "t2"))

    def test_first_closes_the_open_turn_from_its_record(self, live: Desk) -> None:
        assert [AskRecord("t1")] == live.event(started(2, 1, "t2"))
        expected = [
            Lost(Position(1, 5), Position(1, 8)),
            Shown("t1", Position(1, 8), SNAPSHOT),
            ended(1, 9),
            started(2, 1, "t2"),
        ]
        assert expected == live.recorded("t1", ending(1, 9))

    def test_gives_the_end_alone_where_nothing_else_is_missing(self, live: Desk) -> None:
        live.event(started(2, 1, "t2"))
        assert [ended(1, 6), started(2, 1, "t2")] == live.recorded("t1", ending(1, 6))

    def test_shows_nothing_more_of_a_turn_that_its_record_has_closed(self, live: Desk) -> None:
        live.event(started(2, 1, "t2"))
        live.recorded("t1", ending(1, 6))
        assert [] == live.event(delta(2, 2))
        live.event(ended(2, 3, "t2"))
        live.event(delta(2, 6))
        assert [Lost(Position(2, 3), Position(2, 6))] == live.answered(view(2, 6, "t1"))

    def test_leaves_a_turn_open_that_has_not_ended(self, live: Desk) -> None:
        live.event(started(2, 1, "t2"))
        assert [started(2, 1, "t2")] == live.recorded("t1")
        live.event(ended(2, 2, "t2"))
        assert [started(2, 3)] == live.event(started(2, 3))

    def test_waits_for_every_open_turn_s_record(self, live: Desk) -> None:
        live.reader.expect("t3")
        assert [AskRecord("t1"), AskRecord("t3")] == live.event(started(2, 1, "t2"))
        assert [ended(1, 6)] == live.recorded("t1", ending(1, 6))
        assert [started(2, 1, "t2")] == live.recorded("t3")

    def test_does_not_wait_for_a_record_longer_than_for_a_repair(self, live: Desk) -> None:
        live.event(started(2, 1, "t2"))
        assert [started(2, 1, "t2")] == given(live.after(REPAIR_WITHIN))
        assert [Shown("t1", Position(1, 5), SNAPSHOT), ended(1, 6)] == live.recorded("t1", ending(1, 6))

    def test_whose_first_event_is_missing_is_asked_about(self, live: Desk) -> None:
        assert [Position(1, 5)] == asked(live.event(delta(2, 2)))
        events = (started(2, 1), delta(2, 2))
        assert [*events] == live.answered(view(2, 2, "t1", events))

    def test_in_an_answer_closes_the_open_turn_first(self, live: Desk) -> None:
        live.event(delta(2, 2, "t2"))
        events = (started(2, 1, "t2"), delta(2, 2, "t2"))
        assert [AskRecord("t1")] == live.answered(view(2, 2, "t2", events))
        assert [ended(1, 6), *events] == live.recorded("t1", ending(1, 6))

    def test_in_an_answer_may_end_the_open_turn_itself(self, live: Desk) -> None:
        live.event(delta(2, 3, "t2"))
        events = (ended(2, 1), started(2, 2, "t2"), delta(2, 3, "t2"))
        assert [*events] == live.answered(view(2, 3, "t2", events))

    def test_without_an_event_yet_loses_nothing(self, live: Desk) -> None:
        live.reconnected()
        assert [AskRecord("t1")] == live.answered(view(2, 0))
        assert [] == live.recorded("t1")
        assert [] == live.event(delta(1, 6))
        assert [started(2, 1)] == live.event(started(2, 1))

    def test_may_first_repeat_the_end_of_the_one_before(self, live: Desk) -> None:
        assert [ended(1, 6)] == live.event(ended(1, 6))
        assert [] == live.event(ended(1, 6))
        assert [started(2, 1, "t2")] == live.event(started(2, 1, "t2"))

    def test_that_repeats_an_end_behind_a_hole_is_asked_and_the_record_read(self, live: Desk) -> None:
        assert [Position(1, 5)] == asked(live.event(ended(1, 9)))
        assert [AskRecord("t1")] == live.answered(view(2, 0))
        expected = [
            Lost(Position(1, 5), Position(1, 8)),
            Shown("t1", Position(1, 8), SNAPSHOT),
            ended(1, 9),
        ]
        assert expected == live.recorded("t1", ending(1, 9))
        assert [started(2, 1, "t2")] == live.event(started(2, 1, "t2"))


class TestSilence:
    def test_with_an_open_turn_asks_the_owner(self, live: Desk) -> None:
        assert [] == live.after(SILENCE - 1)
        assert [Position(1, 5)] == asked(live.after(1))

    def test_without_an_open_turn_asks_nobody(self, live: Desk) -> None:
        live.event(ended(1, 6))
        assert [] == live.after(SILENCE)

    def test_is_not_broken_by_an_owner_that_has_lost_the_session(self, live: Desk) -> None:
        live.event(delta(2, 1))
        live.after(SILENCE - 1)
        live.event(delta(1, 6))
        assert [Position(2, 1)] == asked(live.after(1))

    def test_asks_once_each_time(self, live: Desk) -> None:
        live.after(SILENCE)
        live.answered(view(1, 5, "t1", ()))
        assert [] == live.after(1)
        assert [Position(1, 5)] == asked(live.after(SILENCE))

    def test_where_nobody_owns_the_session_reads_the_record(self, live: Desk) -> None:
        live.after(SILENCE)
        assert [AskRecord("t1")] == live.vacant(3)
        expected = [
            Lost(Position(1, 5), Position(2, 3)),
            Shown("t1", Position(2, 3), SNAPSHOT),
            ended(2, 4),
        ]
        assert expected == live.recorded("t1", ending(2, 4))

    def test_goes_on_when_nobody_answers(self, live: Desk) -> None:
        live.after(SILENCE)
        live.unanswered(epoch=1)
        assert [] == given(live.after(REPAIR_WITHIN))
        assert [delta(1, 6)] == live.event(delta(1, 6))


class TestAReconnect:
    def test_asks_what_was_missed(self, live: Desk) -> None:
        assert [Position(1, 5)] == asked(live.reconnected())
        assert [delta(1, 6)] == live.answered(view(1, 6, "t1", (delta(1, 6),)))

    def test_holds_events_until_the_answer(self, live: Desk) -> None:
        live.reconnected()
        assert [] == live.event(delta(1, 7))
        assert [delta(1, 6), delta(1, 7)] == live.answered(view(1, 6, "t1", (delta(1, 6),)))

    def test_gives_a_repair_its_full_time_again(self, live: Desk) -> None:
        live.event(delta(1, 8))
        live.now += REPAIR_WITHIN - 0.5
        live.reconnected()
        assert [] == live.after(REPAIR_WITHIN - 0.5)

    def test_without_anything_missed_changes_nothing(self, live: Desk) -> None:
        live.reconnected()
        assert [] == live.answered(view(1, 5, "t1", ()))
        assert [delta(1, 6)] == live.event(delta(1, 6))

    def test_at_which_all_moved_on_loses_and_shows(self, live: Desk) -> None:
        live.reconnected()
        assert [AskRecord("t1")] == live.answered(view(3, 7, "t9"))
        expected = [
            ended(1, 6),
            Lost(Position(1, 6), Position(3, 7)),
            Shown("t9", Position(3, 7), SNAPSHOT),
        ]
        assert expected == live.recorded("t1", ending(1, 6))


class TestAnOwnerThatIsSilent:
    """It died after the last turn had ended: nothing waits, so nobody takes over and no event will come."""

    def test_has_its_open_turns_looked_up(self, live: Desk) -> None:
        live.after(SILENCE)
        live.unanswered(1)
        assert [AskRecord("t1")] == live.after(REPAIR_WITHIN)
        lost, shown = Lost(Position(1, 5), Position(1, 8)), Shown("t1", Position(1, 8), SNAPSHOT)
        assert [lost, shown, ended(1, 9)] == live.recorded("t1", ending(1, 9))

    def test_of_whom_no_event_was_seen_is_none_the_less(self, desk: Desk) -> None:
        desk.reader.expect("t1")
        desk.unanswered(1)
        assert [AskRecord("t1")] == desk.after(REPAIR_WITHIN)
        assert ended(1, 9) in desk.recorded("t1", ending(1, 9))

    def test_may_yet_go_on(self, live: Desk) -> None:
        live.after(SILENCE)
        live.unanswered(1)
        live.after(REPAIR_WITHIN)
        assert [] == live.recorded("t1")
        assert [delta(1, 6)] == live.event(delta(1, 6))


class TestTurns:
    def test_of_one_session_are_followed_up_to_a_limit(self, live: Desk) -> None:
        for number in range(OPEN_LIMIT):
            live.reader.expect(f"x{number}")
        records = live.event(started(2, 1, "other"))
        assert OPEN_LIMIT == len(records)
        assert AskRecord("t1") not in records

    def test_end_once_however_often_they_are_recorded(self, live: Desk) -> None:
        live.event(started(2, 1, "t2"))
        assert ended(1, 6) in live.recorded("t1", ending(1, 6))
        assert [] == live.recorded("t1", ending(1, 6))
        assert [] == live.event(ended(1, 6))
