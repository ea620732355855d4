from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.events import TurnCompleted, TurnEnd, TurnFailed, TurnInterrupted
from warmwire.worker.sessions.transcript import (
    APPEND_LIMIT,
    answered,
    appends,
    conversation,
    epoch,
    epoch_entry,
    turn_entry,
)

from tests.worker.said import answer_entry, prompt_entry

END = TurnCompleted(turn="t1", attempt=1, duration_ms=5, stop_reason="end_turn")
HUGE = b'{"type":"user","text":"%b"}' % (b"x" * (2 * APPEND_LIMIT))


def test_the_entries_of_a_turn_are_one_append() -> None:
    assert [b'{"a":1}\n{"b":2}'] == appends([b'{"a":1}', b'{"b":2}'])


def test_no_entries_are_no_append() -> None:
    assert [] == appends([])


def test_an_append_is_never_longer_than_its_limit() -> None:
    parts = appends([HUGE])
    assert 3 == len(parts)
    assert [1, 2] == [len(appends([b"x" * length])) for length in (APPEND_LIMIT, APPEND_LIMIT + 1)]
    assert max(map(len, parts)) <= APPEND_LIMIT


@given(st.lists(st.lists(st.integers(1, 3 * APPEND_LIMIT), min_size=1, max_size=4), max_size=3))
def test_what_is_appended_comes_back(turns: list[list[int]]) -> None:
    entries = [[b'{"x":"%b"}' % (b"y" * size) for size in turn] for turn in turns]
    stored = [append for turn in entries for append in appends(turn)]
    assert b"".join(entry + b"\n" for turn in entries for entry in turn) == conversation(stored)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_turn_without_its_last_part_counts_not_at_all(kept: int) -> None:
    torn = appends([HUGE])[:kept]
    stored = [*appends([b'{"a":1}']), *torn, epoch_entry(7), *appends([b'{"b":2}'])]
    assert b'{"a":1}\n{"b":2}\n' == conversation(stored)


def test_a_torn_turn_does_not_taint_the_next_long_one() -> None:
    stored = [*appends([HUGE])[:2], *appends([HUGE])]
    assert HUGE + b"\n" == conversation(stored)
    assert b"" == conversation(appends([HUGE])[1:])


def test_our_own_entries_are_not_part_of_the_conversation() -> None:
    stored = [epoch_entry(1), *appends([b'{"a": "b c"}', turn_entry(END)]), epoch_entry(2)]
    assert b'{"a": "b c"}\n' == conversation(stored)


def test_the_last_epoch_entry_says_whose_the_transcript_is() -> None:
    assert 0 == epoch([])
    assert 0 == epoch(appends([b'{"a":1}']))
    stored = [*map(epoch_entry, (5, 7)), *appends([b'{"a":1}']), epoch_entry(9), *appends([b'{"b":2}'])]
    assert 9 == epoch(stored)


def test_there_is_no_conversation_before_the_first_turn() -> None:
    assert b"" == conversation([])
    assert b"" == conversation([epoch_entry(1)])


@pytest.mark.parametrize(
    "end",
    [
        END,
        TurnInterrupted(turn="t1", attempt=2, duration_ms=5),
        TurnFailed(turn="t1", attempt=1, duration_ms=5, code="overloaded", message="!", retryable=True),
    ],
)
def test_the_answer_to_a_turn_is_found_with_how_it_ended(end: TurnEnd) -> None:
    stored = appends([prompt_entry("u", "hi"), answer_entry("m1", "Hello"), turn_entry(end)])
    found = answered([epoch_entry(1), *stored, epoch_entry(2)], "t1")
    assert found is not None
    assert (("m1", "Hello"),) == found.messages
    assert end == found.end


def test_a_turn_that_is_not_in_the_transcript_has_no_answer_there() -> None:
    stored = appends([answer_entry("m1", "Hello"), turn_entry(END)])
    assert answered(stored, "t2") is None
    assert answered(stored, "t") is None
    assert answered([], "t1") is None


@pytest.mark.parametrize("end", [b'{"type":"turn_of_tomorrow"}', b'{"type":"turn_completed"}', b"{", b""])
def test_an_answer_whose_end_cannot_be_read_is_refused_by_name(end: bytes) -> None:
    entry = turn_entry(END).replace(END.encode(), end)
    with pytest.raises(BadInput, match=r"^transcript: holds an end of turn t1 that cannot be read$"):
        answered(appends([answer_entry("m1", "Hello"), entry]), "t1")


def test_an_answer_whose_last_part_is_missing_is_none() -> None:
    stored = appends([answer_entry("m1", "x" * APPEND_LIMIT), turn_entry(END)])
    assert answered(stored, "t1") is not None
    assert answered(stored[:-1], "t1") is None


def test_only_what_the_model_said_is_the_answer() -> None:
    entries = (
        prompt_entry("u", "hi"),
        answer_entry("m0", "API Error", model="<synthetic>"),
        answer_entry("m1", "from a sub-agent", sidechain=True),
        answer_entry("m2", ""),
        b'{"type":"assistant","message":{"id":"m3","content":"plain"}}',
        b'{"type":"assistant","message":"?"}',
        b"torn {",
        b'{"type":"last-prompt"}',
        answer_entry("m4", "Hello"),
        turn_entry(END),
    )
    found = answered(appends(entries), "t1")
    assert found is not None
    assert (("m3", "plain"), ("m4", "Hello")) == found.messages
