"""`warmwire chat` as a process, against an edge that really serves."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from .conftest import Start
from .fake_worker import FakeWorker
from .tokens import token, with_secret
from .wire import Wire
from tests.client import eventually
from tests.conftest import SECONDS


async def chat(wire: Wire, *arguments: str) -> Process:
    """`warmwire chat` with these arguments."""
    command = (sys.executable, "-m", "warmwire.compose", "chat", "--url", f"http://127.0.0.1:{wire.port}")
    return await asyncio.create_subprocess_exec(*command, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE)


async def read(process: Process, size: int) -> str:
    """That many bytes of stdout, as soon as they are there."""
    assert process.stdout is not None
    async with asyncio.timeout(10 * SECONDS):
        return (await process.stdout.readexactly(size)).decode()


async def test_one_message_prints_the_answer_as_it_is_written(wire: Wire, worker: FakeWorker) -> None:
    process = await chat(wire, "--session", "s1", "--print", "Hello")
    turn = await worker.next_turn()
    assert ("s1", "Hello") == (turn.session_id, turn.message.content)
    await turn.start()
    for word in ("one ", "two ", "three"):
        await turn.delta(word)
        assert await read(process, len(word)) == word
    await turn.complete()
    assert await process.communicate() == (b"\n", b"")
    assert process.returncode == 0


async def test_lines_are_messages_of_one_session(wire: Wire, worker: FakeWorker) -> None:
    worker.answer_all("Hi ", "there")
    process = await chat(wire)
    out, err = await process.communicate(b"one\n\ntwo\n")
    assert (b"Hi there\nHi there\n", b"", 0) == (out, err, process.returncode)


async def test_the_token_for_an_edge_that_wants_one_is_in_the_environment(
    start: Start, worker: FakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = (await start(**with_secret(tmp_path))).wire
    worker.answer_all("Hi")
    refused = await chat(wire, "--print", "Hello")
    assert await refused.communicate() == (
        b"",
        b"warmwire: a bearer token is needed in the Authorization header\n",
    )
    monkeypatch.setenv("WARMWIRE_ACCESS_TOKEN", token())
    process = await chat(wire, "--print", "Hello")
    assert await process.communicate() == (b"Hi\n", b"")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--session", "a.b", "--print", "Hello"], 1, "session_id must be 1 to 64 characters"),
        (["--print", " "], 1, "message must not be empty"),
        (["--url", "http://127.0.0.1:1", "--print", "Hello"], 1, "no answer from http://127.0.0.1:1"),
        (["--url", "localhost", "--print", "Hello"], 2, "must begin with http:// or https://"),
    ],
)
async def test_what_cannot_be_is_one_line_and_an_exit_code(
    wire: Wire, arguments: list[str], code: int, text: str
) -> None:
    process = await chat(wire, *arguments)
    out, err = await process.communicate()
    assert (b"", code) == (out, process.returncode)
    assert err.decode().startswith("warmwire: ")
    assert text in err.decode()
    assert err.count(b"\n") == 1


async def test_a_turn_that_fails_says_why(wire: Wire, worker: FakeWorker) -> None:
    process = await chat(wire, "--print", "Hello")
    turn = await worker.next_turn()
    await turn.start()
    await turn.fail("overloaded", "The API is overloaded.")
    _, err = await process.communicate()
    assert (b"warmwire: The API is overloaded. (overloaded)\n", 1) == (err, process.returncode)


async def test_ctrl_c_stops_the_answer(wire: Wire, worker: FakeWorker) -> None:
    process = await chat(wire, "--print", "Hello")
    turn = await worker.next_turn()
    await turn.start()
    await turn.delta("one")
    assert await read(process, 3) == "one"
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (b"", b"", 130) == (out, err, process.returncode)
    await eventually(lambda: worker.interrupts == [turn.id], "the turn is stopped")


async def test_a_broken_connection_is_made_again(start: Start, worker: FakeWorker) -> None:
    serves = await start()
    process = await chat(serves.wire, "--print", "Hello")
    turn = await worker.next_turn()
    await turn.start()
    await turn.delta("one ")
    assert await read(process, 4) == "one "
    serves.edge.end_streams()
    await turn.delta("two")
    await turn.complete()
    assert await process.communicate() == (b"two\n", b"")
