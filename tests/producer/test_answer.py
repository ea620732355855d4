"""The text that events add up to."""

from __future__ import annotations

import json

import pytest

from warmwire.producer import Answer, Event, Growing, TextVoid


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


def test_a_snapshot_replaces_what_was_there_and_deltas_go_on() -> None:
    known = snapshot((0, 0, "text", "A"), (1, 0, "thinking", "hm"), (1, 1, "text", "B"))
    assert answer(start(), delta("x"), known, delta("b", 1), start(), delta("c")) == "ABbc"


def test_who_can_say_that_text_is_void_is_given_all_anew() -> None:
    growing = Growing()
    given = [growing.add(event_of(each)) for each in (start(), delta("one "), reset(0), start(), delta("on"))]
    assert (["", "one ", "", "", ""], True) == (given, growing.behind)
    with pytest.raises(TextVoid):
        growing.add(event_of(delta("ly")))
    assert ("only", False) == (growing.begin_again(), growing.behind)
    assert " this" == growing.add(event_of(delta(" this")))
