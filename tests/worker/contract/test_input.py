"""What the CLI can be told on stdin, and what it does with what it does not understand."""

from __future__ import annotations

import asyncio
import json

import pytest

from warmwire.worker.cli.claude_stdin import user_line
from warmwire.worker.cli.said import ControlReply, Result
from warmwire.worker.machine.process import Exit

from tests.standin.messages_api import Behaviour, user_texts
from tests.worker.conftest import Running
from tests.worker.contract.chat import (
    Chat,
    ask,
    new_id,
    on_one_loop,
    real_only,
    relied_on,
    text_of,
)

pytestmark = on_one_loop


@relied_on
@pytest.mark.parametrize(
    "text", ["/clear", "/cost", "/compact", "!id", "#note", "a\nb\n", "<b>é</b> \u2028 😀", "@/etc/hostname"]
)
async def test_a_message_is_delivered_verbatim(chat: Chat, text: str) -> None:
    cli = await chat.shared()
    await ask(cli, "before")
    _, result = await ask(cli, text)
    _, recalled = await ask(cli, "recall")
    assert f"before\n{text}" == recalled.text[-len(f"before\n{text}") :]
    assert result.session_id == recalled.session_id


@real_only("tools, MCP, hooks, permissions, slash commands, `@file`, compaction")
async def test_a_file_named_in_a_message_is_not_read(chat: Chat) -> None:
    secret = chat.folder / "secret.txt"
    await asyncio.to_thread(secret.write_text, "the secret")
    await ask(await chat.shared(), f"@{secret}")
    assert f"@{secret}" == user_texts(chat.api.asked[-1])[-1]
    assert "the secret" not in json.dumps(chat.api.asked)


@relied_on
async def test_content_blocks_are_delivered(chat: Chat) -> None:
    cli = await chat.shared()
    await ask(cli, ({"type": "text", "text": "block one"}, {"type": "text", "text": "block two"}))
    assert (await ask(cli, "recall"))[1].text.endswith("block one\nblock two")


@relied_on
async def test_a_megabyte_passes_both_ways(chat: Chat) -> None:
    cli = await chat(plays=Behaviour(deltas=1))
    text = "x" * 1_000_000
    await ask(cli, text)
    heard, result = await ask(cli, "recall")
    assert text == text_of(heard) == result.text


@relied_on
async def test_what_is_not_understood_is_passed_over(chat: Chat) -> None:
    cli = await chat.shared()
    lines = [b"", b"[]", b'"text"', b"17", b'{"type":"no such"}', b'{"type":"keep_alive"}', b"{}"]
    cli.process.write(b"".join(line + b"\n" for line in lines))
    assert "completed" == (await ask(cli, "Hi"))[1].ending


@relied_on
async def test_a_line_that_is_wrong_ends_the_process(chat: Chat) -> None:
    wrong = [b"{bad", b'{"type":"user"}', b'{"type":"control_request","request_id":"1"}']
    started = await asyncio.gather(*(chat(f"s{number}") for number in range(len(wrong))))
    for cli, line in zip(started, wrong, strict=True):
        cli.process.write(line + b"\n")
    ended = [(await cli.until(Exit))[1] for cli in started]
    assert [1, 1, 1] == [one.returncode for one in ended]
    assert all(one.stderr for one in ended)


async def request(cli: Running, subtype: str, **more: object) -> ControlReply:
    """The answer to a control request."""
    name = new_id()
    line = {"type": "control_request", "request_id": name, "request": {"subtype": subtype, **more}}
    cli.process.write(json.dumps(line).encode() + b"\n")
    return (await cli.until(ControlReply, lambda reply: reply.request_id == name))[1]


@relied_on
async def test_a_request_that_it_does_not_know_is_refused_and_it_lives_on(chat: Chat) -> None:
    cli = await chat.shared()
    reply = await request(cli, "no_such_request")
    assert (False, True) == (reply.ok, "no_such_request" in reply.error)
    assert "completed" == (await ask(cli, "Hi"))[1].ending


@relied_on
async def test_what_a_process_is_fixed_to_at_its_start_cannot_be_told(chat: Chat) -> None:
    cli = await chat.shared()
    for subtype in ("update_environment_variables", "resume", "set_session_id"):
        assert not (await request(cli, subtype)).ok, subtype


@relied_on
async def test_settings_may_change_between_turns(chat: Chat) -> None:
    cli = await chat.shared()
    assert (await request(cli, "set_permission_mode", mode="plan")).ok
    assert (await request(cli, "set_permission_mode", mode="default")).ok
    assert (await request(cli, "set_max_thinking_tokens", max_thinking_tokens=0)).ok
    assert (await request(cli, "apply_flag_settings", settings={})).ok
    assert "completed" == (await ask(cli, "Hi"))[1].ending


@relied_on
async def test_leave_for_everything_cannot_be_had_late(chat: Chat) -> None:
    assert not (await request(await chat.shared(), "set_permission_mode", mode="bypassPermissions")).ok


@relied_on
async def test_it_can_be_told_to_end(chat: Chat) -> None:
    cli = await chat()
    assert (await request(cli, "end_session")).ok
    assert 0 == (await cli.until(Exit))[1].returncode


@relied_on
async def test_an_empty_message_is_a_turn(chat: Chat) -> None:
    cli = await chat.shared()
    cli.process.write(user_line("", new_id()))
    assert "completed" == (await cli.until(Result))[1].ending
