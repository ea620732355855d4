"""What a turn chooses within its profile, and what the CLI says of its cost: told and asked over stdin."""

from __future__ import annotations

import re

from warmwire.worker.cli.claude import cost_in
from warmwire.worker.cli.claude_stdin import (
    COST,
    SET_MODE,
    SET_THINKING,
    cost_line,
    interrupt_line,
    mode_line,
    thinking_line,
    user_line,
)
from warmwire.worker.cli.said import ControlReply, ControlRequest, Result, Withdrawn

from tests.standin.messages_api import Behaviour
from tests.worker.conftest import Running
from tests.worker.contract.chat import Chat, ask, new_id, on_one_loop, real_only, relied_on

pytestmark = on_one_loop


async def told(cli: Running, line: bytes, request: str) -> ControlReply:
    """What it says to a line."""
    cli.process.write(line)
    _, reply = await cli.until(ControlReply, lambda reply: reply.request_id == request)
    return reply


@relied_on
async def test_the_permission_mode_can_change_between_turns(chat: Chat) -> None:
    cli = await chat()
    for mode in ("plan", "acceptEdits", "default"):
        assert (await told(cli, mode_line(mode), SET_MODE)).ok
        assert "completed" == (await ask(cli, "Hi"))[1].ending


@relied_on
async def test_leave_cannot_be_bypassed_where_that_was_not_said_at_the_start(chat: Chat) -> None:
    assert not (await told(await chat(), mode_line("bypassPermissions"), SET_MODE)).ok


@relied_on
async def test_the_budget_for_thinking_can_change_between_turns(chat: Chat) -> None:
    cli = await chat()
    for tokens in (2000, None):
        assert (await told(cli, thinking_line(tokens), SET_THINKING)).ok
        await ask(cli, "Hi")
    if not chat.emulated:
        budgets = [asked.get("thinking", {}).get("budget_tokens") for asked in chat.api.asked]
        assert (2000, True) == (budgets[0], budgets[1] != 2000)


@relied_on
async def test_it_says_in_words_what_its_process_has_cost(chat: Chat) -> None:
    cli = await chat()
    costs = []
    for _ in range(2):
        said = re.search(r"cost:\s+\$([0-9.]+)", cost_in(await told(cli, cost_line(), COST)))
        assert said is not None
        costs.append(float(said[1]))
        await ask(cli, "Hi")
    assert 0 == costs[0] < costs[1]


@real_only("tools, MCP, hooks, permissions, slash commands, `@file`, compaction")
async def test_an_interrupt_takes_a_question_back(chat: Chat) -> None:
    cli = await chat(plays=Behaviour(tool="touch made-it"), flags=["--tools=Bash"])
    cli.process.write(user_line("Hi", new_id()))
    _, asked = await cli.until(ControlRequest)
    cli.process.write(interrupt_line("stop"))
    _, withdrawn = await cli.until(Withdrawn)
    _, result = await cli.until(Result)
    assert (asked.request_id, "interrupted") == (withdrawn.request_id, result.ending)
