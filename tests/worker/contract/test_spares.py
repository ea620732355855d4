"""What a process can be told that was started before its session was known."""

from __future__ import annotations

import json

import pytest

from warmwire.worker.cli.claude import wish
from warmwire.worker.cli.claude_stdin import (
    ADOPT,
    SET_MODEL,
    adopt_line,
    allow_line,
    deny_line,
    ready_line,
    set_model_line,
    user_line,
)
from warmwire.worker.cli.said import ControlReply, ControlRequest, Init, Result

from tests.standin.messages_api import Behaviour, Json, user_texts
from tests.worker.conftest import Running
from tests.worker.contract.chat import (
    INITIALIZE,
    MODEL,
    Chat,
    ask,
    entries,
    new_id,
    on_one_loop,
    real_only,
    relied_on,
    written,
)

pytestmark = on_one_loop


async def spare(chat: Chat) -> Running:
    """A process bound to nobody, and ready."""
    cli = await chat.start(chat.launch("spare"))
    cli.process.write(ready_line())
    await cli.until(ControlReply)
    return cli


def prompt(body: Json) -> str:
    """The system prompt of a request: the last block, behind what the CLI says of itself."""
    return str(body["system"][-1]["text"])


@relied_on
async def test_a_spare_takes_a_prompt_and_a_model(chat: Chat) -> None:
    cli = await spare(chat)
    cli.process.write(adopt_line("Talk like a heron.") + set_model_line(MODEL))
    heard, result = await ask(cli, "Hi")
    assert [(ADOPT, True), (SET_MODEL, True)] == [
        (line.request_id, line.ok) for line in heard if isinstance(line, ControlReply)
    ]
    assert [MODEL] == [line.model for line in heard if isinstance(line, Init)]
    assert "completed" == result.ending


@real_only("requests to the API")
async def test_what_a_spare_was_told_is_what_the_api_hears(chat: Chat) -> None:
    cli = await spare(chat)
    cli.process.write(adopt_line("Talk like a heron.") + set_model_line(MODEL))
    heard, _ = await ask(cli, "one")
    past = await written(chat.folder / "elsewhere", entries(heard))
    await ask(await chat("elsewhere", resume=past), "two")  # a resumed one has the same prompt
    assert [("Talk like a heron.", MODEL)] * 2 == [
        (prompt(asked), asked["model"]) for asked in chat.api.asked
    ]
    assert ["one", "two"] == user_texts(chat.api.asked[-1])


@real_only("requests to the API")
async def test_what_a_spare_is_told_at_once_waits_until_it_is_up(chat: Chat) -> None:
    cli = await chat.start(chat.launch("spare"))
    cli.process.write(ready_line() + adopt_line("Talk like a heron.") + set_model_line(MODEL))
    await ask(cli, "Hi")
    assert ("Talk like a heron.", MODEL) == (prompt(chat.api.asked[0]), chat.api.asked[0]["model"])


@real_only("requests to the API")
async def test_only_the_first_initialize_sets_the_prompt(chat: Chat) -> None:
    cli = await spare(chat)
    cli.process.write(INITIALIZE + adopt_line("Talk like a heron."))
    await ask(cli, "Hi")
    assert "Talk like a heron." != prompt(chat.api.asked[0])


@relied_on
async def test_the_model_can_change_between_turns(chat: Chat) -> None:
    cli, models = await chat(), []
    for change in ([], ["claude-haiku-4-5"], [None]):
        for model in change:
            cli.process.write(set_model_line(model))
        heard, _ = await ask(cli, "Hi")
        models += [line.model for line in heard if isinstance(line, Init)]
    assert [MODEL, "claude-haiku-4-5"] == models[:2]
    assert models[2] not in (MODEL, "claude-haiku-4-5")  # the CLI's own default, not what it began with
    if not chat.emulated:  # each turn asked once: none to see whether there is such a model
        assert models == [asked["model"] for asked in chat.api.asked]


@relied_on
async def test_a_frozen_process_goes_on(chat: Chat) -> None:
    cli = await chat()
    await ask(cli, "one")
    cli.process.freeze()
    cli.process.thaw()
    assert "one" == (await ask(cli, "recall"))[1].text


@real_only("tools, MCP, hooks, permissions, slash commands, `@file`, compaction")
@pytest.mark.parametrize("allow", [True, False])
async def test_a_tool_that_needs_leave_waits_for_the_answer(chat: Chat, allow: bool) -> None:
    cli = await chat(plays=Behaviour(tool="touch made-it"), flags=["--tools=Bash"])
    cli.process.write(user_line("Hi", new_id()))
    _, asked = await cli.until(ControlRequest)
    wished = wish(asked)
    assert wished is not None
    assert ("Bash", "touch made-it") == (wished.tool, json.loads(wished.input)["command"])
    name = asked.request_id
    cli.process.write(allow_line(name, wished) if allow else deny_line(name, "no"))
    _, result = await cli.until(Result)
    assert ("completed", allow) == (result.ending, (chat.folder / "s1" / "work" / "made-it").exists())
