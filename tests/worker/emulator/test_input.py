from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.worker.emulator.cli import DEADLINE, EMULATOR, Start, every, kind, only, user


def test_input_may_come_byte_by_byte(cli: Start) -> None:
    running = cli()
    line = json.dumps(user("Zoë", "m1"), ensure_ascii=False).encode() + b"\n"
    for at in range(len(line)):
        running.write(line[at : at + 1])
    assert "Zoë" in only("result", running.until("completed"))["result"]


def test_input_may_come_in_the_middle_of_a_turn_byte_by_byte(cli: Start) -> None:
    running = cli(FAULT="hang:1")
    running.ask("Hello")
    running.delta(1)
    request = {"type": "control_request", "request_id": "1", "request": {"subtype": "interrupt"}}
    for byte in json.dumps(request).encode() + b"\n":
        running.write(bytes([byte]))
    assert "cancelled" == kind(running.until("cancelled")[-1])


def test_a_megabyte_comes_through(cli: Start) -> None:
    running = cli()
    text = "x" * 1_000_000
    running.turn(text)
    assert text == running.answer("recall")


def test_the_last_line_needs_no_newline(cli: Start) -> None:
    running = cli()
    running.write(json.dumps(user("Hello", "m1")).encode())
    running.stdin.close()
    assert "completed" == kind(running.rest()[-1])


def test_at_the_end_of_input_running_and_queued_turns_are_finished(cli: Start) -> None:
    running = cli(RATE=200)
    running.ask("first")
    running.delta(1)
    running.ask("second")
    running.stdin.close()
    assert 2 == len(every("completed", running.rest()))
    assert 0 == running.process.wait(DEADLINE)


def test_the_exit_code_is_1_after_a_result_that_is_an_error(cli: Start) -> None:
    running = cli(FAULT="error:400", FAULT_ON="bad")
    running.turn("bad")
    assert 1 == running.end()
    running = cli(FAULT="error:400", FAULT_ON="bad")
    running.turn("bad")
    running.turn("good")
    assert 0 == running.end()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{bad\n", "Error parsing streaming input line (type=unknown, 4 chars): SyntaxError"),
        (b'{"a":1} {"b":2}\n', "Error parsing streaming input line (type=unknown, 15 chars): SyntaxError"),
        (b'{"a":NaN}\n', "Error parsing streaming input line (type=unknown, 9 chars): SyntaxError"),
        (b'{"type":"user"}\n', "Error: Expected message role 'user', got 'undefined'"),
        (
            b'{"type":"user","message":{"role":"assistant","content":""}}\n',
            "Error: Expected message role 'user', got 'assistant'",
        ),
        (b'{"type":"control_request","request_id":"1"}\n', "Error: Missing request on control_request"),
    ],
)
def test_a_line_that_cannot_be_understood_ends_the_process(cli: Start, line: bytes, complaint: str) -> None:
    running = cli()
    running.write(line)
    assert (1, complaint + "\n") == running.refusal()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("busy", [False, True])
def test_a_signal_ends_the_process_at_once(cli: Start, number: signal.Signals, code: int, busy: bool) -> None:
    running = cli(FAULT="hang:1")
    running.control("initialize")
    if busy:
        running.ask("Hello")
        running.delta(1)
    assert code == running.signal(number)
    assert [] == every("result", running.rest())


def test_sigint_interrupts_the_turn_and_ends_the_process(cli: Start) -> None:
    running = cli(FAULT="hang:1")
    running.ask("Hello")
    running.delta(1)
    assert 0 == running.signal(signal.SIGINT)
    assert "aborted_streaming" == only("result", running.rest())["terminal_reason"]


def test_sigint_ends_an_idle_process(cli: Start) -> None:
    running = cli()
    running.control("initialize")
    assert 0 == running.signal(signal.SIGINT)


def test_it_ends_when_nobody_reads_its_output(cli: Start) -> None:
    running = cli()
    running.control("initialize")
    running.stdout.close()
    running.ask("Hello")
    assert (1, "emulator: nobody reads stdout any more\n") == running.refusal()


@pytest.mark.parametrize("argv", [[EMULATOR], ["-I", EMULATOR.relative_to(EMULATOR.parents[2])]])
def test_it_starts_without_the_light_flags_and_by_a_relative_path(argv: list[str]) -> None:
    command = [sys.executable, *map(str, argv), "--version"]
    told = subprocess.run(command, cwd=EMULATOR.parents[2], capture_output=True, timeout=DEADLINE, check=True)
    assert b"0.1.0 (warmwire emulator)\n" == told.stdout
