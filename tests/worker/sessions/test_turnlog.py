from __future__ import annotations

import json

import pytest

from warmwire.broker.wire.events import TurnReset
from warmwire.broker.wire.messages import RECORDED_TEXT_LIMIT
from warmwire.worker.cli.said import StreamEvent
from warmwire.worker.sessions.turnlog import ENDED_LIMIT, EVENTS_LIMIT, History, TurnLog

from tests.worker.said import block_start, delta, event, message_start, thought


def enveloped(event: StreamEvent) -> bytes:
    return b'{"event":%b}' % event.event


def log_of(*events: StreamEvent, first: int = 1) -> TurnLog:
    log = TurnLog("t1", 1, first)
    for each in events:
        log.append(enveloped(each))
    return log


def reset(message: int) -> StreamEvent:
    event = TurnReset(turn="t1", attempt=1, reason="api_retry", message=message)
    return StreamEvent(event.encode(), event.type)


def answer(*events: StreamEvent) -> str:
    return log_of(*events).answer()[0]


BEGIN = (message_start("m1"), block_start())


# -- events


def test_the_events_after_a_sequence_come_in_order() -> None:
    log = log_of(*map(delta, "abc"), first=5)
    assert (5, 7) == (log.first, log.last)
    assert [json.loads(text)["event"]["delta"]["text"] for text in log.since(5) or ()] == ["b", "c"]
    assert () == log.since(7)


def test_events_that_were_before_the_log_are_not_known() -> None:
    assert log_of(delta("a"), first=5).since(3) is None


def test_old_events_make_room_but_their_text_stays() -> None:
    size = EVENTS_LIMIT // 8
    log = log_of(*BEGIN, *[delta(letter * size) for letter in "abcdefgh"])
    assert 7 == len(log.since(log.first - 1) or ())
    assert log.since(0) is None
    assert log.since(log.first - 1) is not None
    text, truncated = log.answer()
    assert "".join(letter * size for letter in "abcdefgh") == text
    assert not truncated


def test_events_up_to_the_limit_are_kept() -> None:
    around = len(enveloped(delta("")))
    log = log_of(delta("x" * (EVENTS_LIMIT // 2 - around)), delta("x" * (EVENTS_LIMIT // 2 - around)))
    assert log.first == log.begun
    log.append(enveloped(delta("")))
    assert log.first > log.begun


def test_an_event_larger_than_the_limit_is_kept_alone() -> None:
    log = log_of(delta("a"), delta("x" * EVENTS_LIMIT))
    assert (2, 2) == (log.first, log.last)


def test_of_an_ended_turn_only_the_end_is_kept() -> None:
    log = log_of(*[delta("x" * 500) for _ in range(100)], delta("end"))
    log.end()
    assert 101 == log.last
    assert sum(map(len, log.since(log.first - 1) or ())) <= ENDED_LIMIT
    assert (enveloped(delta("end")).decode(),) == log.since(100)
    large = log_of(delta("x" * ENDED_LIMIT))
    large.end()
    assert (1, 1) == (large.first, large.last)


# -- text


def test_text_is_put_together_per_message_and_block() -> None:
    log = log_of(
        *BEGIN, delta("a"), delta("b"), block_start(index=1), delta("c", index=1), *BEGIN, delta("d")
    )
    blocks = [(block.message, block.index, block.text) for block in log.snapshot().blocks]
    assert [(0, 0, "ab"), (0, 1, "c"), (1, 0, "d")] == blocks


def test_the_answer_leaves_thinking_out_and_the_snapshot_shows_it() -> None:
    log = log_of(
        message_start("m1"), block_start("thinking"), thought("hm"), block_start(index=1), delta("a", 1)
    )
    assert ("a", False) == log.answer()
    assert [("thinking", "hm"), ("text", "a")] == [(b.kind, b.text) for b in log.snapshot().blocks]


def test_text_that_a_block_begins_with_counts() -> None:
    begun = event("content_block_start", index=0, content_block={"type": "text", "text": "He"})
    assert "Hello" == answer(message_start("m1"), begun, delta("llo"))


def test_text_of_a_block_without_a_start_counts() -> None:
    assert "a" == answer(message_start("m1"), delta("a"))
    assert "" == answer(message_start("m1"), thought("hm"))


def test_a_reset_voids_a_message_and_those_after_it() -> None:
    assert "a" == answer(*BEGIN, delta("a"), *BEGIN, delta("b"), reset(1))
    assert "ac" == answer(*BEGIN, delta("a"), *BEGIN, delta("b"), reset(1), *BEGIN, delta("c"))
    assert "c" == answer(*BEGIN, delta("a"), reset(0), *BEGIN, delta("c"))


def test_asking_twice_gives_the_same() -> None:
    log = log_of(*BEGIN, delta("a"))
    assert log.answer() == log.answer()
    assert log.snapshot() == log.snapshot()


@pytest.mark.parametrize("character", ["x", "€", "\x01", '"', "😀"])
def test_text_is_cut_at_its_limit_in_json(character: str) -> None:
    text, truncated = log_of(*BEGIN, delta(character * RECORDED_TEXT_LIMIT), delta("more")).answer()
    size = len(json.dumps(text, ensure_ascii=False).encode()) - 2
    assert (truncated, True) == (True, RECORDED_TEXT_LIMIT - 6 < size <= RECORDED_TEXT_LIMIT)
    assert set(character) == set(text)


def test_text_of_exactly_the_limit_is_not_cut() -> None:
    assert not log_of(*BEGIN, delta("x" * RECORDED_TEXT_LIMIT)).snapshot().truncated


def test_what_is_voided_makes_room_again() -> None:
    huge = delta("x" * (RECORDED_TEXT_LIMIT + 1))
    log = log_of(*BEGIN, delta("a"), *BEGIN, huge, reset(1), *BEGIN, delta("b"))
    assert ("ab", False) == log.answer()


def test_what_stands_before_a_reset_goes_on_to_take_room() -> None:
    most = delta("x" * (RECORDED_TEXT_LIMIT - 1))
    log = log_of(*BEGIN, most, *BEGIN, delta("a"), reset(1), *BEGIN, delta("bc"))
    assert ("b", True) == (log.answer()[0][-1], log.answer()[1])


def test_a_cut_that_lies_before_the_reset_stays_one() -> None:
    huge = delta("x" * (RECORDED_TEXT_LIMIT + 1))
    assert log_of(*BEGIN, huge, *BEGIN, delta("a"), reset(1), *BEGIN, delta("b")).answer()[1]


@pytest.mark.parametrize(
    "odd",
    [
        event("content_block_delta", delta="?", index=0),
        event("content_block_delta", delta={"type": "text_delta", "text": None}),
        event("content_block_start", index="first"),
        event("content_block_start", index=0),
        event("ping"),
        StreamEvent(b'{"no":"type"}', "?"),
    ],
)
def test_an_event_of_an_unknown_shape_adds_no_text(odd: StreamEvent) -> None:
    assert "ab" == answer(*BEGIN, delta("a"), odd, delta("b"))


def test_the_type_need_not_stand_first() -> None:
    late = StreamEvent(
        b'{"index":0,"delta":{"text":"a"},"type":"content_block_delta"}', "content_block_delta"
    )
    assert "a" == answer(*BEGIN, late)


# -- the events of an ownership


def history(*lengths: int) -> History:
    """Turns t1, t2, … of so many events; all but the last have ended."""
    known, seq = History(), 0
    for number, length in enumerate(lengths, 1):
        if number > 1:
            known.end()
        log = TurnLog(f"t{number}", 1, seq + 1)
        known.begin(log)
        for _ in range(length):
            seq += 1
            log.append(f"{seq}".encode())
    return known


def test_the_history_reaches_back_into_the_turn_before() -> None:
    assert ("3", "4", "5") == history(3, 2).since(2)
    assert ("4", "5") == history(3, 2).since(3)
    assert () == history(3, 2).since(5)


def test_the_history_forgets_the_turns_before_that() -> None:
    assert history(3, 2, 1).since(2) is None
    assert ("4", "5", "6") == history(3, 2, 1).since(3)


def test_the_history_is_of_one_turn_between_turns() -> None:
    known = history(3, 2)
    known.end()
    assert known.since(2) is None
    assert ("5",) == known.since(4)


def test_an_empty_history_knows_nothing() -> None:
    assert History().since(0) is None


def test_a_turn_from_its_beginning_goes_on_to_the_newest_event() -> None:
    assert ("4", "5") == history(3, 2).of_turn("t2")
    assert ("1", "2", "3", "4", "5") == history(3, 2).of_turn("t1")


def test_nothing_has_come_of_a_turn_that_is_not_known() -> None:
    assert () == history(3, 2).of_turn("t9")


def test_nothing_is_told_over_events_that_made_room() -> None:
    known = history(3)
    known.end()
    log = TurnLog("t2", 1, 4)
    known.begin(log)
    for _ in range(3):
        log.append(b'{"event":"%b"}' % (b"x" * (EVENTS_LIMIT // 2)))
    assert [None, None] == [known.of_turn(turn) for turn in ("t1", "t2")]
