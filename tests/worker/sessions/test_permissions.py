"""What the CLI asks leave for, as the session decides about it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from warmwire.broker.wire.events import PermissionRequested
from warmwire.worker.cli import claude, said
from warmwire.worker.cli.claude_code import Claude
from warmwire.worker.cli.stream_json import StreamJson
from warmwire.worker.sessions.permissions import (
    ANSWER_WITHIN,
    CLOSED_KEPT,
    OPEN_LIMIT,
    SHOWN_INPUT,
    TOO_LATE,
    TOO_MANY,
    Answer,
    Permissions,
)
from warmwire.worker.sessions.session import PROGRESS_EVERY

from tests.worker.owner import EPOCH, STALL, Owner, held, running

YES, NO = Answer(allow=True), Answer(allow=False)


def asks_leave(
    request: str = "q1", subtype: str = "can_use_tool", command: str = "ls"
) -> said.ControlRequest:
    wish = {"subtype": subtype, "tool_name": "Bash", "input": {"command": command}}
    return said.ControlRequest(request, subtype, json.dumps(wish).encode())


def asking(*commands: str) -> Owner:
    """A turn in which the CLI has asked for these."""
    owner = running()
    for number, command in enumerate(commands, start=1):
        owner.say(asks_leave(f"q{number}", command=command))
    return owner


def questions(owner: Owner) -> list[str]:
    return [event["request"] for event in owner.events if event["type"] == "permission_requested"]


def resolved(owner: Owner) -> list[str]:
    return [event["outcome"] for event in owner.events if event["type"] == "permission_resolved"]


def told(owner: Owner) -> list[dict[str, Any]]:
    """What the CLI was told about its questions."""
    return [line["response"] for line in owner.given if line["type"] == "control_response"]


def permit(owner: Owner, answer: Answer, name: str | None = None, turn: str | None = None) -> str:
    outcome, commands = owner.session.permit(name or questions(owner)[-1], answer, turn)
    owner.run(commands)
    return outcome


def test_a_question_is_told_to_viewers_with_what_the_tool_would_get() -> None:
    owner = asking("ls")
    asked = owner.events[-1]
    assert ("permission_requested", "Bash", ANSWER_WITHIN * 1000) == (
        asked["type"],
        asked["tool"],
        asked["within_ms"],
    )
    assert ({"command": "ls"}, '{"command": "ls"}') == (asked["input"], asked["summary"])
    assert f"{EPOCH}-1" == asked["request"]
    assert [] == told(owner)


def test_a_large_input_is_only_summed_up() -> None:
    asked = asking("x" * SHOWN_INPUT).events[-1]
    assert "input" not in asked
    assert "xxx" in asked["summary"]


def test_what_is_allowed_is_allowed_as_it_was() -> None:
    owner = asking("ls")
    assert "taken" == permit(owner, YES)
    (answer,) = told(owner)
    assert {
        "subtype": "success",
        "request_id": "q1",
        "response": {"behavior": "allow", "updatedInput": {"command": "ls"}},
    } == answer
    assert ["allowed"] == resolved(owner)


def test_another_input_may_be_allowed_instead() -> None:
    owner = asking("rm -r /")
    permit(owner, Answer(allow=True, input=b'{"command":"ls"}'))
    assert {"command": "ls"} == told(owner)[0]["response"]["updatedInput"]


def test_the_model_is_told_why_not() -> None:
    owner = asking("ls")
    permit(owner, Answer(allow=False, reason="Ask Ben first."))
    assert ("deny", "Ask Ben first.") == tuple(
        told(owner)[0]["response"][name] for name in ("behavior", "message")
    )
    assert ["denied"] == resolved(owner)


def test_the_first_answer_counts() -> None:
    owner = asking("ls")
    assert ["taken", "closed"] == [permit(owner, answer) for answer in (NO, YES)]
    assert ["deny"] == [answer["response"]["behavior"] for answer in told(owner)]


def test_each_question_has_its_own_answer() -> None:
    owner = asking("one", "two")
    first, second = questions(owner)
    assert ["taken", "taken"] == [permit(owner, YES, second), permit(owner, NO, first)]
    assert [("q2", "allow"), ("q1", "deny")] == [
        (one["request_id"], one["response"]["behavior"]) for one in told(owner)
    ]


def test_an_answer_for_another_turn_is_not_taken_and_the_question_stays_open() -> None:
    owner = asking("ls")
    assert "unknown" == permit(owner, YES, turn="another")
    assert [] == told(owner)
    assert "taken" == permit(owner, YES, turn="t1")


@pytest.mark.parametrize("name", ["q1", f"{EPOCH}-2", f"{EPOCH - 1}-1"])
def test_an_answer_to_what_was_never_asked_here_is_unknown(name: str) -> None:
    owner = asking("ls")
    assert "unknown" == permit(owner, YES, name)
    assert [] == told(owner)


def test_names_are_not_used_again_in_the_next_turn() -> None:
    owner = asking("ls")
    owner.answer("Hello")
    (before,) = questions(owner)
    owner.offer(held(2))
    owner.say(asks_leave("q1"))
    assert "closed" == permit(owner, YES, before)
    assert before not in questions(owner)[1:]


def test_without_an_answer_it_is_no_in_time() -> None:
    owner = asking("ls")
    owner.later(ANSWER_WITHIN - 1)
    assert [] == told(owner)
    owner.later(1)
    assert [("q1", TOO_LATE)] == [(one["request_id"], one["response"]["message"]) for one in told(owner)]
    assert ["overdue"] == resolved(owner)
    assert "closed" == permit(owner, YES)


class Terse(StreamJson):
    """A CLI that asks, and is answered in a word."""

    def wish(self, request: said.ControlRequest) -> said.Wish:
        return said.Wish(request.subtype, b"[]")

    def allow_line(self, request_id: str, wish: said.Wish, instead: bytes | None = None) -> bytes:
        return f"{request_id} {wish.tool} {instead!r}".encode()

    def deny_line(self, request_id: str, reason: str) -> bytes:
        return f"{request_id} {reason}".encode()


@pytest.mark.parametrize(
    ("answer", "line"), [(YES, b"q1 can_use_tool None"), (Answer(allow=False, reason="no"), b"q1 no")]
)
def test_a_cli_is_answered_in_its_own_dialect(answer: Answer, line: bytes) -> None:
    permissions = Permissions(EPOCH, Terse())
    (question,) = permissions.hear("t1", asks_leave("q1"), 0).events
    assert isinstance(question, PermissionRequested)
    assert ("can_use_tool", None) == (question.tool, question.input)
    outcome, what = permissions.answer(question.request, answer)
    assert ("taken", [line]) == (outcome, what.lines)


def test_a_dialect_without_questions_asks_nobody() -> None:
    what = Permissions(EPOCH, StreamJson()).hear("t1", asks_leave("q1"), 0)
    assert ([], ()) == (what.lines, what.events)


def test_who_comes_later_is_told_how_much_time_is_left() -> None:
    permissions = Permissions(EPOCH, Claude(), within=10)
    assert permissions.open(0) is None
    permissions.hear("t1", asks_leave("q1"), 0)
    permissions.hear("t1", asks_leave("q2"), 4)
    left = permissions.open(9)
    assert left is not None
    assert [(f"{EPOCH}-1", 1000), (f"{EPOCH}-2", 5000)] == [(one.request, one.within_ms) for one in left]
    late = permissions.open(11)
    assert late is not None
    assert 0 == late[0].within_ms


def test_who_comes_while_people_are_asked_sees_the_question_and_that_it_is_waited_for() -> None:
    owner = asking("ls")
    (question,) = json.loads(owner.view(epoch=EPOCH + 1, seq=0).snapshot)["questions"]
    assert questions(owner) == [question["request"]]
    owner.later(PROGRESS_EVERY + 1)
    assert ("turn_progress", "asking") == (owner.events[-1]["type"], owner.events[-1]["doing"])


def test_who_waits_for_people_is_not_stalled() -> None:
    owner = asking("ls")
    for _ in range(3):
        owner.later(ANSWER_WITHIN / 3 - 1)
    owner.later(STALL / 2)  # overdue: from here on it has no reason to be silent
    owner.later(STALL / 2)
    assert not stopped(owner)
    owner.later(STALL + 1)
    assert stopped(owner)


def stopped(owner: Owner) -> bool:
    """Whether the CLI has been interrupted."""
    return any(line.get("request", {}).get("subtype") == "interrupt" for line in owner.given)


def test_a_question_that_the_cli_takes_back_is_over() -> None:
    owner = asking("ls")
    owner.say(claude.parse(b'{"type":"control_cancel_request","request_id":"q1"}'))
    assert ["withdrawn"] == resolved(owner)
    assert "closed" == permit(owner, YES)
    assert [] == told(owner)


def test_with_the_turn_its_questions_are_over() -> None:
    owner = asking("ls")
    owner.answer("Hello")
    assert "closed" == permit(owner, YES)
    assert [] == told(owner)


def test_open_questions_are_bounded() -> None:
    owner = asking(*map(str, range(OPEN_LIMIT + 1)))
    assert OPEN_LIMIT == len(questions(owner))
    (answer,) = told(owner)
    assert (f"q{OPEN_LIMIT + 1}", TOO_MANY) == (answer["request_id"], answer["response"]["message"])


def test_closed_questions_are_forgotten_in_the_end() -> None:
    owner = running()
    for _ in range(CLOSED_KEPT + 1):
        owner.say(asks_leave())
        permit(owner, NO)
    first, second, *_ = questions(owner)
    assert ["unknown", "closed"] == [permit(owner, NO, first), permit(owner, NO, second)]


def test_a_request_of_another_kind_is_refused_at_once() -> None:
    owner = running()
    owner.say(asks_leave(subtype="mcp_message"))
    (answer,) = told(owner)
    assert {"subtype": "error", "request_id": "q1", "error": "not available here"} == answer
    assert [] == questions(owner)
