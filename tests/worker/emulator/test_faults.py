from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from warmwire.worker.cli import claude, said
from warmwire.worker.emulation import settings
from warmwire.worker.machine import tree

from tests.worker.emulator.cli import (
    DEADLINE,
    Json,
    Start,
    entries,
    every,
    kind,
    only,
    texts,
)


def test_crash_kills_the_process_after_so_many_deltas(cli: Start) -> None:
    running = cli(FAULT="crash:3")
    running.ask("Hello")
    assert 3 == len(every("content_block_delta", running.rest()))
    assert -signal.SIGKILL == running.process.wait(DEADLINE)


def test_exit_at_start_never_reads(cli: Start) -> None:
    code, complaint = cli(FAULT="exit-at-start").refusal()
    assert (1, True) == (code, complaint.startswith("emulator: "))


def test_hang_falls_silent_and_still_hears_an_interrupt(cli: Start) -> None:
    running = cli(FAULT="hang:3", DELTAS=1000)
    running.ask("Hello")
    running.delta(3)
    running.send({"type": "control_request", "request_id": "1", "request": {"subtype": "interrupt"}})
    assert "control_response" == kind(running.until("control_response", "content_block_delta")[-1])
    assert "cancelled" == kind(running.until("cancelled")[-1])


def test_deaf_hears_nothing_but_sigkill(cli: Start) -> None:
    running = cli(FAULT="deaf:2")
    running.ask("Hello")
    running.delta(2)
    running.send({"type": "control_request", "request_id": "1", "request": {"subtype": "interrupt"}})
    running.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        running.process.wait(0.2)
    running.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        running.process.wait(0.2)
    assert -signal.SIGKILL == running.signal(signal.SIGKILL)
    assert [] == running.rest()


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, "unknown"), (401, "authentication_failed"), (429, "rate_limit"), (529, "overloaded")],
)
def test_an_api_error_is_a_result_that_is_an_error(cli: Start, status: int, error: str) -> None:
    heard = cli(FAULT=f"error:{status}").turn()
    said, result = only("assistant", heard), only("result", heard)
    assert ("api_error", "success") == (result["terminal_reason"], result["subtype"])
    assert (True, status) == (result["is_error"], result["api_error_status"])
    assert (error, "<synthetic>") == (said["error"], said["message"]["model"])
    assert [] == every("content_block_delta", heard)


def test_retry_cuts_the_stream_and_begins_again(cli: Start) -> None:
    heard = cli(FAULT="retry:5", STAMP=0).turn()
    again = [kind(line) for line in heard].index("api_retry")
    assert 5 == len(texts(heard[:again]))
    assert only("result", heard)["result"] == "".join(texts(heard[again:]))
    assert [] == every("message_delta", heard[:again])


def test_a_bad_line_stands_between_good_ones(cli: Start) -> None:
    running = cli(FAULT="bad-line", DELTAS=5)
    running.ask("Hello")
    running.stdin.close()
    lines = list(iter(running.raw_line, None))
    bad = [line for line in lines if isinstance(claude.parse(line), said.BadLine)]
    assert 1 == len(bad)
    assert "completed" == kind(json.loads(lines[-1]))
    assert lines.index(bad[0]) < len(lines) - 5


def test_a_long_line_has_so_many_bytes_of_text(cli: Start) -> None:
    heard = cli(FAULT="long-line:300000").turn()
    assert "x" * 300_000 == texts(heard)[0]
    assert only("result", heard)["result"].startswith("x" * 300_000)


def test_a_child_has_a_session_of_its_own_and_outlives_the_turn(cli: Start) -> None:
    running = cli(FAULT="child")
    running.turn("Hello")
    (child,) = tree.descendants([running.process.pid])
    try:
        assert child == os.getsid(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_tool_turn_has_a_call_a_result_and_a_second_message(cli: Start) -> None:
    heard = cli(FAULT="tool").turn("Hello", "m1")
    call = every("assistant", heard)[1]["message"]["content"][0]
    result = only("user", heard)["message"]["content"][0]
    parts = [line["event"]["delta"].get("partial_json", "") for line in every("content_block_delta", heard)]
    stops = [line["event"]["delta"]["stop_reason"] for line in every("message_delta", heard)]
    assert ("tool_use", json.loads("".join(parts))) == (call["type"], call["input"])
    assert ("tool_result", call["id"]) == (result["type"], result["tool_use_id"])
    assert ["tool_use", "end_turn"] == stops
    assert 2 == only("result", heard)["num_turns"]
    assert ["user", "assistant", "assistant", "user", "assistant"] == [e["type"] for e in entries(heard)]


def test_a_tool_result_is_no_user_message(cli: Start) -> None:
    first = cli(FAULT="tool")
    session = only("result", first.turn("first"))["session_id"]
    first.control("interrupt")
    assert "first" == cli(f"--resume={session}").answer("recall")


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        ({"behavior": "allow", "updatedInput": {}}, ("emulated", False)),
        ({"behavior": "deny", "message": "Not now."}, ("Not now.", True)),
    ],
)
def test_it_asks_for_leave_and_waits(cli: Start, verdict: Json, outcome: tuple[str, bool]) -> None:
    running = cli(FAULT="ask")
    running.ask("Hello")
    question = running.until("control_request")[-1]
    assert ("can_use_tool", "Bash") == (question["request"]["subtype"], question["request"]["tool_name"])
    running.send(said_to("nobody", verdict), said_to(question["request_id"], verdict))
    heard = running.until("completed")
    result = only("user", heard)["message"]["content"][0]
    assert outcome == (result["content"], result["is_error"])


def test_an_interrupt_takes_its_question_back(cli: Start) -> None:
    running = cli(FAULT="ask")
    running.ask("Hello")
    question = running.until("control_request")[-1]
    running.send({"type": "control_request", "request_id": "i", "request": {"subtype": "interrupt"}})
    heard = running.until("cancelled")
    assert question["request_id"] == only("control_cancel_request", heard)["request_id"]


def said_to(question: str, verdict: Json) -> Json:
    response = {"subtype": "success", "request_id": question, "response": verdict}
    return {"type": "control_response", "response": response}


def test_it_says_what_it_has_cost(cli: Start) -> None:
    running = cli(DELTAS=100)
    assert "$0.0000" in running.control("get_session_cost")["response"]["text"]
    running.turn("one two three")
    assert "$0.0015" in running.control("get_session_cost")["response"]["text"]


def test_a_fault_may_wait_for_a_word(cli: Start) -> None:
    running = cli(FAULT="error:500", FAULT_ON="boom")
    assert "completed" == kind(running.turn("Hello")[-1])
    assert "cancelled" == kind(running.turn("go boom now")[-1])
    assert "completed" == kind(running.turn("Hello again")[-1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DELTAS", "0"),
        ("DELTAS", "many"),
        ("RATE", "0"),
        ("RATE", "inf"),
        ("RATE", "nan"),
        ("STARTUP_MS", "-1"),
        ("TTFT_MS", "soon"),
        ("STAMP", "yes"),
        ("FAULT", "boom"),
        ("FAULT", "crash"),
        ("FAULT", "crash:"),
        ("FAULT", "crash:-1"),
        ("FAULT", "crash:x"),
        ("FAULT", "tool:1"),
        ("FAULT", "error:418"),
        ("FAULT", "long-line:" + "9" * 5000),
        ("SCRIPT", "/no/such/file"),
        ("SCRIPT", "/dev/null"),
        ("SCRIPT", "/dev/zero"),
    ],
)
def test_a_bad_setting_is_refused_by_name(cli: Start, name: str, value: str) -> None:
    code, complaint = cli(**{name: value}).refusal()
    assert 2 == code
    assert 1 == complaint.count("\n")
    assert complaint.startswith(f"emulator: WARMWIRE_EMULATOR_{name} must be ")


REFERENCE = (Path(__file__).parents[3] / "docs/reference/emulator.md").read_text()
NAMES = sorted(set(re.findall(r'"([A-Z][A-Z_]*[A-Z])"', Path(settings.__file__).read_text())))


def test_the_settings_are_known_to_the_next_test() -> None:
    known = ["DELTAS", "FAULT", "FAULT_ON", "RATE", "SCRIPT", "STAMP", "STARTUP_MS", "TOKENS", "TTFT_MS"]
    assert known == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_listed(name: str) -> None:
    assert f"| `{settings.PREFIX}{name}` |" in REFERENCE


@pytest.mark.parametrize("name", [*settings.PLAIN_FAULTS, *(f"{n}:N" for n in settings.NUMBERED_FAULTS)])
def test_every_fault_is_listed(name: str) -> None:
    assert f"| `{name}` |" in REFERENCE
