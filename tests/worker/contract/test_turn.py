"""What the CLI says in a turn, and in which order."""

from __future__ import annotations

import asyncio
import json

from warmwire.worker.cli.claude_stdin import user_line
from warmwire.worker.cli.program import probe
from warmwire.worker.cli.said import Assistant, Init, Lifecycle, Result, StreamEvent, ToolResults
from warmwire.worker.cli.said import ControlReply as Reply

from tests.standin.messages_api import Behaviour, user_texts
from tests.worker.contract.chat import (
    INITIALIZE,
    MODEL,
    SLOW,
    Chat,
    ask,
    is_delta,
    left_out,
    new_id,
    on_one_loop,
    real_only,
    relied_on,
    text_of,
    types,
)

pytestmark = on_one_loop


@relied_on
async def test_it_is_ready_before_its_first_message(chat: Chat) -> None:
    cli = await chat()
    cli.process.write(INITIALIZE)
    heard, reply = await cli.until(Reply)
    assert ("i1", True) == (reply.request_id, reply.ok)
    assert [reply] == heard


@relied_on
async def test_the_order_of_a_turn(chat: Chat) -> None:
    cli, message = await chat(session=(session := new_id()), plays=Behaviour(deltas=3)), new_id()
    cli.process.write(user_line("Grüße!", message))
    heard, result = await cli.until(Result)
    _, completed = await cli.until(Lifecycle)
    kinds = (Lifecycle, Init, StreamEvent, Assistant, Result)
    version = (await probe(chat.command)).removesuffix(" (Claude Code)")
    assert [
        Lifecycle(message, "queued"),
        Lifecycle(message, "started"),
        Init(session, MODEL, version),
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        result.text,  # the whole block, before its end
        "content_block_stop",
        "message_delta",
        "message_stop",
        result,
        Lifecycle(message, "completed"),
    ] == [shown(line) for line in [*heard, completed] if isinstance(line, kinds)]
    assert ("completed", (message,)) == (result.ending, result.message_uuids)
    assert result.text == text_of(heard) != ""


def shown(line: object) -> object:
    match line:
        case StreamEvent():
            return line.type
        case Assistant():
            return line.text
        case _:
            return line


@relied_on
async def test_deltas_come_one_by_one(chat: Chat) -> None:
    cli = await chat(plays=SLOW)
    cli.process.write(user_line("Hi", new_id()))
    await cli.until(StreamEvent, is_delta)
    assert [] == [line for line in cli.raw if b"content_block_stop" in line]  # there is more to come


@relied_on
async def test_two_turns_in_one_process_keep_the_context(chat: Chat) -> None:
    cli = await chat()
    before, first = await ask(cli, "My name is Ada.")
    heard, second = await ask(cli, "recall")
    assert "My name is Ada." == text_of(heard) == second.text
    assert first.session_id == second.session_id
    assert [1, 1] == [len([x for x in said if isinstance(x, Init)]) for said in (before, heard)]


@relied_on
async def test_cost_and_tokens_are_the_turns_not_the_processs(chat: Chat) -> None:
    cli = await chat()
    results = [(await ask(cli, "Hi"))[1] for _ in range(3)]
    assert results[1].cost_usd == results[2].cost_usd > 0
    assert results[1].usage == results[2].usage
    assert results[1].usage.output_tokens > 0


@relied_on
async def test_a_turn_with_a_tool_has_two_messages_and_one_result(chat: Chat) -> None:
    cli = await chat(plays=Behaviour(tool="echo emulated"), flags=["--tools=Bash", "--allowedTools=Bash"])
    heard, result = await ask(cli, "Hi")
    assert 2 == types(heard).count("message_start") == types(heard).count("message_stop")
    (call,) = [tool for line in heard if isinstance(line, Assistant) for tool in line.tools]
    (back,) = [result for line in heard if isinstance(line, ToolResults) for result in line.results]
    assert ("Bash", {"command": "echo emulated"}) == (call.name, named(call.input, "command"))
    assert (call.id, False, True) == (back.tool_use_id, back.is_error, b"emulated" in back.content)
    assert "completed" == result.ending


def named(raw: bytes, *fields: str) -> dict[str, object]:
    return {name: value for name, value in json.loads(raw).items() if name in fields}


@real_only("requests to the API")
async def test_without_tools_a_request_holds_none(chat: Chat) -> None:
    await ask(await chat.shared(), "Hi")
    assert not chat.api.asked[-1].get("tools")
    system = json.dumps(chat.api.asked[-1]["system"])
    assert len(system) < 2_000


@left_out("messages sent during a turn")
async def test_messages_sent_during_a_turn_share_the_next_one(chat: Chat) -> None:
    cli = await chat(plays=SLOW)
    ids = [new_id() for _ in range(3)]
    cli.process.write(user_line("one", ids[0]))
    await cli.until(StreamEvent, is_delta)
    for number in (1, 2):
        cli.process.write(user_line(f"more {number}", ids[number]))
    results = [(await cli.until(Result))[1].message_uuids for _ in range(2)]
    assert [(ids[0],), (ids[1], ids[2])] == results


@left_out("`priority` on a message")
async def test_an_urgent_message_stops_the_turn(chat: Chat) -> None:
    cli = await chat(plays=SLOW)
    cli.process.write(user_line("one", new_id()))
    await cli.until(StreamEvent, is_delta)
    urgent = json.loads(user_line("now", new_id())) | {"priority": "now"}
    cli.process.write(json.dumps(urgent).encode() + b"\n")
    _, first = await cli.until(Result)
    assert "interrupted" == first.ending


@relied_on
async def test_turns_of_two_processes_do_not_meet(chat: Chat) -> None:
    both = [await chat("s1"), await chat("s2")]
    await asyncio.gather(*(ask(cli, f"I am {number}") for number, cli in enumerate(both)))
    answers = await asyncio.gather(*(ask(cli, "recall") for cli in both))
    assert ["I am 0", "I am 1"] == [result.text for _, result in answers]


@real_only("without `--include-partial-messages`")
async def test_without_partial_messages_there_are_no_deltas(chat: Chat) -> None:
    plan = chat.launch("s1", session=new_id())
    argv = tuple(flag for flag in plan.argv if flag != "--include-partial-messages")
    cli = await chat.start(type(plan)(argv, plan.env, plan.cwd, plan.folders))
    heard, result = await ask(cli, "Hi")
    assert ([], "completed") == (types(heard), result.ending)
    assert ["Hi"] == user_texts(chat.api.asked[0])
