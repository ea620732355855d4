"""`warmwire chat` in scripts: as a process without a terminal, against an edge that really serves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from tests.client import eventually
from tests.conftest import SECONDS
from tests.edge.access.tokens import token, with_secret
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeTurn, FakeWorker, begun
from tests.edge.wire import Wire

CHAT = (sys.executable, "-m", "warmwire.compose", "chat")


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


async def run(*arguments: str, stdout: int = PIPE) -> Process:
    """`warmwire chat` with these arguments."""
    return await asyncio.create_subprocess_exec(*CHAT, *arguments, stdin=PIPE, stdout=stdout, stderr=PIPE)


async def chat(wire: Wire, *arguments: str, stdout: int = PIPE) -> Process:
    """The same, to an edge."""
    return await run("--url", f"http://127.0.0.1:{wire.port}", *arguments, stdout=stdout)


async def said(process: Process, stdin: bytes = b"") -> tuple[str, str, int | None]:
    """What it says to the end: stdout, stderr, exit code."""
    async with asyncio.timeout(30 * SECONDS):
        out, err = await process.communicate(stdin)
    return out.decode(), err.decode(), process.returncode


async def read(process: Process, size: int) -> str:
    """That many bytes of stdout, as soon as they are there."""
    assert process.stdout is not None
    async with asyncio.timeout(10 * SECONDS):
        return (await process.stdout.readexactly(size)).decode()


async def test_one_message_prints_the_answer_as_it_is_written(wire: Wire, worker: FakeWorker) -> None:
    process = await chat(wire, "--session", "s1", "--print", "Hello")
    turn = await begun(worker)
    assert ("s1", "Hello") == (turn.session_id, turn.message.content)
    for word in ("one ", "two ", "three"):
        await turn.delta(word)
        assert await read(process, len(word)) == word
    await turn.complete()
    assert ("\n", "", 0) == await said(process)


@pytest.mark.parametrize("arguments", [["--print", "--plain"], ["--print", "-"]])
async def test_stdin_is_the_message(wire: Wire, worker: FakeWorker, arguments: list[str]) -> None:
    process = asyncio.create_task(said(await chat(wire, *arguments), b"one\ntwo\n"))
    turn = await begun(worker, "Hi\n")
    assert turn.message.content == "one\ntwo\n"
    await turn.complete()
    assert ("Hi\n", "", 0) == await process


async def test_over_nats_it_is_the_same(nats_server: str, worker: FakeWorker) -> None:
    worker.answer_all("Hi ", "there")
    os.environ["WARMWIRE_PREFIX"] = worker.subjects.prefix
    try:
        process = await run("--nats", nats_server, "--print", "Hello")
    finally:
        del os.environ["WARMWIRE_PREFIX"]
    assert ("Hi there\n", "", 0) == await said(process)


async def test_what_is_asked_for_goes_with_the_message(wire: Wire, worker: FakeWorker) -> None:
    wishes = ["--model", "opus", "--profile", "p1", "--system-prompt", "Be short."]
    process = await chat(wire, *wishes, "--print", "Hello")
    turn = await begun(worker)
    options = turn.message.options
    assert ("opus", "p1", "Be short.") == (options.model, options.profile, options.system_prompt)
    await turn.complete()
    assert ("", "", 0) == await said(process)


async def test_events_a_line_have_their_turn_and_their_cursor(wire: Wire, worker: FakeWorker) -> None:
    process = await chat(wire, "--json", "--print", "Hello")
    turn = await begun(worker, "Hi")
    await turn.complete()
    out, err, code = await said(process)
    events = [json.loads(line) for line in out.splitlines()]
    assert ("", 0) == (err, code)
    assert ["turn_queued", "turn_started", "message_start", "content_block_start"] == [
        event["type"] for event in events[:4]
    ]
    assert {turn.id} == {event["turn"] for event in events}
    assert events[4]["delta"] == {"type": "text_delta", "text": "Hi"}
    assert "turn_completed" == events[-1]["type"]
    cursors = [event["cursor"] for event in events]
    assert len(set(cursors)) == len(cursors) == 6
    resumed = await wire.resume(turn.session_id, cursors[3])
    assert "Hi" == (await resumed.event())[1]["delta"]["text"]


async def test_lines_are_messages_of_one_session(wire: Wire, worker: FakeWorker) -> None:
    worker.answer_all("Hi ", "there")
    assert ("Hi there\nHi there\n", "", 0) == await said(await chat(wire), b"one\n\ntwo")


async def test_each_line_is_answered_before_the_next_one_is_there(wire: Wire, worker: FakeWorker) -> None:
    worker.answer_all("Hi")
    process = await chat(wire)
    assert process.stdin is not None
    for line in (b"one\n", b"two\n"):
        process.stdin.write(line)
        assert await read(process, 3) == "Hi\n"
    assert ("", "", 0) == await said(process)


async def test_a_line_that_fails_is_told_and_the_next_one_is_sent(wire: Wire, worker: FakeWorker) -> None:
    process = asyncio.create_task(said(await chat(wire), b"one\ntwo\n"))
    await (await begun(worker)).fail("overloaded", "The API is overloaded.")
    await (await begun(worker, "Hi")).complete()
    assert ("Hi\n", "warmwire: The API is overloaded. (overloaded)\n", 1) == await process


async def test_the_session_that_was_used_last_is_gone_on_with(wire: Wire, worker: FakeWorker) -> None:
    nothing = await said(await chat(wire, "--continue", "--print", "Hello"))
    assert ("", 2) == (nothing[0], nothing[2])
    assert "--continue: no session of http://127.0.0.1" in nothing[1]
    for arguments in (["--session", "s7"], ["--continue"]):
        process = await chat(wire, *arguments, "--print", "Hello")
        turn = await begun(worker)
        assert turn.session_id == "s7"
        await turn.complete()
        assert (await said(process))[2] == 0


async def test_nothing_is_kept_where_that_is_not_wanted(
    wire: Wire, worker: FakeWorker, tmp_path: Path
) -> None:
    worker.answer_all("Hi")
    assert (await said(await chat(wire, "--no-history", "--print", "Hello")))[2] == 0
    assert not (tmp_path / "state").exists()


async def test_what_cannot_be_kept_is_said_and_the_answer_comes(
    wire: Wire, worker: FakeWorker, tmp_path: Path
) -> None:
    worker.answer_all("Hi")
    (tmp_path / "state").write_text("no folder")
    out, err, code = await said(await chat(wire, "--print", "Hello"))
    assert ("Hi\n", 0) == (out, code)
    assert err.startswith("warmwire: nothing of this chat is kept: ")


async def test_the_token_for_an_edge_that_wants_one_is_in_the_environment(
    start: Start, worker: FakeWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = (await start(**with_secret(tmp_path))).wire
    worker.answer_all("Hi")
    out, err, code = await said(await chat(wire, "--print", "Hello"))
    assert ("", 1) == (out, code)
    assert "a bearer token is needed in the Authorization header\n" in err
    monkeypatch.setenv("WARMWIRE_ACCESS_TOKEN", token())
    assert ("Hi\n", "", 0) == await said(await chat(wire, "--print", "Hello"))


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--session", "a.b", "--print", "Hello"], 2, "session_id: must be 1 to 64 characters"),
        (["--print", " "], 2, "message: must not be empty"),
        (["--url", "http://127.0.0.1:1", "--print", "Hello"], 3, "no answer from http://127.0.0.1:1"),
        (
            ["--url", "http://127.0.0.1:1", "--print", "Hello"],
            3,
            "; start `warmwire up`, or say where one runs",
        ),
        (["--url", "localhost", "--print", "Hello"], 2, "must begin with http:// or https://"),
        (["--nats", "nats://127.0.0.1:1"], 2, "--url and --nats: one of the two"),
        (["--continue", "--session", "s1"], 2, "--continue and --session: one of the two"),
    ],
)
async def test_what_cannot_be_is_one_line_and_an_exit_code(
    wire: Wire, arguments: list[str], code: int, text: str
) -> None:
    out, err, found = await said(await chat(wire, *arguments))
    assert ("", code) == (out, found)
    assert err.startswith("warmwire: ")
    assert text in err
    assert err.count("\n") == 1


async def test_no_nats_there_is_nobody_to_reach() -> None:
    out, err, code = await said(await run("--nats", "nats://127.0.0.1:1", "--print", "Hello"))
    assert ("", 3) == (out, code)
    assert "no NATS server answers" in err


async def test_stdin_that_is_no_text_is_a_mistake(wire: Wire) -> None:
    assert ("", "warmwire: stdin: is no UTF-8: invalid start byte at byte 1\n", 2) == await said(
        await chat(wire, "--print"), b"a\xff"
    )


async def test_a_turn_that_fails_says_why_after_what_there_is(wire: Wire, worker: FakeWorker) -> None:
    process = await chat(wire, "--print", "Hello")
    await (await begun(worker, "so far")).fail("overloaded", "The API is overloaded.")
    assert ("so far\n", "warmwire: The API is overloaded. (overloaded)\n", 1) == await said(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_the_answer(wire: Wire, worker: FakeWorker, number: signal.Signals) -> None:
    process = await chat(wire, "--print", "Hello")
    turn = await begun(worker, "one")
    assert await read(process, 3) == "one"
    process.send_signal(number)
    assert ("\n", "(interrupting)\n", 128 + number) == await said(process)
    assert worker.interrupts == [turn.id]


async def test_an_answer_that_somebody_stopped_is_no_answer(wire: Wire, worker: FakeWorker) -> None:
    process = await chat(wire, "--print", "Hello")
    await (await begun(worker, "one")).interrupted()
    assert ("one\n", "", 130) == await said(process)


async def test_who_reads_no_further_stops_the_answer_quietly(wire: Wire, worker: FakeWorker) -> None:
    theirs, ours = os.pipe()
    process = await chat(wire, "--print", "Hello", stdout=ours)
    os.close(ours)
    turn = await begun(worker, "one\n")
    assert await asyncio.to_thread(os.read, theirs, 100) == b"one\n"
    os.close(theirs)
    await turn.delta("two\n")
    assert ("", "", 141) == await said_nowhere(process)
    await eventually(lambda: worker.interrupts == [turn.id], "the turn is stopped")


async def said_nowhere(process: Process) -> tuple[str, str, int | None]:
    """As ``said``, without a stdout."""
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.close()
    async with asyncio.timeout(30 * SECONDS):
        err = await process.stderr.read()
        return "", err.decode(), await process.wait()


async def test_a_broken_connection_is_made_again(start: Start, worker: FakeWorker) -> None:
    serves = await start()
    process = await chat(serves.wire, "--print", "Hello")
    turn = await begun(worker, "one ")
    assert await read(process, 4) == "one "
    serves.edge.end_streams()
    await turn.delta("two")
    await turn.complete()
    assert ("two\n", "", 0) == await said(process)


async def test_a_turn_that_is_begun_again_goes_on_where_it_says_the_same(
    wire: Wire, worker: FakeWorker
) -> None:
    process = await chat(wire, "--print", "Hello")
    turn = await begun(worker, "one ")
    await begin_again(turn)
    for delta in ("on", "e two"):
        await turn.delta(delta)
    await turn.complete()
    assert ("one two\n", "", 0) == await said(process)


async def test_text_that_is_void_is_a_failure_for_who_cannot_take_it_back(
    wire: Wire, worker: FakeWorker
) -> None:
    process = await chat(wire, "--print", "Hello")
    turn = await begun(worker, "one ")
    await begin_again(turn)
    await turn.delta("other")
    out, err, code = await said(process)
    assert ("one \n", 1) == (out, code)
    assert "what is above of it is void" in err


async def begin_again(turn: FakeTurn) -> None:
    """As after the loss of a worker."""
    reset = {"type": "turn_reset", "turn": turn.id, "attempt": 1, "reason": "test", "message": 0}
    await turn.publish(json.dumps(reset).encode())
    await turn.publish(b'{"type":"message_start","message":{"id":"msg_1","role":"assistant"}}')


@pytest.mark.parametrize("arguments", [[], ["--json"]])
async def test_a_question_is_answered_with_no_where_nobody_is(
    wire: Wire, worker: FakeWorker, arguments: list[str]
) -> None:
    process = await chat(wire, *arguments, "--print", "Hello")
    turn = await begun(worker)
    asked = {"type": "permission_requested", "turn": turn.id, "request": "q1", "tool": "Bash"}
    await turn.publish(json.dumps({**asked, "summary": "ls", "within_ms": 60000}).encode())
    if not arguments:
        await eventually(lambda: worker.answers, "an answer")
        assert ("q1", False) == (worker.answers[0].request, worker.answers[0].allow)
    await turn.delta("Hi")
    await turn.complete()
    out, err, code = await said(process)
    assert (0, bool(arguments)) == (code, "permission_requested" in out)
    assert err == ("" if arguments else "warmwire: Bash is not allowed: nobody is there to be asked\n")
    assert len(worker.answers) == (0 if arguments else 1)
