"""What an interrupt does, whenever it comes."""

from __future__ import annotations

import asyncio

from warmwire.worker.cli.claude_stdin import interrupt_line, user_line
from warmwire.worker.cli.said import ControlReply, Lifecycle, Result, StreamEvent

from tests.conftest import wait_for
from tests.standin.messages_api import Behaviour
from tests.worker.contract.chat import (
    SLOW,
    STUMBLE,
    Chat,
    ask,
    is_delta,
    new_id,
    on_one_loop,
    relied_on,
    types,
)

pytestmark = on_one_loop


@relied_on
async def test_an_interrupt_ends_the_turn_and_not_the_process(chat: Chat) -> None:
    cli, message = await chat(plays=SLOW), new_id()
    cli.process.write(user_line("Hi", message))
    await cli.until(StreamEvent, is_delta)
    cli.process.write(interrupt_line("r1"))
    heard, result = await cli.until(Result)
    assert ("interrupted", None) == (result.ending, result.error)
    assert ["r1"] == [line.request_id for line in heard if isinstance(line, ControlReply) and line.ok]
    assert (await cli.until(Lifecycle))[1] == Lifecycle(message, "cancelled")
    chat.play(Behaviour())
    assert "completed" == (await ask(cli, "Go on"))[1].ending


@relied_on
async def test_an_interrupt_ends_a_call_that_hangs(chat: Chat) -> None:
    cli = await chat(plays=Behaviour(hang_after=0))
    cli.process.write(user_line(STUMBLE, new_id()))
    if not chat.emulated:
        await asyncio.to_thread(wait_for, lambda: chat.api.asked, "the API has been asked")
    else:
        await cli.until(StreamEvent)
    cli.process.write(interrupt_line("r1"))
    assert "interrupted" == (await cli.until(Result))[1].ending


@relied_on
async def test_an_interrupt_before_the_start_leaves_nothing_of_the_message(chat: Chat) -> None:
    cli, message = await chat.shared(), new_id()
    cli.process.write(user_line("Hi", message) + interrupt_line("early"))
    heard, _ = await cli.until(ControlReply, lambda reply: reply.request_id == "early")
    assert [] == types(heard)
    after, result = await ask(cli, "Next")
    lifecycles = [line for line in (*heard, *after) if isinstance(line, Lifecycle)]
    assert Lifecycle(message, "cancelled") in lifecycles
    assert Lifecycle(message, "completed") not in lifecycles
    assert "completed" == result.ending


@relied_on
async def test_an_interrupt_without_a_turn_does_nothing(chat: Chat) -> None:
    cli = await chat.shared()
    cli.process.write(interrupt_line("idle"))
    heard, reply = await cli.until(ControlReply)
    assert ([reply], True) == (heard, reply.ok)
    assert "completed" == (await ask(cli, "Hi"))[1].ending


@relied_on
async def test_what_was_interrupted_stays_in_the_conversation(chat: Chat) -> None:
    cli = await chat(plays=Behaviour(hang_after=1))
    cli.process.write(user_line(STUMBLE, new_id()))
    await cli.until(StreamEvent, is_delta)
    cli.process.write(interrupt_line("r1"))
    await cli.until(Result)
    assert STUMBLE == (await ask(cli, "recall"))[1].text
