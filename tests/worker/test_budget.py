"""What turns and sessions may use: the meter, and how a session obeys it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from warmwire.broker.wire.events import Usage
from warmwire.broker.wire.messages import BoundRecord
from warmwire.worker.budget import Breach, Limits, Meter, Spent, used_up
from warmwire.worker.cli import claude_stdin
from warmwire.worker.cli.claude_code import Claude
from warmwire.worker.cli.said import ControlReply, StreamEvent
from warmwire.worker.errors import ErrorCode
from warmwire.worker.profiles import Profile, Profiles
from warmwire.worker.sessions.patience import INTERRUPT_WITHIN, TERM_WITHIN
from warmwire.worker.sessions.session import Session
from warmwire.worker.sessions.turn import KillCli, NeedCli, PutRecord, Rules

from tests.worker import said
from tests.worker.owner import EPOCH, KEY, STALL, Owner, held


def start(read: int = 10, agent: str | None = None, **cached: int) -> StreamEvent:
    event = {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": read, **cached}}}
    return StreamEvent(json.dumps(event).encode(), "message_start", agent)


def delta(agent: str | None = None) -> StreamEvent:
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}
    return StreamEvent(json.dumps(event).encode(), "content_block_delta", agent)


def end(written: int, agent: str | None = None) -> StreamEvent:
    event = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": written}}
    return StreamEvent(json.dumps(event).encode(), "message_delta", agent)


def heard(limits: Limits, *lines: StreamEvent, spent: Spent | None = None) -> Meter:
    meter = Meter(limits, spent or Spent())
    for line in lines:
        meter.hear(line)
    return meter


# --- the meter ---------------------------------------------------------------------------------------------


def test_tokens_are_all_that_the_api_reports() -> None:
    cached = {"cache_creation_input_tokens": 3, "cache_read_input_tokens": 4}
    meter = heard(Limits(), start(10, None, **cached), delta(), end(20), start(5), end(7))
    assert 10 + 3 + 4 + 20 + 5 + 7 == meter.tokens
    assert Usage(
        input_tokens=15, output_tokens=27, cache_creation_input_tokens=3, cache_read_input_tokens=4
    ) == (meter.usage)


def test_a_limit_of_the_turn_that_is_just_reached_is_not_the_one_that_was_passed() -> None:
    meter = heard(Limits(turn_tokens=30, session_tokens=25), start(10), end(20))
    assert Breach(ErrorCode.BUDGET_EXCEEDED, "session_tokens: 30 of 25 are used.") == meter.breach


def test_what_costs_as_much_as_it_may_is_no_breach() -> None:
    meter = Meter(Limits(turn_usd=0.5, session_usd=0.5))
    for dollars in ("$0.25", "$0.75"):
        meter.cost(f"Total cost: {dollars}")
    assert meter.breach is None
    meter.cost("Total cost: $0.76")
    assert meter.breach is not None


def test_a_turn_without_a_cost_costs_nothing() -> None:
    assert 0.0 == heard(Limits(), start(10), end(20)).spent(Usage()).usd
    assert 0.25 == heard(Limits()).spent(Usage(cost_usd=0.25)).usd


def test_what_is_used_up_is_what_the_end_says_where_that_is_more() -> None:
    told = Usage(input_tokens=1, output_tokens=2, cache_read_input_tokens=30, cache_creation_input_tokens=400)
    assert [433, 433 + 70] == [heard(Limits(), spent=Spent(before)).spent(told).tokens for before in (0, 70)]
    assert 1000 == heard(Limits(), start(1000)).spent(told).tokens


def test_of_an_open_message_each_delta_is_a_token_until_the_api_says_more() -> None:
    assert [12, 30, 31] == [
        heard(Limits(), start(10), delta(), delta(), *more).tokens
        for more in ([], [end(20)], [end(20), start(0), delta()])
    ]


def test_sub_agents_count_too() -> None:
    meter = heard(Limits(), start(10), start(5, "a"), delta("a"), end(6, "a"), delta())
    assert 10 + 5 + 6 + 1 == meter.tokens
    meter.hear(end(8, "b"))
    assert 10 + 5 + 6 + 8 + 1 == meter.tokens


def test_an_event_of_an_unknown_shape_counts_nothing() -> None:
    odd = StreamEvent(b'{"type":"message_start","message":7}', "message_start")
    assert 0 == heard(Limits(), odd).tokens


@pytest.mark.parametrize(
    ("limits", "lines", "spent", "detail"),
    [
        (Limits(turn_tokens=11), (start(10), delta(), delta()), 0, "turn_tokens: 12 of 11 are used."),
        (Limits(turn_tokens=12), (start(10), delta(), delta()), 0, None),
        (Limits(session_tokens=100), (start(10), end(1)), 90, "session_tokens: 101 of 100 are used."),
        (Limits(session_tokens=101), (start(10), end(1)), 90, None),
        (
            Limits(turn_tokens=50, session_tokens=100),
            (start(20),),
            90,
            "session_tokens: 110 of 100 are used.",
        ),
        (Limits(turn_steps=1), (start(1), end(1), start(1)), 0, "turn_steps: it may have 1."),
        (Limits(turn_steps=1), (start(1), start(1, "agent")), 0, None),
    ],
)
def test_the_first_limit_that_is_passed_is_named(
    limits: Limits, lines: tuple[StreamEvent, ...], spent: int, detail: str | None
) -> None:
    breach = heard(limits, *lines, spent=Spent(spent)).breach
    assert detail == (breach.detail if breach else None)


def test_a_message_that_is_repeated_is_one_step() -> None:
    meter = heard(Limits(turn_steps=1), start(1))
    meter.retried()
    meter.hear(start(1))
    assert None is meter.breach


@pytest.mark.parametrize(
    ("limits", "spent", "detail"),
    [
        (Limits(turn_usd=0.5), 0.0, "turn_usd: 0.6000 of 0.5 are used."),
        (Limits(turn_usd=0.7), 0.0, None),
        (Limits(session_usd=1.0), 0.5, "session_usd: 1.1000 of 1.0 are used."),
        (Limits(turn_usd=1.0, session_usd=1.2), 0.5, None),
    ],
)
def test_dollars_are_those_since_the_turn_began(limits: Limits, spent: float, detail: str | None) -> None:
    meter = Meter(limits, Spent(usd=spent))
    for dollars in (2.0, 2.1, 2.6):
        meter.cost(f"Estimated cost:        ${dollars:.4f}\nTotal duration: 1s")
    assert detail == (meter.breach.detail if meter.breach else None)


def test_words_without_dollars_say_nothing() -> None:
    meter = Meter(Limits(turn_usd=0.1))
    meter.cost("You are on a plan.")
    assert None is meter.breach


@pytest.mark.parametrize(
    ("spent", "detail"),
    [
        (Spent(9, 0.9), None),
        (Spent(10, 0.0), "session_tokens: 10 of 10 are used."),
        (Spent(0, 1.0), "session_usd: 1.0000 of 1.0 are used."),
    ],
)
def test_a_session_that_has_used_everything_begins_no_turn(spent: Spent, detail: str | None) -> None:
    breach = used_up(Limits(session_tokens=10, session_usd=1.0), spent)
    assert (Breach(ErrorCode.BUDGET_EXCEEDED, detail) if detail else None) == breach


# --- the session -------------------------------------------------------------------------------------------


def limited(bound: BoundRecord | None = None, *hold: type, **limits: Any) -> Owner:
    owner = Owner(*hold)
    profiles = Profiles({"default": Profile(limits=Limits(**limits))})
    owner.session = Session(KEY, "w1", EPOCH, 0.0, Rules(STALL, profiles=profiles), Claude())
    owner.session.binding.take_over(bound, begun=bound is not None)
    owner.offer(held(1))
    return owner


def interrupts(owner: Owner) -> int:
    subtypes = [line.get("request", {}).get("subtype") for line in owner.given]
    return subtypes.count("interrupt")


def code(owner: Owner) -> str:
    return str(owner.events[-1].get("code") or owner.events[-1]["type"])


def test_a_turn_past_its_budget_is_interrupted_and_ends_with_the_reason() -> None:
    owner = limited(turn_tokens=11)
    owner.say(start(10), delta())
    assert 0 == interrupts(owner)
    owner.say(delta(), delta())
    assert 1 == interrupts(owner)
    owner.say(said.result(owner.uuid, interrupted=True))
    assert ("budget_exceeded", False) == (code(owner), owner.events[-1]["retryable"])
    assert "turn_tokens: 12 of 11" in owner.events[-1]["message"]


def test_a_turn_that_completes_all_the_same_is_complete() -> None:
    owner = limited(turn_tokens=11)
    owner.say(start(10), end(100), said.result(owner.uuid))
    assert "turn_completed" == code(owner)


def test_who_interrupts_first_has_interrupted() -> None:
    owner = limited(turn_tokens=11)
    owner.say(start(10))
    owner.interrupt()
    owner.say(end(100), said.result(owner.uuid, interrupted=True))
    assert (1, "turn_interrupted") == (interrupts(owner), code(owner))


def test_a_cli_that_does_not_stop_at_its_limit_is_killed() -> None:
    owner = limited(turn_tokens=11)
    owner.say(start(20))
    owner.later(INTERRUPT_WITHIN + TERM_WITHIN + 1)
    assert KillCli in owner.order
    assert "budget_exceeded" == code(owner)


def test_a_turn_that_takes_too_long_is_stopped() -> None:
    owner = limited(turn_seconds=30)
    owner.say(start(1))
    owner.later(30)
    assert 0 == interrupts(owner)
    owner.later(1)
    assert 1 == interrupts(owner)
    owner.say(said.result(owner.uuid, interrupted=True))
    assert "time_limit" == code(owner)


def test_too_many_steps_are_stopped_at_the_first_too_many() -> None:
    owner = limited(turn_steps=2)
    owner.say(start(1), end(1), start(1), end(1))
    assert 0 == interrupts(owner)
    owner.say(start(1), said.result(owner.uuid, interrupted=True))
    assert (1, "max_turns") == (interrupts(owner), code(owner))


def test_where_dollars_are_limited_the_cli_is_asked_before_the_turn_and_each_step() -> None:
    owner = limited(turn_usd=0.5)
    asked = [line["request"]["subtype"] for line in owner.given if line["type"] == "control_request"]
    assert (["get_session_cost"], "user") == (asked, owner.given[-1]["type"])
    owner.say(costs(1.0), start(1), end(1))
    assert "get_session_cost" == owner.given[-1]["request"]["subtype"]
    owner.say(costs(1.6))
    assert 1 == interrupts(owner)
    owner.say(said.result(owner.uuid, interrupted=True))
    assert "budget_exceeded" == code(owner)


def costs(dollars: float) -> ControlReply:
    text = f"Estimated cost:        ${dollars:.4f}"
    return ControlReply(claude_stdin.COST, ok=True, response=json.dumps({"text": text}).encode())


def test_without_a_limit_on_dollars_nothing_is_asked_and_nothing_stored() -> None:
    owner = limited(turn_tokens=1000)
    owner.answer("Hello")
    assert ["user"] == [line["type"] for line in owner.given]
    assert None is owner.session.binding.record


def test_what_a_session_uses_is_stored_before_the_end_of_its_turn() -> None:
    owner = limited(BoundRecord(profile="default", tokens=100, usd=1.0), PutRecord, session_tokens=1000)
    owner.release(PutRecord)
    owner.answer("Hello")
    (finished,) = [command for command in owner.waits if isinstance(command, PutRecord)]
    assert BoundRecord(profile="default", tokens=100 + 3 + 5, usd=1.25) == finished.bound


def test_a_session_without_budget_left_runs_nothing() -> None:
    owner = limited(BoundRecord(profile="default", tokens=1000), session_tokens=1000)
    assert ("budget_exceeded", []) == (code(owner), owner.needed)
    assert "session_tokens: 1000 of 1000" in owner.events[-1]["message"]


def test_of_a_process_that_is_killed_the_stream_says_what_was_used() -> None:
    owner = limited(session_tokens=1000)
    owner.say(start(10), delta(), delta())
    owner.fail()
    assert (10, 2) == tuple(owner.events[-1]["usage"][name] for name in ("input_tokens", "output_tokens"))
    record = owner.session.binding.record
    assert 12 == (record and record.tokens)


def test_a_refused_turn_needs_no_process_and_has_a_record() -> None:
    owner = Owner()
    owner.offer(held(1, profile="painting"))
    assert ("unknown_profile", False, []) == (code(owner), owner.events[-1]["retryable"], owner.needed)
    assert NeedCli not in owner.order
    assert "t1" in owner.records
