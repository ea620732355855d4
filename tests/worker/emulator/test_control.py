from __future__ import annotations

import pytest

from tests.worker.emulator.cli import (
    DEADLINE,
    Start,
    every,
    kind,
    kinds,
    only,
)


def test_a_message_sent_during_a_turn_is_queued_and_gets_a_turn_of_its_own(cli: Start) -> None:
    running = cli(RATE=200)
    running.ask("first", "m1")
    running.until("content_block_delta")
    running.ask("second", "m2")
    heard = running.until("completed")
    assert ["m2"] == [line["command_uuid"] for line in every("queued", heard)]
    assert ["m1"] == only("result", heard)["user_message_uuids"]
    assert ["m2"] == only("result", running.until("completed"))["user_message_uuids"]


@pytest.mark.parametrize("fault", ["", "error:400"])
def test_a_message_that_has_had_its_turn_is_dropped_without_a_word(cli: Start, fault: str) -> None:
    running = cli(FAULT=fault)
    running.turn("first", "m1")
    running.ask("first", "m1")
    assert "m2" == running.turn("second", "m2")[0]["command_uuid"]


def test_a_message_that_is_running_or_queued_is_dropped_when_it_comes_again(cli: Start) -> None:
    running = cli(RATE=200)
    running.ask("first", "m1")
    running.until("content_block_delta")
    for name in ("m1", "m2", "m2"):
        running.ask("again", name)
    running.until("completed")
    running.until("completed")
    assert "m3" == running.turn("third", "m3")[0]["command_uuid"]


def test_initialize_is_answered_before_any_message(cli: Start) -> None:
    running = cli()
    answer = running.control("initialize")
    assert "success" == answer["subtype"]
    assert running.process.pid == answer["response"]["pid"]


def test_set_model_changes_the_next_turn(cli: Start) -> None:
    running = cli()
    assert {"model": "other"} == running.control("set_model", model="other")["response"]
    heard = running.turn()
    assert "other" == only("init", heard)["model"] == only("assistant", heard)["message"]["model"]


def test_the_model_is_a_setting_too(cli: Start) -> None:
    running = cli()
    assert "success" == running.control("apply_flag_settings", settings={"model": "other"})["subtype"]
    assert "other" == only("init", running.turn())["model"]
    running.control("apply_flag_settings", settings={"model": None})
    assert "warmwire-emulator" == only("init", running.turn())["model"]


def test_set_permission_mode_changes_the_next_turn(cli: Start) -> None:
    running = cli()
    assert {"mode": "plan"} == running.control("set_permission_mode", mode="plan")["response"]
    assert "plan" == only("init", running.turn())["permissionMode"]


def test_permissions_are_bypassed_only_if_launched_so(cli: Start) -> None:
    refused = cli().control("set_permission_mode", mode="bypassPermissions")
    assert ("error", "bypass_not_launched") == (refused["subtype"], refused["error_code"])
    launched = cli("--permission-mode=bypassPermissions")
    assert "success" == launched.control("set_permission_mode", mode="bypassPermissions")["subtype"]


def test_an_unknown_control_request_is_refused_and_the_process_lives(cli: Start) -> None:
    running = cli()
    refused = running.control("fly")
    assert ("error", "unsupported_request") == (refused["subtype"], refused["error_code"])
    assert "completed" == kind(running.turn()[-1])


def test_lines_of_other_types_are_ignored(cli: Start) -> None:
    running = cli()
    running.send({"type": "keep_alive"}, {"type": "update_environment_variables", "variables": {"A": "b"}})
    running.send({"type": "new"}, ["list"], "text", 1, None)
    running.write(b"\n  \n")
    assert "queued" == kind(running.turn()[0])


def test_an_interrupt_ends_the_turn_and_keeps_what_was_said(cli: Start) -> None:
    running = cli(RATE=50, DELTAS=1000)
    running.ask("Hello", "m1")
    running.delta(3)
    assert {"still_queued": []} == running.control("interrupt")["response"]
    heard = running.until("cancelled")
    assistant, result = only("assistant", heard), only("result", heard)
    assert assistant["aborted"]
    assert assistant["message"]["content"][0]["text"].startswith("Hello! You wrote:")
    assert "[Request interrupted by user]" == only("user", heard)["message"]["content"][0]["text"]
    assert (True, "error_during_execution") == (result["is_error"], result["subtype"])
    assert "aborted_streaming" == result["terminal_reason"]
    assert "completed" == kind(cli().turn()[-1])


def test_an_interrupt_of_an_idle_process_says_success_and_no_more(cli: Start) -> None:
    running = cli()
    assert {"still_queued": []} == running.control("interrupt")["response"]
    assert "queued" == kind(running.turn()[0])


def test_an_interrupt_before_the_first_delta_leaves_no_answer(cli: Start) -> None:
    running = cli(TTFT_MS=3_000_000)
    running.ask("Hello")
    running.until("status")
    running.control("interrupt")
    assert ["user", "result", "cancelled"] == kinds(running.until("cancelled"))


def test_an_interrupt_lets_queued_messages_run(cli: Start) -> None:
    running = cli(FAULT="hang:1", FAULT_ON="first")
    running.ask("first")
    running.delta(1)
    running.ask("second", "m2")
    assert {"still_queued": ["m2"]} == running.control("interrupt")["response"]
    running.until("cancelled")
    assert "m2" == running.until("completed")[-1]["command_uuid"]


def test_an_interrupt_cancels_queued_messages_if_told_to(cli: Start) -> None:
    running = cli(FAULT="hang:1", FAULT_ON="first")
    running.ask("first", "m1")
    running.delta(1)
    running.ask("second", "m2")
    answer = running.control("interrupt", cancel_queued=True)
    assert {"still_queued": [], "cancelled": ["m2"]} == answer["response"]
    assert "m1" == running.until("cancelled")[-1]["command_uuid"]
    assert "m3" == running.turn("third", "m3")[0]["command_uuid"]


def test_a_credential_is_taken_from_stdin_and_replaced(cli: Start) -> None:
    running = cli(TOKENS="one two")
    endings = [only("result", running.turn())["terminal_reason"]]
    for token in ("one", "three", "two"):
        running.send(
            {"type": "update_environment_variables", "variables": {"CLAUDE_CODE_OAUTH_TOKEN": token}}
        )
        endings.append(only("result", running.turn())["terminal_reason"])
    assert ["api_error", "completed", "api_error", "completed"] == endings


def test_end_session_ends_the_process(cli: Start) -> None:
    running = cli()
    running.turn()
    assert "success" == running.control("end_session")["subtype"]
    assert 0 == running.process.wait(DEADLINE)


def test_end_session_in_a_turn_interrupts_it(cli: Start) -> None:
    running = cli(RATE=50, DELTAS=1000)
    running.ask("Hello")
    running.delta(1)
    running.control("end_session")
    assert "aborted_streaming" == only("result", running.rest())["terminal_reason"]
    assert 1 == running.process.wait(DEADLINE)  # as after any result that is an error
