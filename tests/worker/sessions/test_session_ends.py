"""How turns of a session end that do not complete: the CLI fails, somebody interrupts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from warmwire.broker.wire.messages import Finished
from warmwire.worker.cli.said import (
    BadLine,
    ControlRequest,
    Ignored,
    Lifecycle,
    Line,
)
from warmwire.worker.errors import ErrorCode
from warmwire.worker.sessions.patience import INTERRUPT_WITHIN, TERM_WITHIN
from warmwire.worker.sessions.session import PROGRESS_EVERY
from warmwire.worker.sessions.turn import (
    Ack,
    AppendTranscript,
    FindHead,
    KeepInterrupt,
    KillCli,
    NeedCli,
    PutRecord,
    ReadRecord,
    TerminateCli,
)

from tests.worker import said
from tests.worker.owner import STALL, Owner, finished_before, held, running, started

# -- the CLI fails


@pytest.mark.parametrize("code", [ErrorCode.CLI_MISSING, ErrorCode.CLI_START_FAILED])
def test_a_cli_that_does_not_start_ends_the_turn(code: ErrorCode) -> None:
    owner = Owner(NeedCli)
    owner.offer(held(1))
    owner.fail(code)
    assert (code.value, code.retryable) == (owner.events[-1]["code"], owner.events[-1]["retryable"])
    assert ["ack-1-1"] == owner.acked


def test_a_cli_that_fails_before_the_attempt_is_stored_waits_for_that() -> None:
    """Two writes of one record at a time could land in the wrong order."""
    owner = Owner(PutRecord, NeedCli)
    owner.offer(held(1))
    owner.fail(ErrorCode.CLI_MISSING)
    assert ["started"] == [put.record.state for put in owner.waits if isinstance(put, PutRecord)]
    assert [] == owner.published
    owner.release(PutRecord)
    assert ["finished"] == [put.record.state for put in owner.waits if isinstance(put, PutRecord)]
    assert [] == owner.published
    owner.release(PutRecord)
    assert ["turn_failed"] == owner.types
    assert ["ack-1-1"] == owner.acked


def test_the_next_turn_runs_after_one_whose_cli_did_not_start() -> None:
    owner = Owner(NeedCli)
    owner.offer(held(1), held(2, text="second"))
    owner.fail(ErrorCode.CLI_START_FAILED)
    owner.waits.clear()
    owner.run(owner.session.cli_ready(0.0))
    assert ["second"] == owner.prompts


def test_a_crash_in_the_middle_of_a_turn_ends_it_with_the_text_so_far_in_the_record() -> None:
    owner = running()
    owner.say(said.message_start("m1"), said.block_start(), said.delta("Hel"))
    owner.fail()
    record = owner.records["t1"]
    assert isinstance(record, Finished)
    assert "Hel" == record.text
    assert "cli_crashed" == owner.events[-1]["code"]


def test_a_turn_whose_process_is_gone_leaves_nothing_in_the_transcript() -> None:
    owner = running()
    owner.say(said.mirror(said.prompt_entry(owner.uuid, "hi")))
    owner.fail()
    assert [] == owner.transcript


def test_a_crash_between_turns_is_nobodys_loss() -> None:
    owner = running()
    owner.answer("Hello")
    told = len(owner.published)
    owner.fail()
    assert told == len(owner.published)
    owner.offer(held(2))
    owner.answer("again")
    assert ["turn_completed"] * 2 == owner.endings


def test_a_line_that_cannot_be_read_ends_the_turn_and_the_process() -> None:
    owner = running()
    owner.say(BadLine(ErrorCode.BAD_LINE, "not JSON", b"x"))
    assert KillCli in owner.order
    told = ErrorCode.BAD_LINE, ErrorCode.BAD_LINE.message
    assert told == (owner.events[-1]["code"], owner.events[-1]["message"])


def stalled() -> Owner:
    """Its CLI has been silent for too long, and has been told to stop."""
    owner = running()
    owner.later(STALL)
    assert "user" == owner.given[-1]["type"]
    owner.later(0.5)
    assert "interrupt" == owner.given[-1]["request"]["subtype"]
    return owner


def test_a_cli_that_falls_silent_is_interrupted_terminated_and_killed() -> None:
    owner = stalled()
    owner.later(INTERRUPT_WITHIN)
    assert TerminateCli not in owner.order
    owner.later(0.5)
    assert TerminateCli in owner.order
    owner.later(TERM_WITHIN - 1)
    assert 1 == owner.order.count(TerminateCli)
    assert KillCli not in owner.order
    owner.later(1)
    assert KillCli in owner.order
    assert ("cli_stalled", True) == (owner.events[-1]["code"], owner.events[-1]["retryable"])


def test_a_silent_cli_that_obeys_the_interrupt_is_kept() -> None:
    owner = stalled()
    owner.say(said.result(owner.uuid, interrupted=True))
    owner.later(60)
    assert ("cli_stalled", 5) == (owner.events[-1]["code"], owner.events[-1]["usage"]["output_tokens"])
    assert {TerminateCli, KillCli}.isdisjoint(owner.order)


def test_a_silent_cli_that_ends_by_the_signal_has_stalled_and_not_crashed() -> None:
    owner = stalled()
    owner.later(INTERRUPT_WITHIN + 1)
    owner.run(owner.session.cli_failed(ErrorCode.CLI_CRASHED, owner.now))
    assert "cli_stalled" == owner.events[-1]["code"]


def test_a_silent_cli_that_completes_after_all_has_completed() -> None:
    owner = stalled()
    owner.say(said.result(owner.uuid))
    assert "turn_completed" == owner.events[-1]["type"]


def test_any_line_shows_that_the_cli_is_alive() -> None:
    owner = running()
    owner.later(STALL)
    owner.say(Ignored("system/status"))
    owner.later(STALL)
    assert KillCli not in owner.order


def test_silence_between_turns_is_no_stall() -> None:
    owner = running()
    owner.answer("Hello")
    owner.later(10 * STALL)
    assert KillCli not in owner.order
    owner.offer(held(2))
    owner.later(1)
    assert KillCli not in owner.order


def test_the_time_in_which_the_worker_was_frozen_is_no_silence() -> None:
    owner = running()
    owner.now += 2 * STALL
    owner.session.thawed(owner.now)
    owner.later(1)
    assert KillCli not in owner.order


def test_a_session_without_a_turn_is_frozen_like_any_other() -> None:
    owner = Owner()
    owner.session.thawed(owner.now)
    owner.offer(held(1))
    assert "t1" == getattr(owner.session.turn, "id", None)


@pytest.mark.parametrize("held_back", [PutRecord, NeedCli])
def test_a_process_that_has_not_got_the_turn_says_nothing_of_it_and_need_not(held_back: type) -> None:
    owner = Owner(held_back)
    owner.offer(held(1))
    owner.say(said.delta("of another turn"), said.result())
    owner.later(2 * STALL)
    assert ([], []) == (owner.types, owner.given)


def test_while_the_end_of_a_turn_is_stored_its_process_says_nothing_more_and_need_not() -> None:
    owner = Owner(AppendTranscript)
    owner.offer(held(1))
    owner.answer("Hello")
    told, given = len(owner.published), len(owner.given)
    owner.say(said.delta("late"), said.result())
    owner.later(2 * STALL)
    assert (told, given) == (len(owner.published), len(owner.given))
    assert 1 == len(owner.waits)


def test_viewers_hear_of_a_cli_that_is_alive_but_says_nothing() -> None:
    owner = running()
    owner.later(PROGRESS_EVERY)
    assert "turn_started" == owner.types[-1]
    owner.later(0.5)
    told = owner.events[-1]
    assert ("turn_progress", "waiting", 5500) == (told["type"], told["doing"], told["elapsed_ms"])
    owner.later(1)
    assert 1 == owner.types.count("turn_progress")
    owner.later(PROGRESS_EVERY)
    assert 2 == owner.types.count("turn_progress")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (said.result(error=ErrorCode.OVERLOADED, detail="529"), "overloaded"),
        (said.result(error=ErrorCode.AUTH_FAILED), "auth_failed"),
    ],
)
def test_a_failure_that_the_cli_reports_ends_the_turn_and_is_remembered(line: Line, code: str) -> None:
    owner = running()
    owner.say(said.mirror(said.prompt_entry(owner.uuid, "hi")), line)
    assert code == owner.events[-1]["code"]
    assert KillCli not in owner.order
    assert 1 == len(owner.transcript)  # the process remembers the message, so the transcript does


def test_a_result_for_another_message_ends_nothing() -> None:
    owner = running()
    owner.say(said.result("somebody-else"))
    assert [] == owner.endings


def test_a_message_that_the_cli_holds_for_answered_fails_instead_of_hanging() -> None:
    owner = running()
    owner.say(Lifecycle(owner.uuid, "completed"))
    assert "cli_failed" == owner.events[-1]["code"]


def test_a_question_of_the_cli_is_refused() -> None:
    owner = running()
    owner.say(ControlRequest("r1", "can_use_tool", b"{}"))
    assert ("error", "r1") == (
        owner.given[-1]["response"]["subtype"],
        owner.given[-1]["response"]["request_id"],
    )


# -- interrupts


def test_an_interrupt_reaches_the_cli_and_the_text_so_far_stands() -> None:
    owner = running()
    owner.say(said.message_start("m1"), said.block_start(), said.delta("Hel"))
    assert "t1" == owner.interrupt()
    assert "interrupt" == owner.given[-1]["request"]["subtype"]
    owner.say(said.mirror(said.prompt_entry(owner.uuid, "hi")), said.result(interrupted=True))
    assert "turn_interrupted" == owner.types[-1]
    assert "Hel" == owner.records["t1"].text  # type: ignore[union-attr]  # it is finished
    assert 1 == len(owner.transcript)


def test_a_failed_turn_tells_usage_and_cost() -> None:
    owner = Owner()
    owner.now = 10.0
    owner.offer(held(1))
    owner.now = 10.25
    owner.say(said.message_start("m1"), said.block_start(), said.delta("Hel"))
    owner.now = 11.0
    owner.say(said.result(owner.uuid, error=ErrorCode.OVERLOADED))
    end = owner.events[-1]
    assert (250, 1000) == (end["ttft_ms"], end["duration_ms"])
    assert ("turn_failed", 3, 5, 0.25) == (
        end["type"],
        *(end["usage"][name] for name in ("input_tokens", "output_tokens", "cost_usd")),
    )


def test_an_end_belongs_to_the_trace_of_its_message() -> None:
    owner = Owner()
    owner.offer(replace(held(1), traceparent="00-a-b-01"))
    owner.answer("Hello")
    assert "00-a-b-01" == owner.events[-1]["traceparent"]


def test_a_cli_that_says_it_was_interrupted_is_believed() -> None:
    owner = running()
    owner.say(said.result(owner.uuid, interrupted=True))
    assert ["turn_interrupted"] == owner.endings


def test_an_interrupt_is_named_after_the_attempt() -> None:
    owner = running()
    owner.interrupt()
    assert "interrupt-1" == owner.given[-1]["request_id"]


def test_an_interrupted_turn_tells_usage_cost_and_times() -> None:
    owner = running()
    owner.now = 0.25
    owner.say(said.message_start("m1"), said.block_start(), said.delta("Hel"))
    owner.interrupt()
    owner.now = 1.0
    owner.say(said.result(interrupted=True))
    end = owner.events[-1]
    assert ("turn_interrupted", 250, 1000) == (end["type"], end["ttft_ms"], end["duration_ms"])
    assert (3, 5, 0.25) == tuple(end["usage"][name] for name in ("input_tokens", "output_tokens", "cost_usd"))


def test_an_interrupt_is_stored_for_whoever_has_the_session_next() -> None:
    owner = running()
    owner.offer(held(2))
    owner.interrupt("t1")
    owner.interrupt("t2")
    assert {"t1", "t2"} == owner.interrupts


@pytest.mark.parametrize("turn", [None, "t1"])
def test_a_second_interrupt_changes_nothing(turn: str | None) -> None:
    owner = running()
    owner.interrupt()
    given = len(owner.given)
    assert "t1" == owner.interrupt(turn)
    assert given == len(owner.given)
    assert 1 == owner.order.count(KeepInterrupt)


@pytest.mark.parametrize("held_back", [FindHead, ReadRecord, PutRecord, NeedCli])
def test_an_interrupt_before_the_start_is_honoured(held_back: type) -> None:
    owner = Owner(held_back)
    owner.offer(held(1))
    assert "t1" == owner.interrupt("t1")
    owner.hold = ()
    owner.release(held_back)
    assert [] == owner.given
    assert ["turn_interrupted"] == owner.types
    assert ["ack-1-1"] == owner.acked


def test_an_interrupt_that_was_left_for_nobody_is_honoured_by_the_owner() -> None:
    owner = Owner()
    owner.interrupts.add("t1")
    owner.offer(held(1))
    assert [] == owner.prompts
    assert ["turn_interrupted"] == owner.types


def test_an_interrupted_turn_is_not_tried_again_by_the_next_owner() -> None:
    owner = Owner()
    owner.interrupts.add("t1")
    owner.records["t1"] = started(held(1))
    owner.offer(held(1))
    assert ["turn_interrupted"] == owner.types


@pytest.mark.parametrize("hold", [(), (KeepInterrupt,)])
def test_a_waiting_turn_is_interrupted_in_its_place(
    hold: tuple[type, ...],
) -> None:
    owner = running()
    owner.hold = hold
    owner.offer(held(2), held(3, text="third"))
    assert "t2" == owner.interrupt("t2")
    owner.answer("Hello")
    assert ["turn_completed", "turn_interrupted"] == owner.endings
    assert ["hi", "third"] == owner.prompts


def test_an_interrupt_after_the_end_never_hits_a_later_turn() -> None:
    owner = running()
    owner.answer("Hello")
    assert owner.interrupt() is None
    assert owner.interrupt("t1") is None
    owner.offer(held(2))
    assert owner.interrupt("t1") is None
    owner.answer("again")
    assert ["turn_completed"] * 2 == owner.endings


@pytest.mark.parametrize("turn", [None, "t1"])
def test_an_interrupt_of_a_turn_that_is_ending_comes_too_late(turn: str | None) -> None:
    owner = Owner(AppendTranscript)
    owner.offer(held(1), held(2))
    owner.answer("Hello")
    assert owner.interrupt(turn) is None
    owner.hold = ()
    owner.release(AppendTranscript)
    assert ["turn_completed"] == owner.endings
    assert 2 == len(owner.prompts)


def test_a_further_interrupt_of_a_turn_that_one_is_ending_names_it_too() -> None:
    owner = running()
    owner.interrupt()
    owner.hold = (PutRecord,)
    owner.say(said.result(owner.uuid, interrupted=True))
    assert ["t1", "t1", None] == [owner.interrupt(turn) for turn in (None, "t1", "t2")]


def test_an_interrupt_of_a_finished_turn_that_is_published_again_comes_too_late() -> None:
    owner = Owner(Ack)
    owner.records["t1"], _ = finished_before()
    owner.offer(held(1))
    assert owner.interrupt("t1") is None


def test_an_interrupt_of_an_unknown_turn_meets_nothing() -> None:
    assert running().interrupt("t9") is None


def test_a_cli_that_does_not_obey_is_killed() -> None:
    owner = running()
    owner.interrupt()
    owner.later(INTERRUPT_WITHIN)
    assert KillCli not in owner.order
    owner.later(TERM_WITHIN + 0.5)
    assert KillCli in owner.order
    assert ["turn_interrupted"] == owner.endings


def test_a_cli_that_dies_of_an_interrupt_has_obeyed_it() -> None:
    owner = running()
    owner.interrupt()
    owner.fail()
    assert ["turn_interrupted"] == owner.endings


def test_a_message_that_the_cli_drops_from_its_queue_is_interrupted_at_once() -> None:
    owner = running()
    owner.interrupt()
    owner.say(Lifecycle(owner.uuid, "cancelled"))
    assert ["turn_interrupted"] == owner.endings


def test_a_turn_that_completes_before_the_interrupt_arrives_is_complete() -> None:
    owner = running()
    owner.interrupt()
    owner.answer("Hello")
    assert ["turn_completed"] == owner.endings
