"""What the worker relies on in the real CLI, most of it documented nowhere; run against the stand-in API.

A new version of the CLI may come into the constraints only when all of this still holds.
"""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from warmwire.worker import tree
from warmwire.worker.claude import (
    ADOPT,
    SET_MODEL,
    Assistant,
    ControlReply,
    ControlRequest,
    Init,
    Lifecycle,
    Mirror,
    Result,
    Retry,
    StreamEvent,
    adopt_line,
    allow_line,
    deny_line,
    initialize_line,
    interrupt_line,
    ready_line,
    session_of,
    set_model_line,
    user_line,
    wish,
)
from warmwire.worker.errors import ErrorCode
from warmwire.worker.launch import Launch, launch, transcript_path
from warmwire.worker.process import Exit

from tests.conftest import wait_for
from tests.standin.messages_api import DEFAULT_TEXT, Behaviour, Json, MessagesApi, in_thread, user_texts
from tests.worker.conftest import Running, Start

pytestmark = pytest.mark.claude

MODEL = "claude-sonnet-4-5"
SLOW = Behaviour(text="one two three four five six seven eight nine ten", rate=20)

Chat = Callable[..., Awaitable[Running]]


@pytest.fixture
async def api() -> AsyncIterator[MessagesApi]:
    async with MessagesApi() as served:
        yield served


def new_id() -> str:
    return str(uuid.uuid4())


def environment(url: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "made up"}


def launched(cli: Path, folder: Path, url: str, session: str, resume: Path | None = None) -> Launch:
    return launch(
        [str(cli)], folder=folder, session=session, environment=environment(url), model=MODEL, resume=resume
    )


@pytest.fixture
def chat(claude_cli: Path, start: Start, api: MessagesApi, tmp_path: Path) -> Chat:
    """Starts the real CLI for a session; each in a folder, and so in a HOME, of its own."""

    async def start_chat(folder: str = "s1", session: str = "", resume: Path | None = None) -> Running:
        return await start(launched(claude_cli, tmp_path / folder, api.url, session or new_id(), resume))

    return start_chat


async def ask(cli: Running, content: str | list[Json]) -> tuple[Sequence[object], Result]:
    """One turn: all that the CLI says, and the result."""
    cli.process.write(user_line(content, new_id()))
    return await cli.until(Result)


def text_of(heard: Sequence[object]) -> str:
    deltas = (json.loads(line.event).get("delta", {}) for line in heard if isinstance(line, StreamEvent))
    return "".join(delta.get("text", "") for delta in deltas)


def types(heard: Sequence[object]) -> list[str]:
    return [line.type for line in heard if isinstance(line, StreamEvent)]


def is_delta(line: StreamEvent) -> bool:
    return line.type == "content_block_delta"


# --- a turn ----------------------------------------------------------------------------------------------


async def test_it_is_ready_before_its_first_message(chat: Chat) -> None:
    cli = await chat()
    cli.process.write(initialize_line("i1"))
    heard, reply = await cli.until(ControlReply)
    assert ("i1", True) == (reply.request_id, reply.ok)
    assert [reply] == heard


async def test_the_order_of_a_turn(chat: Chat, api: MessagesApi, claude_cli: Path) -> None:
    api.behaviour = Behaviour(text="Hello, Grüße!", deltas=3)
    cli, message, session = await chat(session=(chosen := new_id())), new_id(), chosen
    cli.process.write(user_line("Hi", message))
    heard, result = await cli.until(Result)
    _, completed = await cli.until(Lifecycle)
    kinds = (Lifecycle, Init, StreamEvent, Assistant, Result)
    assert [
        Lifecycle(message, "queued"),
        Lifecycle(message, "started"),
        Init(session, MODEL, await version(claude_cli)),
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "Hello, Grüße!",  # the whole block, before its end
        "content_block_stop",
        "message_delta",
        "message_stop",
        result,
        Lifecycle(message, "completed"),
    ] == [shown(line) for line in [*heard, completed] if isinstance(line, kinds)]
    assert ("completed", "Hello, Grüße!", (message,)) == (result.ending, result.text, result.message_uuids)
    assert "Hello, Grüße!" == text_of(heard)


def shown(line: object) -> object:
    match line:
        case StreamEvent():
            return line.type
        case Assistant():
            return line.text
        case _:
            return line


async def version(cli: Path) -> str:
    child = await asyncio.create_subprocess_exec(cli, "--version", stdout=asyncio.subprocess.PIPE)
    said, _ = await child.communicate()
    return said.decode().split()[0]


async def test_deltas_come_one_by_one(chat: Chat, api: MessagesApi) -> None:
    api.behaviour = SLOW
    cli = await chat()
    cli.process.write(user_line("Hi", new_id()))
    heard, _ = await cli.until(StreamEvent, is_delta)
    assert "one " == text_of(heard)
    assert [] == [line for line in cli.raw if b'"text":"ten"' in line]


async def test_two_turns_in_one_process_keep_the_context(chat: Chat) -> None:
    cli = await chat()
    _, first = await ask(cli, "My name is Ada.")
    heard, second = await ask(cli, "recall")
    assert "My name is Ada." == text_of(heard) == second.text
    assert first.session_id == second.session_id
    assert first.usage.input_tokens == second.usage.input_tokens  # of the turn, not of the process
    assert first.cost_usd > second.cost_usd > 0


async def test_without_tools_a_request_holds_none(chat: Chat, api: MessagesApi) -> None:
    await ask(await chat(), "Hi")
    assert not api.asked[0].get("tools")
    assert len(json.dumps(api.asked[0])) < 5_000


@pytest.mark.parametrize(
    "text", ["/clear", "/cost", "/compact", "!id", "#note", "a\nb\n", "<b>é</b> \u2028 😀"]
)
async def test_a_message_is_delivered_verbatim(chat: Chat, api: MessagesApi, text: str) -> None:
    cli = await chat()
    _, before = await ask(cli, "first")
    _, after = await ask(cli, text)
    assert ["first", text] == user_texts(api.asked[-1])
    assert before.session_id == after.session_id


async def test_a_file_named_in_a_message_is_not_read(chat: Chat, api: MessagesApi, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    await asyncio.to_thread(secret.write_text, "the secret")
    await ask(await chat(), f"@{secret}")
    assert [f"@{secret}"] == user_texts(api.asked[0])
    assert "the secret" not in json.dumps(api.asked)


async def test_content_blocks_are_delivered(chat: Chat, api: MessagesApi) -> None:
    await ask(await chat(), [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])
    assert ["one", "two"] == user_texts(api.asked[0])


async def test_a_megabyte_passes(chat: Chat, api: MessagesApi) -> None:
    api.behaviour = Behaviour(text="y" * 1_000_000, deltas=1)
    text = "x" * 1_000_000
    heard, result = await ask(await chat(), text)
    assert [text] == user_texts(api.asked[0])
    assert api.behaviour.text == text_of(heard) == result.text


# --- resuming --------------------------------------------------------------------------------------------


async def test_mirrored_entries_alone_bring_a_session_back(chat: Chat, tmp_path: Path) -> None:
    cli = await chat(session=(session := new_id()))
    heard = [*(await ask(cli, "one"))[0], *(await ask(cli, 'two "\nlines"'))[0]]
    cli.process.kill()  # all that counts has been mirrored when the result comes
    past = await written(tmp_path / "elsewhere", entries(heard))
    _, result = await ask(await chat("elsewhere", resume=past), "recall")
    assert ('one\ntwo "\nlines"', session) == (result.text, result.session_id)


def entries(heard: Sequence[object]) -> list[bytes]:
    return [entry for line in heard if isinstance(line, Mirror) for entry in line.entries]


async def written(folder: Path, lines: list[bytes]) -> Path:
    path = transcript_path(folder, session_of(lines[-1]))

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(line + b"\n" for line in lines))

    await asyncio.to_thread(write)
    return path


def typed(lines: list[bytes]) -> list[str]:
    """What the user says in these entries."""
    found = (json.loads(line) for line in lines)
    return [entry["message"]["content"] for entry in found if entry["type"] == "user"]


async def test_a_resumed_session_knows_and_mirrors_nothing_else(chat: Chat, tmp_path: Path) -> None:
    cli = await chat()
    first, _ = await ask(cli, "one")
    await ask(cli, "lost with its worker")
    cli.process.kill()
    past = await written(tmp_path / "s1", entries(first))
    cli = await chat(resume=past)  # in the same folder, where files of the CLI say more
    second, _ = await ask(cli, "two")
    await ask(cli, "lost as well")
    cli.process.kill()
    assert ["two"] == typed(entries(second))
    past = await written(tmp_path / "s1", entries([*first, *second]))
    assert "one\ntwo" == (await ask(await chat(resume=past), "recall"))[1].text


async def test_a_transcript_of_another_name_is_mirrored_all_over_again(chat: Chat, tmp_path: Path) -> None:
    first, _ = await ask(await chat(), "one")
    past = await written(tmp_path / "s2", entries(first))
    other = await asyncio.to_thread(past.rename, past.with_name("other.jsonl"))
    second, _ = await ask(await chat("s2", resume=other), "two")
    assert ["one", "two"] == typed(entries(second))


async def test_a_transcript_that_is_not_there_ends_the_process(chat: Chat, tmp_path: Path) -> None:
    cli = await chat(resume=tmp_path / "nowhere.jsonl")
    _, result = await cli.until(Result)
    assert ("failed", ErrorCode.CLI_FAILED) == (result.ending, result.error)
    assert "No conversation found" in result.detail
    _, ended = await cli.until(Exit)
    assert 1 == ended.returncode


async def test_a_session_id_is_good_for_one_start(chat: Chat) -> None:
    session = new_id()
    cli = await chat(session=session)
    await ask(cli, "Hi")
    await cli.process.stop()
    _, ended = await (await chat(session=session)).until(Exit)
    assert 1 == ended.returncode
    assert "already in use" in ended.stderr


# --- interrupts ------------------------------------------------------------------------------------------


async def test_an_interrupt_ends_the_turn_and_not_the_process(chat: Chat, api: MessagesApi) -> None:
    api.behaviour = SLOW
    cli, message = await chat(), new_id()
    cli.process.write(user_line("Hi", message))
    await cli.until(StreamEvent, is_delta)
    cli.process.write(interrupt_line("r1"))
    heard, result = await cli.until(Result)
    assert ("interrupted", None) == (result.ending, result.error)
    assert ["r1"] == [line.request_id for line in heard if isinstance(line, ControlReply) and line.ok]
    assert (await cli.until(Lifecycle))[1] == Lifecycle(message, "cancelled")
    api.behaviour = Behaviour()
    assert "completed" == (await ask(cli, "Go on"))[1].ending


async def test_an_interrupt_ends_a_call_that_hangs(chat: Chat, api: MessagesApi) -> None:
    api.behaviour = Behaviour(hang_after=0)
    cli = await chat()
    cli.process.write(user_line("Hi", new_id()))
    await asyncio.to_thread(wait_for, lambda: api.asked, "the API has been asked")
    cli.process.write(interrupt_line("r1"))
    assert "interrupted" == (await cli.until(Result))[1].ending


async def test_an_interrupt_before_the_start_cancels_without_a_result(chat: Chat, api: MessagesApi) -> None:
    cli, message = await chat(), new_id()
    cli.process.write(user_line("Hi", message) + interrupt_line("r1"))
    heard, reply = await cli.until(ControlReply)
    assert [Lifecycle(message, "queued"), Lifecycle(message, "cancelled"), reply] == heard
    _, result = await ask(cli, "Next")
    assert ("completed", DEFAULT_TEXT) == (result.ending, result.text)
    assert [["Next"]] == [user_texts(body) for body in api.asked]


async def test_an_interrupt_without_a_turn_does_nothing(chat: Chat) -> None:
    cli = await chat()
    cli.process.write(interrupt_line("r1"))
    heard, reply = await cli.until(ControlReply)
    assert ([reply], True) == (heard, reply.ok)
    assert "completed" == (await ask(cli, "Hi"))[1].ending


# --- what may be said late -------------------------------------------------------------------------------


@pytest.fixture
def spare(claude_cli: Path, start: Start, api: MessagesApi, tmp_path: Path) -> Chat:
    """Starts the real CLI bound to nobody, as far as being ready."""

    async def start_spare() -> Running:
        cli = await start(
            launch([str(claude_cli)], folder=tmp_path / "spare", environment=environment(api.url))
        )
        cli.process.write(ready_line())
        await cli.until(ControlReply)
        return cli

    return start_spare


def prompt(body: Json) -> str:
    """The system prompt of a request: the last block, behind what the CLI says of itself."""
    return str(body["system"][-1]["text"])


async def test_a_spare_is_told_its_prompt_and_its_model(spare: Chat, api: MessagesApi) -> None:
    cli = await spare()
    cli.process.write(adopt_line("Talk like a heron.") + set_model_line(MODEL))
    heard, _ = await ask(cli, "Hi")
    assert [(ADOPT, True), (SET_MODEL, True)] == [
        (line.request_id, line.ok) for line in heard if isinstance(line, ControlReply)
    ]
    assert ("Talk like a heron.", MODEL) == (prompt(api.asked[0]), api.asked[0]["model"])
    assert ["Hi"] == user_texts(api.asked[0])


async def test_what_a_spare_is_told_at_once_waits_until_it_is_up(
    claude_cli: Path, start: Start, api: MessagesApi, tmp_path: Path
) -> None:
    cli = await start(launch([str(claude_cli)], folder=tmp_path, environment=environment(api.url)))
    cli.process.write(ready_line() + adopt_line("Talk like a heron.") + set_model_line(MODEL))
    await ask(cli, "Hi")
    assert ("Talk like a heron.", MODEL) == (prompt(api.asked[0]), api.asked[0]["model"])


async def test_only_the_first_initialize_sets_the_prompt(spare: Chat, api: MessagesApi) -> None:
    cli = await spare()
    cli.process.write(initialize_line("i1") + adopt_line("Talk like a heron."))
    await ask(cli, "Hi")
    assert "Talk like a heron." != prompt(api.asked[0])


async def test_an_adopted_conversation_is_resumed_with_its_prompt(
    spare: Chat, chat: Chat, api: MessagesApi, tmp_path: Path
) -> None:
    cli = await spare()
    cli.process.write(adopt_line("Talk like a heron."))
    heard, _ = await ask(cli, "one")
    past = await written(tmp_path / "elsewhere", entries(heard))
    await ask(await chat("elsewhere", resume=past), "two")
    assert ["one", "two"] == user_texts(api.asked[-1])
    assert "Talk like a heron." == prompt(api.asked[-1])


async def test_the_model_can_change_between_turns(chat: Chat, api: MessagesApi) -> None:
    cli = await chat()
    await ask(cli, "one")
    for model, text in (("claude-haiku-4-5", "two"), (None, "three")):
        cli.process.write(set_model_line(model))
        await ask(cli, text)
    first, second, third = api.asked  # and no request to see whether there is such a model
    assert (MODEL, "claude-haiku-4-5") == (first["model"], second["model"])
    assert third["model"] not in (MODEL, "claude-haiku-4-5")  # the CLI's own default, not what it began with
    assert ["one", "two", "three"] == user_texts(third)


async def test_a_frozen_process_goes_on(chat: Chat) -> None:
    cli = await chat()
    await ask(cli, "one")
    cli.process.freeze()
    cli.process.thaw()
    _, result = await ask(cli, "recall")
    assert "one" == result.text


@pytest.mark.parametrize(("allow", "made"), [(True, True), (False, False)])
async def test_a_tool_that_needs_leave_waits_for_the_answer(
    claude_cli: Path, start: Start, api: MessagesApi, tmp_path: Path, allow: bool, made: bool
) -> None:
    api.behaviour = Behaviour(tool="touch made-it")
    plain = launched(claude_cli, tmp_path / "s1", api.url, new_id())
    argv = tuple("--tools=Bash" if flag == "--tools=" else flag for flag in plain.argv)
    cli = await start(Launch(argv, plain.env, plain.cwd, plain.folders))
    cli.process.write(user_line("Hi", new_id()))
    _, asked = await cli.until(ControlRequest)
    wished = wish(asked)
    assert wished is not None
    assert ("Bash", "touch made-it") == (wished.tool, json.loads(wished.input)["command"])
    name = asked.request_id
    cli.process.write(allow_line(name, wished) if allow else deny_line(name, "no"))
    _, result = await cli.until(Result)
    assert ("completed", made) == (result.ending, (plain.cwd / "made-it").exists())


# --- failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "retries"),
    [
        (400, ErrorCode.INVALID_REQUEST, 0),
        (401, ErrorCode.AUTH_FAILED, 2),
        (403, ErrorCode.AUTH_FAILED, 0),
        (404, ErrorCode.MODEL_NOT_FOUND, 0),
        (413, ErrorCode.PROMPT_TOO_LONG, 0),
        (429, ErrorCode.RATE_LIMITED, 2),
        (500, ErrorCode.API_ERROR, 2),
        (529, ErrorCode.OVERLOADED, 2),
    ],
)
async def test_an_error_of_the_api_ends_the_turn_and_not_the_process(
    chat: Chat, api: MessagesApi, status: int, code: ErrorCode, retries: int
) -> None:
    api.behaviour = Behaviour(error=status)
    cli = await chat()
    heard, result = await ask(cli, "Hi")
    assert ("failed", code, status) == (result.ending, result.error, result.api_status)
    assert [status] * retries == [line.status for line in heard if isinstance(line, Retry)]
    assert [] == types(heard)
    assert [True] == [line.synthetic for line in heard if isinstance(line, Assistant)]
    api.behaviour = Behaviour()
    assert "completed" == (await ask(cli, "Again"))[1].ending


async def test_without_a_credential_no_call_is_made(
    claude_cli: Path, start: Start, api: MessagesApi, tmp_path: Path
) -> None:
    without = {"PATH": os.environ["PATH"], "ANTHROPIC_BASE_URL": api.url}
    cli = await start(
        launch([str(claude_cli)], folder=tmp_path / "s1", session=new_id(), environment=without)
    )
    _, result = await ask(cli, "Hi")
    assert ("failed", ErrorCode.AUTH_FAILED) == (result.ending, result.error)
    assert [] == api.asked


@pytest.mark.parametrize(
    "complaint",
    [
        "prompt is too long: 210000 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000",
    ],
)
async def test_a_conversation_too_long_is_told_from_other_bad_requests(
    chat: Chat, api: MessagesApi, complaint: str
) -> None:
    api.behaviour = Behaviour(error=400, complaint=complaint)
    _, result = await ask(await chat(), "Hi")
    assert ("failed", ErrorCode.PROMPT_TOO_LONG) == (result.ending, result.error)


async def test_a_stream_that_breaks_off_begins_again_from_its_start(chat: Chat, api: MessagesApi) -> None:
    api.once.append(Behaviour(text="lost words here", rate=20, cut_after=2))
    api.behaviour = Behaviour(text="The whole answer.")
    heard, result = await ask(await chat(), "Hi")
    (retry,) = [line for line in heard if isinstance(line, Retry)]
    before, after = heard[: heard.index(retry)], heard[heard.index(retry) :]
    assert "lost words " == text_of(before)
    assert "message_delta" not in types(before)
    assert "message_start" == types(after)[0]
    assert "The whole answer." == text_of(after) == result.text


async def test_after_the_last_retry_the_answer_comes_without_deltas(chat: Chat, api: MessagesApi) -> None:
    api.once.extend([Behaviour(text="lost words", rate=20, cut_after=1)] * 3)
    api.behaviour = Behaviour(text="The whole answer.")
    heard, result = await ask(await chat(), "Hi")
    assert 2 == len([line for line in heard if isinstance(line, Retry)])
    (answer,) = [line for line in heard if isinstance(line, Assistant)]
    assert ("The whole answer.", False) == (answer.text, answer.synthetic)
    assert answer.message_id not in message_ids(heard)
    assert ("completed", "The whole answer.") == (result.ending, result.text)


def message_ids(heard: Sequence[object]) -> list[str]:
    starts = [line for line in heard if isinstance(line, StreamEvent) and line.type == "message_start"]
    return [json.loads(line.event)["message"]["id"] for line in starts]


# --- processes -------------------------------------------------------------------------------------------


async def test_the_end_of_input_lets_the_turn_finish(chat: Chat, api: MessagesApi) -> None:
    api.behaviour = SLOW
    cli = await chat()
    cli.process.write(user_line("Hi", new_id()))
    await cli.until(StreamEvent, is_delta)
    ended = await cli.process.stop()
    _, result = await cli.until(Result)
    assert ("completed", SLOW.text, 0) == (result.ending, result.text, ended.returncode)


async def test_a_tool_is_within_reach_of_a_kill(
    claude_cli: Path, start: Start, api: MessagesApi, tmp_path: Path
) -> None:
    api.behaviour = Behaviour(tool="tail -f /dev/null")
    plain = launched(claude_cli, tmp_path / "s1", api.url, new_id())
    argv = ["--tools=Bash" if flag == "--tools=" else flag for flag in plain.argv]
    cli = await start(Launch((*argv, "--allowedTools=Bash"), plain.env, plain.cwd, plain.folders))
    cli.process.write(user_line("Hi", new_id()))
    pid = cli.process.pid
    await asyncio.to_thread(wait_for, lambda: any(map(is_tail, tree.descendants([pid]))), "the tool runs")
    tools = tree.descendants([pid])
    assert {os.getsid(tool) for tool in tools}.isdisjoint({pid})  # why the kill must walk the tree
    cli.process.kill()
    await cli.process.wait()
    await asyncio.to_thread(wait_for, lambda: not any(map(is_tail, tools)), "the tool is gone")


def is_tail(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"tail")
    except OSError:
        return False


WORKER = """
import asyncio, sys
from pathlib import Path
from tests.worker.test_claude_contract import launched, new_id
from warmwire.worker.claude import user_line
from warmwire.worker.process import CliProcess

async def main():
    def on_lines(lines):
        if any(b"content_block_delta" in line for line in lines):
            print(cli.pid, flush=True)

    cli, folder, url = sys.argv[1:]
    cli = await CliProcess.start(launched(Path(cli), Path(folder), url, new_id()), on_lines, print)
    cli.write(user_line("Hi", new_id()))
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a death signal")
def test_the_death_of_the_worker_ends_the_cli_in_mid_turn(claude_cli: Path, tmp_path: Path) -> None:
    with in_thread(Behaviour(text="word " * 1000, rate=20)) as api:
        argv = [sys.executable, "-c", WORKER, str(claude_cli), str(tmp_path / "s1"), api.url]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as worker:
            assert worker.stdout
            cli = int(worker.stdout.readline())
            worker.kill()
        wait_for(lambda: not is_claude(cli), "the CLI is gone")


def is_claude(pid: int) -> bool:
    try:
        return b"claude" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
