"""The state machine of a session, moment by moment, without I/O.

Long: it mirrors one module, a class for each moment of a turn, and all of them share the desk
that carries out what the session commands.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from warmwire.broker import envelope
from warmwire.broker.events import TurnCompleted
from warmwire.broker.messages import Finished, Replay, Started, TurnOptions, TurnRecord, UserMessage
from warmwire.broker.names import SessionKey
from warmwire.worker import transcript
from warmwire.worker.deltas import DELTA_LIMIT, EVENT_LIMIT, SUMMARY_LIMIT
from warmwire.worker.errors import ErrorCode
from warmwire.worker.patience import INTERRUPT_WITHIN, TERM_WITHIN
from warmwire.worker.profiles import Setup
from warmwire.worker.said import (
    Assistant,
    BadLine,
    ControlRequest,
    Ignored,
    Lifecycle,
    Line,
    Retry,
    StreamEvent,
    ToolResult,
    ToolResults,
    ToolUse,
)
from warmwire.worker.session import PROGRESS_EVERY, Session
from warmwire.worker.transcript import Answered
from warmwire.worker.turn import (
    ATTEMPTS,
    DELIVERIES,
    Ack,
    AppendTranscript,
    Command,
    Ended,
    FindHead,
    Give,
    Held,
    KeepInterrupt,
    KillCli,
    NeedCli,
    Publish,
    PutRecord,
    ReadRecord,
    Rules,
    Stage,
    TerminateCli,
)
from warmwire.worker.turnlog import EVENTS_LIMIT

from tests.worker import said

KEY = SessionKey("default", "s1")
EPOCH = 7
STALL = 60.0


def held(
    sequence: int, turn: str | None = None, text: str = "hi", deliveries: int = 1, **options: Any
) -> Held:
    message = UserMessage(
        turn=turn or f"t{sequence}", content=text, sent_ms=0, options=TurnOptions(**options)
    )
    return Held(message, sequence, f"ack-{sequence}-{deliveries}", deliveries)


def started(of: Held, attempt: int = 1) -> Started:
    return Started(attempt=attempt, epoch=EPOCH - 1, worker="w0", digest=of.message.digest)


class Owner:
    """A session whose commands are carried out at once, but for the kinds that a test holds back."""

    def __init__(self, *hold: type) -> None:
        self.session = Session(KEY, "w1", EPOCH, 0.0, Rules(STALL))
        self.now = 0.0
        self.hold = hold
        self.waits: list[Command] = []
        self.queue: list[int] = []
        self.records: dict[str, TurnRecord] = {}
        self.interrupts: set[str] = set()
        self.transcript: list[bytes] = []
        self.published: list[bytes] = []
        self.given: list[dict[str, Any]] = []
        self.acked: list[str] = []
        self.endings: list[str] = []
        self.order: list[type] = []
        self.needed: list[NeedCli] = []

    def offer(self, *messages: Held) -> None:
        self.queue += [message.sequence for message in messages]
        for message in messages:
            self.run(self.session.offer(message))

    def say(self, *lines: Line) -> None:
        for line in lines:
            self.run(self.session.line(line, self.now))

    def answer(self, *texts: str) -> None:
        """The CLI's whole answer."""
        turn = self.uuid
        entries = said.prompt_entry(turn, "hi"), said.answer_entry("m1", "".join(texts))
        self.say(*said.message("m1", *texts), said.mirror(*entries), said.result(turn))

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.run(self.session.tick(self.now))

    def interrupt(self, turn: str | None = None) -> str | None:
        stopped, commands = self.session.interrupt(turn, self.now)
        self.run(commands)
        return stopped

    def fail(self, code: ErrorCode = ErrorCode.CLI_CRASHED) -> None:
        self.run(self.session.cli_failed(code, self.now))

    def release(self, kind: type) -> None:
        """Carry out the first command of a kind that was held back."""
        command = next(command for command in self.waits if isinstance(command, kind))
        self.waits.remove(command)
        self.carry_out(command)

    def run(self, commands: list[Command]) -> None:
        for command in commands:
            self.order.append(type(command))
            if isinstance(command, self.hold):
                self.waits.append(command)
            else:
                self.carry_out(command)

    def carry_out(self, command: Command) -> None:  # noqa: C901, PLR0912 - one short branch per command
        match command:
            case FindHead(after):
                head = min((sequence for sequence in self.queue if sequence > after), default=None)
                self.run(self.session.head(head, self.now))
            case ReadRecord(turn):
                found = transcript.answered(self.transcript, turn)
                known = self.records.get(turn), turn in self.interrupts
                self.run(self.session.record(*known, self.now, found))
            case PutRecord(turn, record):
                self.records[turn] = record
                self.run(self.session.stored(self.now))
            case NeedCli():
                self.needed.append(command)
                self.run(self.session.cli_ready(self.now))
            case AppendTranscript(entries):
                self.transcript += transcript.appends(entries)
                self.run(self.session.appended())
            case KeepInterrupt(turn):
                self.interrupts.add(turn)
            case Give(line):
                self.given.append(json.loads(line))
            case Publish(data):
                self.published.append(data)
            case Ended(_, end):
                self.endings.append(end.type)
            case Ack(message):
                self.acked.append(message.ack)
                self.queue.remove(message.sequence)
                self.run(self.session.acked(self.now))
            case KillCli():
                pass

    @property
    def uuid(self) -> str:
        """The id under which the CLI knows the message at hand."""
        assert self.session.turn is not None
        return self.session.turn.cli_uuid

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(envelope.decode(data).event) for data in self.published]

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    @property
    def prompts(self) -> list[str]:
        """The texts that the CLI was given."""
        return [line["message"]["content"] for line in self.given if line["type"] == "user"]

    def view(self, **question: Any) -> Any:
        return self.session.view(Replay(**question))


def running(**options: Any) -> Owner:
    """A session whose turn t1 has been given to the CLI."""
    owner = Owner()
    owner.offer(held(1, **options))
    return owner


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


def test_the_cli_gets_what_the_message_asks_for() -> None:
    owner = running(model="opus", system_prompt="Be brief.")
    assert [NeedCli(Setup(model="opus", system_prompt="Be brief."))] == owner.needed


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


def finished_before() -> tuple[Finished, bytes]:
    said_before = envelope.EnvelopeWriter(EPOCH - 1, "t1", 1).wrap(
        9, TurnCompleted(turn="t1", attempt=1, duration_ms=1).encode()
    )
    record = Finished(attempt=1, epoch=EPOCH - 1, digest="", envelope=said_before.decode(), text="")
    return record, said_before


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
        (ATTEMPTS, 2, {}, "too_many_attempts"),
        (1, DELIVERIES, {}, None),
        (1, DELIVERIES + 1, {}, "too_many_attempts"),
        (0, DELIVERIES + 1, {}, "too_many_attempts"),
        (1, 2, {"on_worker_loss": "fail"}, "worker_lost"),
        (0, 2, {"on_worker_loss": "fail"}, None),
    ],
)
def test_a_turn_is_tried_again_unless(
    before: int, deliveries: int, options: dict[str, Any], code: str | None
) -> None:
    owner = Owner()
    message = held(1, deliveries=deliveries, **options)
    if before:
        owner.records["t1"] = started(message, before)
    owner.offer(message)
    assert ([] if code else ["hi"]) == owner.prompts
    assert code == owner.events[-1].get("code")


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
    assert "turn_completed" == owner.types[-1]
    assert 77 == owner.events[-1]["duration_ms"]
    assert ["ack-1-1"] == owner.acked


def test_an_answer_from_the_transcript_has_its_text_in_the_record() -> None:
    record = answered().records["t1"]
    assert isinstance(record, Finished)
    assert ("Let me look.Hello", 2, EPOCH) == (record.text, record.attempt, record.epoch)


def test_an_answer_from_the_transcript_is_not_stored_there_twice() -> None:
    assert 1 == len(answered().transcript)


def test_an_answer_in_the_transcript_counts_even_where_a_lost_worker_fails_the_turn() -> None:
    assert ["turn_completed"] == answered(on_worker_loss="fail").endings


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
    assert "bad_line" == owner.events[-1]["code"]


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
    assert "cli_stalled" == owner.events[-1]["code"]
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


def test_viewers_hear_of_a_cli_that_is_alive_but_says_nothing() -> None:
    owner = running()
    owner.later(PROGRESS_EVERY)
    assert "turn_started" == owner.types[-1]
    owner.later(0.5)
    assert ("turn_progress", 5500) == (owner.types[-1], owner.events[-1]["elapsed_ms"])
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
    assert [] == owner.prompts
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


def test_a_waiting_turn_is_interrupted_in_its_place() -> None:
    owner = running()
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


# -- what is published of the CLI's lines


def test_a_retry_of_the_api_voids_the_open_message_only() -> None:
    owner = running()
    owner.say(*said.message("m1", "Let me look."))
    owner.say(said.message_start("m2"), said.block_start(), said.delta("Hel"))
    owner.say(Retry(1, 2, 0, 529, "overloaded"))
    assert ("turn_reset", "api_retry", 1) == tuple(
        owner.events[-1][name] for name in ("type", "reason", "message")
    )
    owner.say(*said.message("m3", "Hello"), said.result(owner.uuid))
    assert "Let me look.Hello" == owner.records["t1"].text  # type: ignore[union-attr]  # it is finished


def test_the_message_after_a_retry_takes_the_number_of_the_one_that_is_void() -> None:
    owner = running()
    for _ in range(2):
        owner.say(said.message_start("m1"), said.delta("Hel"), Retry(1, 2, 0, None, ""))
    assert [0, 0] == [event["message"] for event in owner.events if event["type"] == "turn_reset"]


def test_a_retry_with_no_message_open_voids_nothing() -> None:
    owner = running()
    owner.say(Retry(1, 2, 0, None, ""), *said.message("m1", "a"), Retry(1, 2, 0, None, ""))
    assert "turn_reset" not in owner.types


def test_a_message_that_was_not_streamed_is_published_as_if_it_had_been() -> None:
    owner = running()
    owner.say(Assistant("m1", "Hello"))
    whole = ["message_start", "content_block_start", "content_block_delta"]
    whole += ["content_block_stop", "message_delta", "message_stop"]
    assert whole == owner.types[1:]
    assert "Hello" == owner.events[3]["delta"]["text"]


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
