"""What a session shows of its turns: events, the transcript, answers to readers."""

from __future__ import annotations

import json

import pytest

from warmwire.broker.wire import envelope
from warmwire.broker.wire.events import TurnCompleted
from warmwire.worker.cli.said import (
    Assistant,
    Retry,
    StreamEvent,
    ToolResult,
    ToolResults,
    ToolUse,
)
from warmwire.worker.sessions import transcript
from warmwire.worker.sessions.deltas import DELTA_LIMIT, EVENT_LIMIT, SUMMARY_LIMIT
from warmwire.worker.sessions.transcript import Answered
from warmwire.worker.sessions.turn import (
    Ack,
    AppendTranscript,
    NeedCli,
    PutRecord,
)
from warmwire.worker.sessions.turnlog import EVENTS_LIMIT

from tests.worker import said
from tests.worker.owner import EPOCH, Owner, held, running

# -- what is published of the CLI's lines


def test_a_retry_of_the_api_voids_the_open_message_only() -> None:
    owner = running()
    owner.say(*said.message("m1", "Let me look."))
    owner.say(said.message_start("m2"), said.block_start(), said.delta("Hel"))
    owner.say(Retry(1, 529))
    assert ("turn_reset", "api_retry", 1) == tuple(
        owner.events[-1][name] for name in ("type", "reason", "message")
    )
    owner.say(*said.message("m3", "Hello"), said.result(owner.uuid))
    assert "Let me look.Hello" == owner.records["t1"].text  # type: ignore[union-attr]  # it is finished


def test_the_message_after_a_retry_takes_the_number_of_the_one_that_is_void() -> None:
    owner = running()
    for _ in range(2):
        owner.say(said.message_start("m1"), said.delta("Hel"), Retry(1, None))
    assert [0, 0] == [event["message"] for event in owner.events if event["type"] == "turn_reset"]


def test_a_retry_with_no_message_open_voids_nothing() -> None:
    owner = running()
    owner.say(Retry(1, None), *said.message("m1", "a"), Retry(1, None))
    assert "turn_reset" not in owner.types


def test_a_message_that_was_not_streamed_is_published_as_if_it_had_been() -> None:
    owner = running()
    owner.now = 0.25
    owner.say(Assistant("m1", "Hello"))
    whole = ["message_start", "content_block_start", "content_block_delta"]
    whole += ["content_block_stop", "message_delta", "message_stop"]
    assert whole == owner.types[1:]
    assert "Hello" == owner.events[3]["delta"]["text"]
    owner.say(said.result(owner.uuid))
    assert 250 == owner.events[-1]["ttft_ms"]


def test_every_block_of_a_message_that_was_not_streamed_is_published() -> None:
    owner = running()
    owner.say(Assistant("m1", "one "), Assistant("m1", "two"), said.result(owner.uuid))
    assert "one two" == owner.records["t1"].text  # type: ignore[union-attr]  # it is finished


def test_what_was_streamed_is_not_published_again() -> None:
    owner = running()
    owner.say(*said.message("m1", "Hello"))
    assert 1 == owner.types.count("content_block_delta")


def test_what_the_cli_writes_in_the_models_place_is_not_published() -> None:
    owner = running()
    owner.say(Assistant("m1", "API Error: 529", synthetic=True))
    assert ["turn_started"] == owner.types


def test_what_sub_agents_say_and_do_is_not_published() -> None:
    owner = running()
    owner.say(
        StreamEvent(said.delta("x").event, "content_block_delta", "toolu_1"),
        Assistant("m9", "x", (ToolUse("i", "Bash", b"{}"),), parent_tool_use_id="toolu_1"),
        ToolResults((ToolResult("i", False, b'""'),), "toolu_1"),
    )
    assert ["turn_started"] == owner.types


def test_sub_agents_have_transcripts_of_their_own() -> None:
    owner = running()
    owner.say(said.mirror(b'{"a":1}', file="/home/t/subagents/agent-1.jsonl"), said.result(owner.uuid))
    assert [] == owner.transcript


def test_a_huge_delta_becomes_several_that_readers_can_join() -> None:
    owner = running()
    text = "x€" * DELTA_LIMIT
    owner.say(said.message_start("m1"), said.block_start(), said.delta(text))
    deltas = [event["delta"]["text"] for event in owner.events if event["type"] == "content_block_delta"]
    assert text == "".join(deltas)
    assert max(map(len, owner.published)) <= DELTA_LIMIT + 200


def test_an_event_that_is_too_large_and_cannot_be_cut_is_left_out_without_a_hole() -> None:
    owner = running()
    owner.say(said.event("content_block_start", content_block={"type": "x", "data": "y" * EVENT_LIMIT}))
    owner.say(said.delta("a"))
    assert (EPOCH, 2) == envelope.decode(owner.published[-1]).position


def test_tools_are_told_with_a_bounded_summary() -> None:
    owner = running()
    arguments = json.dumps({"command": "€" * 10_000}, ensure_ascii=False).encode()
    owner.say(Assistant("", "", (ToolUse("i1", "Bash", arguments),)))
    owner.say(ToolResults((ToolResult("i1", True, b'"' + b"y" * 10_000 + b'"'),)))
    begun, done = owner.events[-2:]
    assert ("tool_started", "Bash", "i1") == (begun["type"], begun["name"], begun["id"])
    assert ("tool_finished", "i1", True) == (done["type"], done["id"], done["is_error"])
    assert arguments.decode()[:SUMMARY_LIMIT] == begun["summary"]
    assert SUMMARY_LIMIT == len(done["summary"])


def test_an_event_of_an_unknown_shape_is_passed_on() -> None:
    owner = running()
    odd = said.event("message_start", message="?"), said.event("content_block_delta", delta=[1], index={})
    owner.say(*odd, said.event("from_the_future", x=1), said.result(owner.uuid))
    assert [event.event for event in odd] == [envelope.decode(data).event for data in owner.published[1:3]]
    assert ["turn_completed"] == owner.endings


# -- the transcript


def test_the_entries_of_a_turn_are_stored_together_and_say_how_it_ended() -> None:
    owner = running()
    owner.answer("Hello")
    entries = owner.transcript[0].split(b"\n")
    assert 3 == len(entries)
    assert Answered((("m1", "Hello"),), TurnCompleted.model_validate(owner.events[-1])) == (
        transcript.answered(owner.transcript, "t1")
    )


def test_without_a_mirror_nothing_is_stored() -> None:
    owner = running()
    owner.say(*said.message("m1", "Hello"), said.result(owner.uuid))
    assert AppendTranscript not in owner.order
    assert ["turn_completed"] == owner.endings


# -- what readers ask


def test_without_a_position_the_view_says_where_the_session_stands() -> None:
    owner = Owner()
    assert (EPOCH, 0, None, None) == tuple(
        getattr(owner.view(), name) for name in ("epoch", "seq", "turn", "snapshot")
    )
    owner.offer(held(1))
    assert (EPOCH, 1, "t1") == (owner.view().epoch, owner.view().seq, owner.view().turn)
    assert owner.view(epoch=EPOCH).events is None  # half a position is none


def envelopes(owner: Owner, start: int = 0) -> tuple[str, ...]:
    return tuple(data.decode() for data in owner.published[start:])


def test_a_reader_gets_what_came_after_its_position() -> None:
    owner = running()
    owner.say(*said.message("m1", "Hello"))
    assert envelopes(owner, 3) == owner.view(epoch=EPOCH, seq=3).events
    assert () == owner.view(epoch=EPOCH, seq=owner.session.seq).events


def test_a_reader_that_missed_the_end_of_the_turn_before_gets_it() -> None:
    owner = running()
    owner.answer("Hello")
    owner.offer(held(2))
    after = owner.types.index("message_stop")
    assert envelopes(owner, after) == owner.view(epoch=EPOCH, seq=after).events


def test_a_reader_of_an_older_epoch_gets_this_one_from_its_beginning() -> None:
    owner = running()
    assert envelopes(owner) == owner.view(epoch=EPOCH - 1, seq=99).events
    assert () == Owner().view(epoch=EPOCH - 1, seq=99).events


@pytest.mark.parametrize("future", [(EPOCH, 99), (EPOCH + 1, 0)])
def test_a_position_from_the_future_gets_a_snapshot(future: tuple[int, int]) -> None:
    owner = running()
    owner.say(said.message_start("m1"), said.block_start(), said.delta("Hel"))
    view = owner.view(epoch=future[0], seq=future[1])
    assert view.events is None
    assert "Hel" == json.loads(view.snapshot)["blocks"][0]["text"]


def test_a_turn_is_told_from_its_beginning() -> None:
    owner = running()
    owner.answer("Hello")
    begun = len(owner.published)
    owner.offer(held(2))
    owner.say(*said.message("m2", "again"))
    assert envelopes(owner, begun) == owner.view(turn="t2", epoch=EPOCH, seq=0).events
    assert envelopes(owner) == owner.view(turn="t1", epoch=EPOCH, seq=0).events


@pytest.mark.parametrize("turn", ["t2", "t9"])
def test_of_a_turn_that_has_not_begun_nothing_was_missed(turn: str) -> None:
    owner = running()
    owner.offer(held(2))
    view = owner.view(turn=turn, epoch=EPOCH, seq=0)
    assert () == view.events
    assert view.snapshot is None


def test_events_that_made_room_are_replaced_by_a_snapshot() -> None:
    owner = running()
    owner.say(said.message_start("m1"), said.block_start())
    for _ in range(5):
        owner.say(said.delta("x" * (EVENTS_LIMIT // 4)))
    view = owner.view(epoch=EPOCH, seq=1)
    assert view.events is None
    (block,) = json.loads(view.snapshot)["blocks"]
    assert EVENTS_LIMIT // 4 * 4 == len(block["text"])  # cut at the limit of text, which is the same
    assert envelopes(owner, 7) == owner.view(epoch=EPOCH, seq=7).events


def test_a_turn_whose_end_has_been_told_is_not_shown_as_running() -> None:
    owner = Owner(Ack)
    owner.offer(held(1))
    owner.answer("Hello")
    assert owner.view().turn is None
    assert owner.view().snapshot is None


def test_a_turn_is_running_until_its_end_has_been_told() -> None:
    owner = Owner(PutRecord)
    owner.offer(held(1))
    owner.release(PutRecord)
    owner.answer("Hello")
    assert "t1" == owner.view().turn


def test_a_turn_that_has_not_begun_is_not_shown_as_running() -> None:
    owner = Owner(NeedCli)
    owner.offer(held(1))
    assert owner.view().turn is None


def test_an_idle_session_keeps_little() -> None:
    owner = running()
    owner.say(said.message_start("m1"), said.block_start(), *[said.delta("x" * 1000) for _ in range(200)])
    owner.say(said.result(owner.uuid))
    assert owner.view(epoch=EPOCH, seq=1).events is None
    assert envelopes(owner)[-1:] == owner.view(epoch=EPOCH, seq=len(owner.published) - 1).events
