"""The plain dialect: its adapter, and a worker with a program that speaks it."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.messages import Interrupt
from warmwire.broker.wire.names import SessionKey
from warmwire.broker.wire.sealed import PoolKey, Token, seal
from warmwire.worker.app import Worker
from warmwire.worker.cli.launch import Spawning
from warmwire.worker.cli.lines import LineTooLong
from warmwire.worker.cli.program import cli_command
from warmwire.worker.cli.said import BadLine, Ignored, Line, Mirror, Result, StreamEvent, Usage
from warmwire.worker.cli.stream_json import StreamJson
from warmwire.worker.errors import ErrorCode

from tests.client import Asked, Client, eventually
from tests.conftest import SECONDS
from tests.worker.conftest import StartWorker

PLAIN = Path(__file__).parents[2] / "standin" / "plain_cli.py"
HERE = SessionKey("default", "s1")


# --- the adapter -------------------------------------------------------------------------------------------


def event(type_: str, **fields: object) -> bytes:
    return json.dumps({"type": type_, **fields}).encode()


def delta(text: str) -> bytes:
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def read(adapter: StreamJson, *lines: bytes) -> list[Line]:
    return [said for line in lines for said in adapter.read(line)]


def results(said: Sequence[Line]) -> list[Result]:
    return [line for line in said if isinstance(line, Result)]


def test_a_message_goes_in_as_the_guide_has_it() -> None:
    assert b'{"type":"user_message","content":"Hello"}\n' == StreamJson().user_line("Hello", "u")


def test_the_end_of_the_message_is_the_end_of_the_turn() -> None:
    lines = [
        event("message_start", message={"id": "m1", "usage": {"input_tokens": 7}}),
        event("content_block_start", index=0),
        delta("Hello "),
        delta("there"),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}),
        event("message_stop"),
    ]
    said = read(StreamJson(), *lines)
    assert lines == [line.event for line in said if isinstance(line, StreamEvent)]
    (result,) = results(said)
    assert result is said[-1]
    assert ("completed", "Hello there", "end_turn") == (result.ending, result.text, result.stop_reason)
    assert Usage(input_tokens=7, output_tokens=2) == result.usage


def test_the_shortest_message_of_the_guide_is_one() -> None:
    (result,) = results(read(StreamJson(), event("message_start"), delta("!"), event("message_stop")))
    assert ("completed", "!", None) == (result.ending, result.text, result.stop_reason)


@pytest.mark.parametrize("reason", ["tool_use", "pause_turn"])
def test_a_message_for_a_tool_is_followed_by_another(reason: str) -> None:
    adapter = StreamJson()
    first = event("message_start"), delta("Hm."), event("message_delta", delta={"stop_reason": reason})
    assert [] == results(read(adapter, *first, event("message_stop")))
    assert ["Yes."] == [
        r.text for r in results(read(adapter, event("message_start"), delta("Yes."), event("message_stop")))
    ]


def test_what_was_said_is_a_transcript() -> None:
    adapter = StreamJson()
    adapter.user_line("Hello", "u1")
    said = read(adapter, event("message_start", message={"id": "m1"}), delta("Hi!"), event("message_stop"))
    (mirror,) = [line for line in said if isinstance(line, Mirror)]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Hi!"}], "id": "m1"}
    assert [
        {"type": "user", "uuid": "u1", "message": {"role": "user", "content": "Hello"}},
        {"type": "assistant", "message": answer},
    ] == list(map(json.loads, mirror.entries))


def test_the_tokens_of_all_messages_of_a_turn_count_and_those_of_the_turn_before_do_not() -> None:
    adapter = StreamJson()
    for expected in (Usage(input_tokens=10, output_tokens=6), Usage(input_tokens=10, output_tokens=6)):
        adapter.user_line("Hello", "u")
        said: list[Line] = []
        for read_, written, reason in ((7, 2, "tool_use"), (3, 4, "end_turn")):
            said += read(
                adapter,
                event("message_start", message={"usage": {"input_tokens": read_}}),
                event("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": written}),
                event("message_stop"),
            )
        assert [expected] == [result.usage for result in results(said)]


def test_an_event_is_told_with_its_type() -> None:
    lines = [event("message_start"), delta("x"), event("content_block_stop"), event("message_stop")]
    told = [line.type for line in read(StreamJson(), *lines) if isinstance(line, StreamEvent)]
    assert ["message_start", "content_block_delta", "content_block_stop", "message_stop"] == told


def test_what_a_process_is_fixed_to_is_said_at_its_start() -> None:
    bare = StreamJson().launch(["cli"], Spawning(folder=Path("/f"), environment={}))
    assert ("cli", "--input-format=stream-json", "--output-format=stream-json") == bare.argv
    chosen = Spawning(folder=Path("/f"), environment={}, model="m", system_prompt="p", token="secret")
    launched = StreamJson().launch(["cli"], replace(chosen, resume=Path("/f/history")))
    assert (*bare.argv, "--model=m", "--system-prompt=p") == launched.argv
    added = {name: value for name, value in launched.env.items() if name not in bare.env}
    assert {"WARMWIRE_HISTORY": "/f/history", "CLAUDE_CODE_OAUTH_TOKEN": "secret"} == added


@pytest.mark.parametrize(
    ("type_", "code"),
    [
        ("overloaded_error", ErrorCode.OVERLOADED),
        ("authentication_error", ErrorCode.AUTH_FAILED),
        ("unheard_of", ErrorCode.API_ERROR),
    ],
)
def test_an_error_ends_the_turn_in_its_code(type_: str, code: ErrorCode) -> None:
    (result,) = results(read(StreamJson(), event("error", error={"type": type_, "message": "why"})))
    assert ("failed", code, "why", "") == (result.ending, result.error, result.detail, result.text)


def test_what_does_not_matter_is_ignored_and_what_cannot_be_read_is_said() -> None:
    adapter = StreamJson()
    assert [Ignored("ping"), Ignored("")] == read(adapter, event("ping"), b" ")
    bad = read(adapter, b"{nonsense", b"[]", b'{"type":"message_stop\xff"}', LineTooLong(b"{"))
    assert [ErrorCode.BAD_LINE] * 3 + [ErrorCode.LINE_TOO_LONG] == [
        line.code for line in bad if isinstance(line, BadLine)
    ]


@given(
    st.lists(st.one_of(st.binary(max_size=50), st.sampled_from([delta("x"), event("message_stop"), b"{}"])))
)
def test_no_line_is_too_strange(lines: list[bytes]) -> None:
    for line in read(StreamJson(), *lines):
        assert isinstance(line, StreamEvent | Ignored | BadLine | Result | Mirror)


# --- with a program ----------------------------------------------------------------------------------------

Start = Callable[..., Awaitable[Worker]]


@pytest.fixture
def start(start_worker: StartWorker, tmp_path: Path) -> Start:
    """Starts workers with the program as their CLI."""

    def start_with(*flags: str, **more: object) -> Awaitable[Worker]:
        cli = " ".join([sys.executable, str(PLAIN), *flags])
        return start_worker(cli=cli, dialect="stream-json", data=tmp_path / "data", **more)

    return start_with


def ending(asked: Asked) -> str:
    return str(asked.events[-1].get("code") or asked.events[-1]["type"])


async def test_turns_run_and_the_process_remembers(client: Client, start: Start) -> None:
    await start()
    first = await client.ask("s1", "one")
    assert ("turn_completed", "You said: one") == (ending(first), first.text)
    assert "one" == (await client.ask("s1", "recall")).text


async def test_a_tool_is_within_the_turn(client: Client, start: Start) -> None:
    await start()
    asked = await client.ask("s1", "tool")
    assert ["turn_completed", 2] == [ending(asked), len(asked.of("message_stop"))]


async def test_an_error_is_followed_by_the_next_turn_in_the_same_process(
    client: Client, start: Start
) -> None:
    await start()
    await client.ask("s1", "one")
    assert "overloaded" == ending(await client.ask("s1", "error"))
    assert "one\nerror" == (await client.ask("s1", "recall")).text


async def test_a_new_process_finds_the_history(client: Client, start: Start) -> None:
    worker = await start()
    await client.ask("s1", "one")
    assert "cli_crashed" == ending(await client.ask("s1", "die"))
    assert "one" == (await client.ask("s1", "recall")).text
    await worker.stop()
    await start()
    assert "one\nrecall" == (await client.ask("s1", "recall")).text


@pytest.mark.parametrize(
    "flag", ["", "--polite", "--deaf"], ids=["ends by it", "ends its message", "is deaf"]
)
async def test_an_interrupt_is_a_signal(client: Client, start: Start, flag: str) -> None:
    await start(flag)
    asked = await client.send("s1", "long")
    await eventually(lambda: asked.text, "a first delta")
    request = Interrupt(turn=asked.turn).encode()
    await client.bus.request(client.subjects.control(HERE), request, 10 * SECONDS)
    await eventually(lambda: asked.end, "the end", deadline=15)
    assert "turn_interrupted" == ending(asked)
    assert "word" in asked.text
    assert "turn_completed" == ending(await client.ask("s1", "again"))


async def test_a_token_comes_by_environment_and_another_one_needs_another_process(
    client: Client, start: Start, tmp_path: Path
) -> None:
    key = PoolKey.new()
    (tmp_path / "pool.key").write_text(key.secret_text())
    (tmp_path / "pool.key").chmod(0o600)
    await start(pool_key_file=tmp_path / "pool.key")
    tokens = ["x" * 10, "x" * 10, "y" * 20]
    sealed = [seal(key.sealing, Token(token), HERE, 1 << 33) for token in tokens]
    asked = [await client.ask("s1", "token", credential=one) for one in sealed]
    assert ["10", "10", "20", "0"] == [one.text for one in (*asked, await client.ask("s1", "token"))]


@pytest.mark.parametrize("cli", ["emulator", "claude"])
def test_who_speaks_the_other_dialect_is_refused(cli: str) -> None:
    with pytest.raises(BadInput, match="dialect"):
        cli_command(cli, "stream-json")
