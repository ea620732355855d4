"""The reader's rules, one by one; its docstring numbers them."""

from __future__ import annotations

import pytest

from warmwire.broker.reading.reader import (
    HOLD_LIMIT,
    REPAIR_WITHIN,
    SILENCE,
    AskRecord,
    Lost,
    Shown,
)
from warmwire.broker.wire.envelope import END, Position

from tests.broker.desk import SNAPSHOT, Desk, asked, given
from tests.broker.made import delta, ended, ending, started, view


class TestTheFirstPosition:
    def test_is_asked_of_the_owner(self) -> None:
        assert [None] == asked(Desk().start())

    def test_is_where_the_owner_says_it_stands(self, desk: Desk) -> None:
        assert [] == desk.answered(view(1, 7))
        assert Position(1, 7) == desk.reader.position

    def test_brings_the_open_turn_as_a_snapshot(self, desk: Desk) -> None:
        assert [Shown("t1", Position(1, 7), SNAPSHOT)] == desk.answered(view(1, 7, "t1"))

    def test_never_comes_from_an_event(self, desk: Desk) -> None:
        assert [] == desk.event(delta(1, 8))
        assert desk.reader.position is None

    def test_is_followed_by_the_newer_of_what_came_meanwhile(self, desk: Desk) -> None:
        for number in (6, 7, 8):
            desk.event(delta(1, number))
        assert [delta(1, 8)] == desk.answered(view(1, 7))

    def test_without_an_owner_comes_from_the_records(self, desk: Desk) -> None:
        assert [] == desk.vacant(5)
        assert Position(5, END) == desk.reader.position

    def test_from_the_records_lets_a_new_epoch_begin_at_once(self, desk: Desk) -> None:
        desk.vacant(5)
        assert [started(6, 1)] == desk.event(started(6, 1))

    def test_without_any_owner_closes_what_is_open_before_the_first_epoch(self, desk: Desk) -> None:
        desk.reader.expect("t1")
        desk.vacant(0)
        desk.recorded("t1")
        assert [AskRecord("t1")] == desk.event(started(1, 1, "t2"))

    def test_is_still_unknown_when_nobody_answered(self, desk: Desk) -> None:
        assert desk.question is not None
        desk.reader.unanswered(desk.question.number)
        assert desk.reader.position is None

    def test_from_the_records_asks_for_a_new_epoch_from_its_beginning(self, desk: Desk) -> None:
        desk.vacant(5)
        assert [Position(5, END)] == asked(desk.event(delta(6, 3)))
        events = (started(6, 1), delta(6, 2), delta(6, 3))
        assert [*events] == desk.answered(view(6, 3, "t1", events))

    def test_of_an_owner_that_is_named_but_silent_is_its_epoch(self, desk: Desk) -> None:
        desk.unanswered(epoch=5)
        assert Position(5, END) == desk.reader.position
        assert [Position(5, END)] == asked(desk.after(0.25))
        desk.unanswered(epoch=5)
        assert [Position(5, END)] == asked(desk.event(started(6, 1)))
        events = (started(6, 1), delta(6, 2))
        assert [*events] == desk.answered(view(6, 2, "t1", events))

    def test_of_an_owner_that_is_named_but_silent_holds_after_giving_up(self, desk: Desk) -> None:
        desk.unanswered(epoch=5)
        desk.after(REPAIR_WITHIN)
        assert [started(6, 1)] == desk.event(started(6, 1))

    def test_of_an_owner_that_was_named_but_silent_is_asked_for_when_it_speaks(self, desk: Desk) -> None:
        desk.unanswered(epoch=5)
        assert [] == desk.event(delta(5, 3))
        desk.after(0.25)
        assert [Shown("t1", Position(5, 2), SNAPSHOT), delta(5, 3)] == desk.answered(view(5, 2, "t1"))

    def test_where_nothing_answers_is_the_first_event_s_with_what_is_lost(self, desk: Desk) -> None:
        desk.event(delta(1, 8))
        assert [Lost(Position(1, 0), Position(1, 7)), delta(1, 8)] == given(desk.after(REPAIR_WITHIN))

    def test_looks_up_an_expected_turn_that_the_owner_does_not_have(self, desk: Desk) -> None:
        desk.reader.expect("t1")
        assert [AskRecord("t1")] == desk.answered(view(2, 1))
        assert [Shown("t1", Position(1, 8), SNAPSHOT), ended(1, 9)] == desk.recorded("t1", ending(1, 9))
        assert Position(2, 1) == desk.reader.position

    def test_of_an_owner_that_was_held_gone_is_asked_for_when_it_speaks(self, desk: Desk) -> None:
        desk.vacant(5)
        assert [None] == asked(desk.event(delta(5, 3)))
        assert [Shown("t1", Position(5, 4), SNAPSHOT)] == desk.answered(view(5, 4, "t1"))
        assert [delta(5, 5)] == desk.event(delta(5, 5))

    def test_of_an_owner_that_was_held_gone_is_taken_from_its_answer(self, desk: Desk) -> None:
        desk.vacant(5)
        desk.reconnected()
        assert [Shown("t1", Position(5, 4), SNAPSHOT)] == desk.answered(view(5, 4, "t1"))

    def test_of_an_owner_that_speaks_but_does_not_answer_is_its_event_s(self, desk: Desk) -> None:
        desk.vacant(5)
        desk.event(delta(5, 3))
        assert [Lost(Position(5, 0), Position(5, 2)), delta(5, 3)] == given(desk.after(REPAIR_WITHIN))

    def test_of_an_owner_that_was_held_gone_is_its_event_s_even_after_a_reconnect(self, desk: Desk) -> None:
        desk.vacant(5)
        desk.reconnected()
        assert [] == desk.event(delta(5, 3))
        assert [Lost(Position(5, 0), Position(5, 2)), delta(5, 3)] == given(desk.after(REPAIR_WITHIN))

    def test_leaves_an_end_that_is_still_to_come_as_an_event_to_the_event(self, desk: Desk) -> None:
        desk.reader.expect("t1")
        desk.answered(view(2, 0))
        assert [] == desk.recorded("t1", ending(2, 2))
        assert [started(2, 1)] == desk.event(started(2, 1))
        assert [ended(2, 2)] == desk.event(ended(2, 2))


class TestWhatIsNotNewer:
    def test_is_dropped_when_repeated(self, live: Desk) -> None:
        assert [] == live.event(delta(1, 5))
        assert [] == live.event(delta(1, 4))
        assert [] == live.event(delta(1, 2))

    def test_is_dropped_when_of_an_epoch_that_is_over(self, live: Desk) -> None:
        live.event(delta(2, 1))
        assert [] == live.event(delta(1, 6))

    def test_looks_up_an_open_turn_whose_end_it_is(self, live: Desk) -> None:
        live.event(delta(2, 1))
        assert [AskRecord("t1")] == live.event(ended(1, 9))
        expected = [Shown("t1", Position(1, 8), SNAPSHOT), ended(1, 9)]
        assert expected == live.recorded("t1", ending(1, 9))

    def test_changes_nothing_for_a_turn_that_has_ended(self, live: Desk) -> None:
        live.event(ended(1, 6))
        assert [] == live.event(ended(1, 6))


class TestTheNext:
    def test_sequence_is_given_at_once(self, live: Desk) -> None:
        assert [delta(1, 6)] == live.event(delta(1, 6))

    def test_turn_follows_the_one_that_has_ended(self, live: Desk) -> None:
        assert [ended(1, 6)] == live.event(ended(1, 6))
        assert [started(1, 7, "t2")] == live.event(started(1, 7, "t2"))


class TestAHole:
    def test_is_held_and_asked_about_at_once(self, live: Desk) -> None:
        assert [Position(1, 5)] == asked(live.event(delta(1, 8)))

    def test_is_repaired_by_the_owner(self, live: Desk) -> None:
        live.event(delta(1, 8))
        live.event(delta(1, 9))
        events = (delta(1, 6), delta(1, 7), delta(1, 8))
        assert [*events, delta(1, 9)] == live.answered(view(1, 8, "t1", events))

    def test_that_the_owner_cannot_fill_is_lost_and_a_snapshot_shown(self, live: Desk) -> None:
        live.event(delta(1, 8))
        expected = [Lost(Position(1, 5), Position(1, 8)), Shown("t1", Position(1, 8), SNAPSHOT)]
        assert expected == live.answered(view(1, 8, "t1"))
        assert [delta(1, 9)] == live.event(delta(1, 9))

    def test_in_an_owner_s_answer_is_not_believed_to_be_whole(self, live: Desk) -> None:
        live.event(delta(1, 8))
        torn = (delta(1, 6), delta(1, 8))
        assert [Lost(Position(1, 5), Position(1, 8))] == live.answered(view(1, 8, "t1", torn))

    def test_is_asked_about_again_while_nobody_answers(self, live: Desk) -> None:
        live.event(delta(1, 8))
        live.unanswered()
        assert [Position(1, 5)] == asked(live.after(0.25))

    def test_is_not_asked_about_again_while_the_question_is_open(self, live: Desk) -> None:
        live.event(delta(1, 8))
        assert [] == live.after(0.25)

    def test_that_an_answer_leaves_is_asked_about_by_the_tick_alone(self, live: Desk) -> None:
        live.event(delta(1, 8))
        assert [] == live.answered(view(1, 5, "t1", ()))
        assert [Position(1, 5)] == asked(live.after(0.25))

    def test_that_answers_never_fill_is_given_up(self, live: Desk) -> None:
        live.event(delta(1, 8))
        for _ in range(7):
            live.answered(view(1, 5, "t1", ()))
            live.after(0.25)
        live.answered(view(1, 5, "t1", ()))
        assert [Lost(Position(1, 5), Position(1, 7)), delta(1, 8)] == given(live.after(0.25))

    def test_behind_another_one_is_asked_about_at_once(self, live: Desk) -> None:
        live.event(delta(1, 7))
        live.event(delta(1, 10))
        actions = live.answered(view(1, 7, "t1", (delta(1, 6), delta(1, 7))))
        assert [delta(1, 6), delta(1, 7)] == given(actions)
        assert [Position(1, 7)] == asked(actions)

    def test_is_not_filled_by_the_answer_to_an_earlier_question(self, desk: Desk) -> None:
        first = desk.question
        assert first is not None
        desk.reconnected()
        assert [] == desk.reader.answered(first.number, view(1, 99), desk.now)
        assert [] == desk.reader.vacant(first.number, 7, desk.now)
        assert desk.reader.position is None
        desk.reader.unanswered(first.number)
        assert [] == desk.after(0.25)  # the last question is still open

    def test_is_not_filled_by_an_owner_that_has_lost_the_session(self, live: Desk) -> None:
        live.event(delta(2, 1))
        live.event(delta(2, 3))
        assert [] == live.answered(view(1, 40, "t1"))
        assert [Position(2, 1)] == asked(live.after(0.25))

    def test_at_the_end_of_an_epoch_s_events_is_found_when_all_is_silent(self, live: Desk) -> None:
        live.after(SILENCE)
        assert [delta(1, 6)] == live.answered(view(1, 6, "t1", (delta(1, 6),)))

    def test_in_one_epoch_is_filled_at_once_while_other_turns_are_looked_up(self, live: Desk) -> None:
        live.reader.expect("t2")
        live.event(delta(1, 7))
        filled = (delta(1, 6), delta(1, 7))
        assert [*filled, AskRecord("t2")] == live.answered(view(1, 7, "t1", filled))

    def test_of_which_the_answer_waits_for_a_record_is_asked_about_anew_after_a_reconnect(
        self, live: Desk
    ) -> None:
        live.event(delta(2, 2, "t2"))
        first = (started(2, 1, "t2"), delta(2, 2, "t2"))
        live.answered(view(2, 2, "t2", first))
        live.reconnected()
        assert [ended(1, 6)] == live.recorded("t1", ending(1, 6))
        assert [] == live.event(delta(2, 4, "t2"))
        events = (*first, delta(2, 3, "t2"))
        assert [*events, delta(2, 4, "t2")] == live.answered(view(2, 3, "t2", events))


class TestGivingUp:
    def test_comes_when_a_repair_takes_too_long(self, live: Desk) -> None:
        live.event(delta(1, 8))
        live.event(delta(1, 11))
        expected = [
            Lost(Position(1, 5), Position(1, 7)),
            delta(1, 8),
            Lost(Position(1, 8), Position(1, 10)),
            delta(1, 11),
        ]
        assert expected == given(live.after(REPAIR_WITHIN))
        assert [delta(1, 12)] == live.event(delta(1, 12))

    def test_of_a_turn_that_has_ended_meanwhile_brings_its_whole_text(self, live: Desk) -> None:
        live.event(delta(1, 8))
        live.event(ended(1, 9))
        live.event(started(1, 10, "t2"))
        actions = live.after(REPAIR_WITHIN)
        assert [Lost(Position(1, 5), Position(1, 7)), delta(1, 8)] == given(actions)
        assert AskRecord("t1") in actions
        expected = [Shown("t1", Position(1, 8), SNAPSHOT), ended(1, 9), started(1, 10, "t2")]
        assert expected == live.recorded("t1", ending(1, 9))

    def test_of_a_turn_that_ends_before_its_snapshot_comes_brings_its_whole_text(self, live: Desk) -> None:
        live.event(delta(1, 8))
        live.after(REPAIR_WITHIN)
        assert [AskRecord("t1")] == live.event(ended(1, 9))
        assert [Shown("t1", Position(1, 8), SNAPSHOT), ended(1, 9)] == live.recorded("t1", ending(1, 9))

    @pytest.mark.parametrize("record_is_gone", [True, False])
    def test_ends_with_the_end_alone_where_there_is_no_record(self, live: Desk, record_is_gone: bool) -> None:
        live.event(delta(1, 8))
        live.after(REPAIR_WITHIN)
        live.event(ended(1, 9))
        actions = live.recorded("t1", None) if record_is_gone else live.after(REPAIR_WITHIN)
        assert [ended(1, 9)] == given(actions)

    def test_comes_when_too_much_is_held(self, live: Desk) -> None:
        for number in range(HOLD_LIMIT):
            assert [] == given(live.event(delta(1, 8 + number)))
        actions = live.event(delta(1, 8 + HOLD_LIMIT))
        assert Lost(Position(1, 5), Position(1, 7)) == actions[0]
        assert HOLD_LIMIT + 2 == len(actions)

    def test_uses_an_answer_whose_records_do_not_come(self, live: Desk) -> None:
        live.event(delta(2, 2, "t2"))
        events = (started(2, 1, "t2"), delta(2, 2, "t2"))
        live.answered(view(2, 2, "t2", events))
        assert [*events] == given(live.after(REPAIR_WITHIN))

    def test_waits_no_more_for_records(self, live: Desk) -> None:
        live.event(started(2, 1, "t2"))
        live.after(REPAIR_WITHIN)
        live.event(delta(2, 3, "t2"))
        live.unanswered()
        assert [Position(2, 1)] == asked(live.after(0.25))

    def test_owes_a_snapshot_and_asks_for_it_until_it_has_it(self, live: Desk) -> None:
        live.event(delta(1, 8))
        live.after(REPAIR_WITHIN)
        assert [None] == asked(live.after(0.25))
        live.unanswered()
        assert [None] == asked(live.after(0.25))
        assert [Shown("t1", Position(1, 8), SNAPSHOT)] == live.answered(view(1, 8, "t1"))
        assert [] == live.after(0.25)

    def test_gives_the_snapshot_when_its_events_have_come(self, live: Desk) -> None:
        live.event(delta(1, 8))
        live.after(REPAIR_WITHIN)
        live.after(0.25)
        assert [] == live.answered(view(1, 9, "t1"))
        assert [delta(1, 9), Shown("t1", Position(1, 9), SNAPSHOT)] == live.event(delta(1, 9))

    def test_asks_anew_when_the_snapshot_comes_too_late(self, live: Desk) -> None:
        live.event(delta(1, 8))
        live.after(REPAIR_WITHIN)
        live.after(0.25)
        live.event(delta(1, 9))
        assert [] == live.answered(view(1, 8, "t1"))
        assert [None] == asked(live.after(0.25))

    def test_owes_nothing_once_the_turn_has_ended(self, live: Desk) -> None:
        live.event(delta(1, 8))
        live.after(REPAIR_WITHIN)
        live.event(ended(1, 9))
        live.recorded("t1", ending(1, 9))
        assert [] == live.after(0.25)

    def test_owes_nothing_when_the_owner_runs_nothing(self, live: Desk) -> None:
        live.event(delta(1, 8))
        live.after(REPAIR_WITHIN)
        live.after(0.25)
        assert [] == live.answered(view(1, 8))
        assert [] == live.after(0.25)

    def test_still_looks_up_the_turns_of_an_epoch_that_is_over(self, live: Desk) -> None:
        live.event(delta(2, 3, "t2"))
        assert AskRecord("t1") in live.after(REPAIR_WITHIN)
        assert [Shown("t1", Position(1, 8), SNAPSHOT), ended(1, 9)] == live.recorded("t1", ending(1, 9))
