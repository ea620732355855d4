"""The state machine of a session, moment by moment, without I/O.

Long: it mirrors one module, a class for each moment of a turn, and all of them share the desk
that carries out what the session commands.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from warmwire.broker.wire import envelope
from warmwire.broker.wire.events import TurnCompleted
from warmwire.broker.wire.messages import Finished
from warmwire.worker.cli.said import StreamEvent, Usage
from warmwire.worker.errors import ErrorCode
from warmwire.worker.profiles import Setup
from warmwire.worker.sessions import transcript
from warmwire.worker.sessions.session import PROGRESS_EVERY
from warmwire.worker.sessions.turn import (
    ATTEMPTS,
    DELIVERIES,
    Ack,
    AppendTranscript,
    Ended,
    FindHead,
    Held,
    NeedCli,
    Publish,
    PutRecord,
    ReadRecord,
    Stage,
)

from tests.worker import said
from tests.worker.owner import EPOCH, KEY, Owner, finished_before, held, running, started

# -- the way of one turn


def test_a_turn_goes_its_whole_way() -> None:
    owner = running()
    owner.answer("Hel", "lo")
    assert ["turn_started", "message_start"] == owner.types[:2]
    assert "turn_completed" == owner.types[-1]
    assert ["hi"] == owner.prompts
    assert ["ack-1-1"] == owner.acked
    assert ["turn_completed"] == owner.endings
    assert Stage.IDLE is owner.session.stage


def test_the_end_is_stored_then_told_then_acknowledged() -> None:
    owner = running()
    owner.answer("Hello")
    assert [AppendTranscript, PutRecord, Publish, Ended, Ack] == owner.order[-5:]


def test_the_stored_end_is_the_published_one_byte_for_byte() -> None:
    owner = running()
    owner.answer("Hello")
    record = owner.records["t1"]
    assert isinstance(record, Finished)
    assert owner.published[-1] == record.envelope.encode()
    assert ("Hello", False) == (record.text, record.truncated)


def test_sequences_run_from_one_without_a_hole() -> None:
    owner = running()
    owner.answer("Hello")
    owner.offer(held(2))
    owner.answer("again")
    positions = [envelope.decode(data).position for data in owner.published]
    assert [(EPOCH, seq) for seq in range(1, len(positions) + 1)] == positions


def test_an_event_of_the_cli_is_published_byte_for_byte() -> None:
    owner = running()
    odd = StreamEvent(b'{"delta": {"text":"x"},  "type":"content_block_delta"}', "content_block_delta")
    owner.say(odd)
    assert odd.event == envelope.decode(owner.published[-1]).event


def test_the_end_tells_usage_cost_and_times() -> None:
    owner = running()
    owner.now = 0.25
    owner.say(said.message_start("m1"), said.block_start(), said.delta("a"))
    owner.now = 1.0
    owner.say(said.result(owner.uuid))
    end = owner.events[-1]
    assert (250, 1000, "end_turn") == (end["ttft_ms"], end["duration_ms"], end["stop_reason"])
    assert (3, 5, 0.25) == tuple(end["usage"][name] for name in ("input_tokens", "output_tokens", "cost_usd"))


def test_the_end_tells_what_was_read_from_the_cache() -> None:
    owner = running()
    usage = Usage(input_tokens=1, output_tokens=2, cache_read_input_tokens=3, cache_creation_input_tokens=4)
    owner.say(msgspec.structs.replace(said.result(owner.uuid), usage=usage))
    told = owner.events[-1]["usage"]
    assert msgspec.structs.asdict(usage) == {name: told[name] for name in Usage.__struct_fields__}


def test_the_start_tells_which_turn_of_which_session_runs_where() -> None:
    owner = Owner()
    owner.offer(replace(held(1, model="opus"), traceparent="00-a-b-01"))
    assert {
        "type": "turn_started",
        "turn": "t1",
        "session_id": KEY.session,
        "attempt": 1,
        "worker": "w1",
        "model": "opus",
        "traceparent": "00-a-b-01",
    } == owner.events[0]


def test_the_record_keeps_what_was_asked() -> None:
    owner = running()
    owner.answer("Hello")
    record = owner.records["t1"]
    assert isinstance(record, Finished)
    assert held(1).message.question == record.question


def test_a_session_is_idle_since_its_last_acknowledgement() -> None:
    owner = running()
    assert 0.0 == owner.session.idle_since  # its claim
    owner.now = 5.0
    owner.answer("Hello")
    assert 5.0 == owner.session.idle_since


def test_the_cli_gets_what_the_message_asks_for() -> None:
    owner = running(model="opus", system_prompt="Be brief.")
    assert [NeedCli(Setup(model="opus", system_prompt="Be brief."))] == owner.needed


def test_the_cli_gets_the_credential_of_the_message() -> None:
    owner, asked = Owner(), held(1)
    owner.offer(replace(asked, message=asked.message.model_copy(update={"credential": "sealed"})))
    assert ["sealed"] == [needed.credential for needed in owner.needed]


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_held_is_known_by_where_it_stands(version: int) -> None:
    data = b'{"v":%d,"turn":"t1","content":"hi","sent_ms":1}' % version
    found = Held.read(data, 5, "ack", 2, "00-a-b-01")
    assert (5, "ack", 2, "00-a-b-01") == (found.sequence, found.ack, found.deliveries, found.traceparent)


def test_nothing_is_published_after_the_end() -> None:
    owner = running()
    owner.answer("Hello")
    told = len(owner.published)
    owner.say(said.delta("late"), said.result(), said.mirror(b"{}"))
    owner.later(PROGRESS_EVERY + 1)
    owner.fail()
    assert told == len(owner.published)


# -- the queue


def test_one_turn_at_a_time() -> None:
    owner = running()
    owner.offer(held(2))
    assert ["hi"] == owner.prompts
    owner.answer("Hello")
    assert 2 == len(owner.prompts)


def test_turns_run_in_the_order_of_the_queue_not_of_arrival() -> None:
    owner = Owner(FindHead)
    owner.offer(held(2, text="second"), held(1, text="first"))
    owner.hold = ()
    owner.release(FindHead)
    owner.answer("a")
    assert ["first", "second"] == owner.prompts


def test_a_message_that_is_not_the_head_waits_for_the_head() -> None:
    owner = Owner()
    owner.queue = [1]
    owner.offer(held(2, text="second"))
    assert [] == owner.prompts
    owner.run(owner.session.offer(held(1, text="first")))
    assert ["first"] == owner.prompts


def test_a_head_that_never_comes_is_asked_about_again() -> None:
    owner = Owner()
    owner.queue = [1]
    owner.offer(held(2, text="second"))
    owner.queue.remove(1)  # terminated by another worker, which could not read it
    owner.later(0.5)
    assert ["second"] == owner.prompts


def test_what_was_acknowledged_before_is_dropped() -> None:
    owner = Owner()
    owner.run(owner.session.offer(held(1)))
    assert {} == owner.session.waiting
    owner.queue = [3]
    owner.run(owner.session.offer(held(2)))
    assert {} == owner.session.waiting


def test_what_came_while_an_empty_queue_was_looked_at_is_kept() -> None:
    owner = Owner(FindHead)
    owner.run(owner.session.offer(held(1)))  # acknowledged before: the answer will be that the queue is empty
    owner.run(owner.session.offer(held(2, text="new")))
    owner.waits.clear()
    owner.run(owner.session.head(None, 0.0))
    assert [2] == list(owner.session.waiting)
    owner.queue = [2]
    owner.release(FindHead)
    assert ["new"] == owner.prompts


def test_a_head_that_was_just_acknowledged_is_passed_over() -> None:
    """The server answers an ack before it has removed the message."""
    owner = running()
    owner.offer(held(2, text="second"))
    owner.hold = (FindHead,)
    owner.answer("Hello")
    assert [FindHead(after=1)] == owner.waits


def test_a_message_that_is_redelivered_after_its_ack_is_looked_up() -> None:
    """A NATS server that was killed may have lost the ack."""
    owner = running()
    owner.answer("Hello")
    owner.offer(held(1, deliveries=2))
    assert [owner.published[-1]] * 2 == owner.published[-2:]
    assert ["ack-1-1", "ack-1-2"] == owner.acked
    assert ["hi"] == owner.prompts


@pytest.mark.parametrize("waits", [False, True])
def test_a_second_delivery_replaces_where_to_acknowledge(waits: bool) -> None:
    owner = running()
    sequence = 2 if waits else 1
    if waits:
        owner.offer(held(2))
    owner.run(owner.session.offer(held(sequence, deliveries=3)))
    owner.run(owner.session.offer(held(sequence, deliveries=2)))  # overtaken on its way
    owner.answer("a")
    if waits:
        owner.answer("b")
    assert f"ack-{sequence}-3" == owner.acked[-1]
    assert 1 + waits == len(owner.prompts)


def test_a_draining_session_begins_no_further_turn() -> None:
    owner = running()
    owner.offer(held(2))
    owner.session.draining = True
    owner.answer("Hello")
    owner.later(1)
    assert 1 == len(owner.prompts)
    assert [2] == list(owner.session.waiting)


@pytest.mark.parametrize("held_back", [FindHead, ReadRecord])
def test_a_turn_that_is_only_looked_at_when_the_drain_begins_goes_back(held_back: type) -> None:
    owner = Owner(held_back)
    owner.offer(held(1))
    owner.session.draining = True
    owner.release(held_back)
    assert [] == owner.prompts
    assert [1] == list(owner.session.waiting)
    assert Stage.IDLE is owner.session.stage


def test_a_turn_that_has_begun_ends_in_spite_of_the_drain() -> None:
    owner = Owner(PutRecord)
    owner.offer(held(1))
    owner.session.draining = True
    owner.hold = ()
    owner.release(PutRecord)
    owner.answer("Hello")
    assert ["turn_completed"] == owner.endings


# -- attempts


def test_a_finished_turn_is_published_again_byte_for_byte_and_not_run() -> None:
    owner = Owner()
    owner.records["t1"], said_before = finished_before()
    owner.offer(held(1, text="another body"))
    assert [said_before] == owner.published
    assert ["ack-1-1"] == owner.acked
    assert [] == owner.prompts


def test_a_republished_end_takes_no_sequence_of_this_epoch() -> None:
    owner = Owner()
    owner.records["t1"], _ = finished_before()
    owner.offer(held(1), held(2))
    assert (EPOCH, 1) == envelope.decode(owner.published[1]).position


def test_a_new_attempt_begins_with_a_reset() -> None:
    owner = Owner()
    message = held(1)
    owner.records["t1"] = started(message)
    owner.offer(message)
    assert ["turn_reset", "turn_started"] == owner.types
    assert [2, 2] == [event["attempt"] for event in owner.events]
    assert ("worker_lost", 0) == (owner.events[0]["reason"], owner.events[0]["message"])
    assert 2 == envelope.decode(owner.published[0]).attempt


def test_each_attempt_has_its_own_id_in_the_cli() -> None:
    first, second = running(), Owner()
    second.records["t1"] = started(held(1))
    second.offer(held(1))
    assert first.given[0]["uuid"] != second.given[0]["uuid"]
    assert running().given[0]["uuid"] == first.given[0]["uuid"]


def test_the_attempt_is_stored_before_the_cli_gets_the_message() -> None:
    owner = Owner(PutRecord)
    owner.offer(held(1))
    assert [] == owner.given
    (put,) = owner.waits
    assert isinstance(put, PutRecord)
    assert ("started", 1, EPOCH) == (put.record.state, put.record.attempt, put.record.epoch)


@pytest.mark.parametrize(
    ("before", "deliveries", "options", "code"),
    [
        (ATTEMPTS - 1, 2, {}, None),
        (ATTEMPTS, 2, {}, ErrorCode.TOO_MANY_ATTEMPTS),
        (1, DELIVERIES, {}, None),
        (1, DELIVERIES + 1, {}, ErrorCode.TOO_MANY_ATTEMPTS),
        (0, DELIVERIES + 1, {}, ErrorCode.TOO_MANY_ATTEMPTS),
        (1, 2, {"on_worker_loss": "fail"}, ErrorCode.WORKER_LOST),
        (0, 2, {"on_worker_loss": "fail"}, None),
    ],
)
def test_a_turn_is_tried_again_unless(
    before: int, deliveries: int, options: dict[str, Any], code: ErrorCode | None
) -> None:
    owner = Owner()
    message = held(1, deliveries=deliveries, **options)
    if before:
        owner.records["t1"] = started(message, before)
    owner.offer(message)
    assert ([] if code else ["hi"]) == owner.prompts
    told = owner.events[-1]
    assert (code, code and code.message) == (told.get("code"), told.get("message"))


def test_a_turn_that_is_not_tried_again_tells_the_attempt_that_was() -> None:
    owner = Owner()
    owner.records["t1"] = started(held(1), ATTEMPTS)
    owner.offer(held(1))
    assert [ATTEMPTS] == [event["attempt"] for event in owner.events]
    assert ["turn_failed"] == owner.endings


def test_another_body_under_the_same_turn_id_is_never_run() -> None:
    owner = Owner()
    owner.records["t1"] = started(held(1, text="the body that began"))
    owner.offer(held(1, text="another"))
    assert [] == owner.prompts
    assert "invalid_request" == owner.events[-1]["code"]


@pytest.mark.parametrize("before", [0, 1])
def test_a_message_that_cannot_be_read_is_not_run_and_its_turn_fails(before: int) -> None:
    owner = Owner()
    if before:  # a worker of a newer version had begun it
        owner.records["t1"] = started(held(1), before)
    owner.offer(Held.read(b'{"v":2,"turn":"t1","content":"hi","sent_ms":1}', 1, "ack-1", 1, None))
    assert [] == owner.prompts
    assert "unreadable_message" == owner.events[-1]["code"]
    assert "UserMessage.v" in owner.events[-1]["message"]
    record = owner.records["t1"]
    assert isinstance(record, Finished)
    assert ("", None) == (record.digest, record.question)


def test_a_turn_whose_beginning_cannot_be_stored_fails_and_the_next_is_run() -> None:
    owner = Owner(PutRecord)
    owner.offer(held(1), held(2))
    owner.waits.clear()
    owner.hold = ()
    owner.run(owner.session.cannot("too large", owner.now))
    failed = next(event for event in owner.events if event["type"] == "turn_failed")
    assert ("internal", True) == (failed["code"], "too large" in failed["message"])
    assert ["hi"] == owner.prompts


@pytest.mark.parametrize(
    ("held_back", "end", "code"),
    [
        (ReadRecord, "turn_failed", "unreadable_message"),
        (AppendTranscript, "turn_failed", "internal"),
        (PutRecord, "turn_completed", None),  # its answer is stored, only its record is not
    ],
)
def test_what_the_server_cannot_give_or_take_ends_the_turn(
    held_back: type, end: str, code: str | None
) -> None:
    owner = Owner(held_back)
    owner.offer(held(1))
    if held_back is PutRecord:
        owner.release(PutRecord)
    if held_back is not ReadRecord:
        owner.answer("Hello")
    owner.run(owner.session.cannot("too large", owner.now))
    assert (end, code) == (owner.events[-1]["type"], owner.events[-1].get("code"))


# -- an answer that the transcript holds


def answered(**changes: Any) -> Owner:
    """An owner of t1, whose answer the one before stored but for its record."""
    owner = Owner()
    end = TurnCompleted(turn="t1", attempt=2, duration_ms=77, stop_reason="end_turn")
    entries = (
        said.prompt_entry("u", "hi"),
        said.answer_entry("m1", "Let me look."),
        said.answer_entry("m2", "Hello"),
        transcript.turn_entry(end),
    )
    owner.transcript = transcript.appends(entries)
    owner.records["t1"] = started(held(1, **changes), 2)
    owner.offer(held(1, **changes))
    return owner


def test_an_answer_in_the_transcript_is_published_and_not_made_again() -> None:
    owner = answered()
    assert [] == owner.prompts
    assert ["turn_reset", "message_start", "content_block_start", "content_block_delta"] == owner.types[:4]
    assert ("worker_lost", 2) == (owner.events[0]["reason"], owner.events[0]["attempt"])
    assert "turn_completed" == owner.types[-1]
    assert 77 == owner.events[-1]["duration_ms"]
    begun = [event["message"]["id"] for event in owner.events if event["type"] == "message_start"]
    assert ["m1", "m2"] == begun
    assert ["ack-1-1"] == owner.acked


def test_an_answer_from_the_transcript_has_its_text_in_the_record() -> None:
    record = answered().records["t1"]
    assert isinstance(record, Finished)
    assert ("Let me look.Hello", 2, EPOCH) == (record.text, record.attempt, record.epoch)


def test_an_answer_from_the_transcript_is_not_stored_there_twice() -> None:
    assert 1 == len(answered().transcript)


def test_an_answer_in_the_transcript_counts_even_where_a_lost_worker_fails_the_turn() -> None:
    assert ["turn_completed"] == answered(on_worker_loss="fail").endings
