"""The text that events add up to."""

from __future__ import annotations

import json

import pytest

from warmwire.broker.reading.reader import Lost, Shown
from warmwire.broker.wire.envelope import Envelope, Position
from warmwire.producer import Answer, Event, Growing, TextVoid
from warmwire.producer.answer import event_of as told_of
from warmwire.producer.answer import failure_of
from warmwire.producer.resume import UNREAD


def event_of(event: dict[str, object]) -> Event:
    return Event(str(event["type"]), json.dumps(event, separators=(",", ":")).encode())


def answer(*events: dict[str, object]) -> str:
    """The text after these events."""
    whole = Answer()
    for event in events:
        whole.add(event_of(event))
    return whole.text


def start() -> dict[str, object]:
    return {"type": "message_start"}


def delta(text: str, index: int = 0, kind: str = "text_delta") -> dict[str, object]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, "text": text}}


def reset(message: int) -> dict[str, object]:
    return {"type": "turn_reset", "message": message}


def snapshot(*blocks: tuple[int, int, str, str]) -> dict[str, object]:
    named = [{"message": m, "index": i, "kind": kind, "text": text} for m, i, kind, text in blocks]
    return {"type": "snapshot", "blocks": named}


def test_deltas_add_up() -> None:
    assert answer(start(), delta("a"), delta("b")) == "ab"


def test_messages_and_blocks_follow_each_other() -> None:
    assert answer(start(), delta("a"), delta("c", 1), delta("b"), start(), delta("d")) == "abcd"


def test_only_text_counts() -> None:
    assert answer(start(), delta("hm", kind="thinking_delta"), delta("a", 1)) == "a"


def test_a_reset_forgets_everything_or_the_last_messages() -> None:
    told = [start(), delta("a"), start(), delta("b")]
    assert answer(*told, reset(0), start(), delta("c")) == "c"
    assert answer(*told, reset(1), start(), delta("c")) == "ac"


def test_a_reset_without_a_number_forgets_everything_and_a_delta_without_one_is_of_the_first_block() -> None:
    bare: dict[str, object] = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "b"}}
    assert answer(start(), delta("a"), {"type": "turn_reset"}, start(), delta("c", 1), bare) == "bc"


def test_messages_after_a_reset_are_counted_from_there() -> None:
    told = [start(), delta("a"), start(), delta("b"), start(), delta("c"), reset(1)]
    known = snapshot((0, 0, "text", "a"), (1, 0, "text", "B"))
    assert answer(*told, start(), delta("B"), known, delta("!")) == "aB!"
    assert answer(*told, start(), delta("B"), start(), delta("C")) == "aBC"
    assert answer(*told, start(), delta("B"), start(), delta("C"), reset(2), start(), delta("D")) == "aBD"


def test_who_can_take_nothing_back_is_given_each_word_once() -> None:
    growing = Growing()
    assert not growing.behind
    assert ["", "one ", "two "] == [
        growing.add(event_of(each)) for each in (start(), delta("one "), delta("two "))
    ]
    assert not growing.behind
    assert "three" == growing.add(event_of(snapshot((0, 0, "text", "one two three"))))
    assert not growing.behind
    assert "!" == growing.add(event_of(delta("!")))


def test_a_turn_that_is_complete_without_what_was_given_out_voids_it() -> None:
    growing = Growing()
    for each in (start(), delta("one "), reset(0), start(), delta("on")):
        growing.add(event_of(each))
    with pytest.raises(TextVoid) as raised:
        growing.add(event_of({"type": "turn_completed"}))
    assert "one " == raised.value.text


HERE = Position(7, 3)


def test_each_thing_that_is_told_has_the_cursor_just_after_it() -> None:
    said = Envelope(7, 3, "t1", 1, "ping", b'{"type":"ping"}')
    assert Event("ping", said.event, "t1.7.3") == told_of(said, "t1")
    lost = told_of(Lost(HERE, Position(7, 9)), "t1")
    assert ("gap", "t1.7.3") == (lost.type, lost.cursor)
    assert ("t1.7.3", "t1.7.9") == (lost.data["after"], lost.data["until"])
    shown = Shown("t1", HERE, b'{"type":"snapshot"}')
    assert Event("snapshot", shown.event, "t1.7.3") == told_of(shown, "another")


def test_what_was_lost_after_an_unreadable_cursor_begins_nowhere() -> None:
    assert "" == told_of(Lost(UNREAD, HERE), "t1").data["after"]


def test_a_snapshot_replaces_what_was_there_and_deltas_go_on() -> None:
    known = snapshot((0, 0, "text", "A"), (1, 0, "thinking", "hm"), (1, 1, "text", "B"))
    assert answer(start(), delta("x"), known, delta("b", 1), start(), delta("c")) == "ABbc"
    assert answer(start(), delta("x"), snapshot(), start(), delta("c")) == "c"


@pytest.mark.parametrize("retryable", [True, False])
def test_a_failure_says_why_and_keeps_the_text_so_far(retryable: bool) -> None:
    told = {"type": "turn_failed", "code": "overloaded", "message": "Too much.", "retryable": retryable}
    failed = failure_of(event_of(told), "so far")
    assert ("overloaded", retryable, "so far") == (failed.code, failed.retryable, failed.text)
    assert "Too much." in str(failed)


def test_who_can_say_that_text_is_void_is_given_all_anew() -> None:
    growing = Growing()
    given = [growing.add(event_of(each)) for each in (start(), delta("one "), reset(0), start(), delta("on"))]
    assert (["", "one ", "", "", ""], True) == (given, growing.behind)
    with pytest.raises(TextVoid):
        growing.add(event_of(delta("ly")))
    assert ("only", False) == (growing.begin_again(), growing.behind)
    assert " this" == growing.add(event_of(delta(" this")))
