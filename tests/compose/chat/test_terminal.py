"""`warmwire chat` in a real terminal, against an edge that really serves and a worker that a test moves."""

from __future__ import annotations

import json
import re
import stat
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.chaos_proxy import cutting
from tests.client import eventually
from tests.compose.terminal import Terminal, in_terminal
from tests.edge.fake_worker import FakeTurn, FakeWorker, begun
from tests.edge.wire import Wire
from tests.system.cluster import free_ports

QUICK = {"WARMWIRE_FIRST_PAUSE": "0.01", "WARMWIRE_LONGEST_PAUSE": "0.05"}
INTERRUPT, LEAVE, UP, ENTER, ALT_ENTER = "\x03", "\x04", "\x1b[A", "\r", "\x1b\r"
Opened = Callable[..., Coroutine[Any, Any, Terminal]]


@pytest.fixture
async def chat(wire: Wire, tmp_path: Path) -> AsyncIterator[Opened]:
    """Starts `warmwire chat` in a terminal; returns once it asks for a message."""
    async with AsyncExitStack() as stack:

        async def opened(*arguments: str, port: int = wire.port, prompts: int = 1, **how: Any) -> Terminal:
            url = f"http://127.0.0.1:{port}"
            command = (sys.executable, "-m", "warmwire.compose", "chat", "--url", url, *arguments)
            environment = QUICK | how.pop("environment", {})
            terminal = await stack.enter_async_context(in_terminal(command, environment, tmp_path, **how))
            await terminal.prompts(prompts)
            return terminal

        yield opened


def session_of(terminal: Terminal) -> str:
    """The session that it says it is in."""
    (found,) = re.findall(r"^session (\S+)$", terminal.text, re.MULTILINE)
    return str(found)


async def test_markdown_grows_and_each_answer_stands_once(chat: Opened, worker: FakeWorker) -> None:
    terminal = await chat()
    terminal.type("Hello" + ENTER)
    turn = await begun(worker, "A **bo", "ld** be")
    await terminal.until("A bold be")
    await turn.delta("ginning.\n\n- one\n- two\n\n```python\nprint(1)\n")
    await terminal.until("print(1)")
    await turn.delta("```\n\nThe end.")
    await turn.complete()
    await terminal.prompts(2)
    lines = [line.strip() for line in terminal.shown if line.strip()]
    assert lines[2:] == ["› Hello", "A bold beginning.", "• one", "• two", "print(1)", "The end.", "›"]
    terminal.type("Again" + ENTER)
    await (await begun(worker, "Again.")).complete()
    await terminal.prompts(3)
    assert 1 == terminal.text.count("A bold beginning.") == terminal.text.count("\nAgain.")
    terminal.type(LEAVE)
    assert await terminal.end() == 0


async def test_an_answer_that_is_longer_than_the_screen_stands_once(chat: Opened, worker: FakeWorker) -> None:
    terminal = await chat(columns=60, lines=12)
    terminal.type("Tell me" + ENTER)
    turn = await begun(worker)
    paragraphs = [f"Paragraph {number} has **some** words.\n\n" for number in range(30)]
    code = ["```text\n", *(f"code {number}\n" for number in range(40)), "```\n\n"]
    rows = ["| a | b |\n|---|---|\n", *(f"| row {number} | x |\n" for number in range(30)), "\n"]
    parts = [*paragraphs, *code, *rows, "The end."]
    for number, part in enumerate(parts):
        await turn.delta(part)
        if number % 10 == 5 and part in (*paragraphs, *code, *rows):  # the screen has been drawn in between
            await terminal.until(part.split(" has")[0].strip("| x\n`"))
    await turn.complete()
    await terminal.prompts(2)
    shown = [line.strip() for line in terminal.shown]
    expected = [f"Paragraph {number} has some words." for number in range(30)]
    expected += [f"code {number}" for number in range(40)]
    expected += [f"row {number}" for number in range(30)]
    found = [re.sub(r"\s+x$", "", line) for line in shown]
    assert expected == [line for line in found if re.match("Paragraph|code|row", line)]
    assert 1 == shown.count("The end.")


async def test_what_would_command_the_terminal_is_text(chat: Opened, worker: FakeWorker) -> None:
    for number, arguments in enumerate(([], ["--plain"])):
        terminal = await chat(*arguments)
        terminal.type("Hello" + ENTER)
        await (await begun(worker, "\x1b]0;title\x07 \x1b[2J\x9b31m be", "fore \u202eafter")).complete()
        await terminal.prompts(2)
        assert "]0;title [2J31m before after" in terminal.text, number
        assert b"\x1b]0" not in terminal.raw
        assert b"\x1b[2J" not in terminal.raw


async def test_so_it_is_where_one_message_is_answered_to_a_terminal(chat: Opened, worker: FakeWorker) -> None:
    terminal = await chat("--print", "Hello", prompts=0)
    await (await begun(worker, "\x1b]0;title\x07 \x1b[2Jbe", "fore")).complete()
    assert await terminal.end() == 0
    await terminal.until("]0;title [2Jbefore")
    assert b"\x1b" not in terminal.raw


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
async def test_without_colours_it_is_the_text_as_it_comes(
    chat: Opened, worker: FakeWorker, environment: dict[str, str]
) -> None:
    terminal = await chat(environment=environment)
    terminal.type("Hello" + ENTER)
    turn = await begun(worker, "A **bo")
    await terminal.until("A **bo")
    await turn.delta("ld** word")
    await turn.complete()
    await terminal.until("A **bold** word\n›")


async def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(chat: Opened, worker: FakeWorker) -> None:
    terminal = await chat()
    terminal.type("Hello" + ENTER)
    turn = await begun(worker, "so far")
    await terminal.until("so far")
    terminal.type(INTERRUPT)
    await terminal.until("interrupting; Ctrl-C again leaves")
    await eventually(lambda: worker.interrupts == [turn.id], "the turn is stopped")
    await turn.interrupted()
    await terminal.prompts(2)
    assert "so far\n\n(interrupted)" in terminal.text
    terminal.type("More" + ENTER)
    await (await begun(worker, "Here.")).complete()
    await terminal.prompts(3)


async def test_ctrl_c_twice_leaves_an_answer_at_once(chat: Opened, worker: FakeWorker) -> None:
    terminal = await chat()
    terminal.type("Hello" + ENTER)
    turn = await begun(worker, "so far")
    await terminal.until("so far")
    terminal.type(INTERRUPT)
    await terminal.until("interrupting")
    await eventually(lambda: worker.interrupts == [turn.id], "the turn is stopped")
    terminal.type(INTERRUPT)
    assert await terminal.end() == 130
    await eventually(lambda: terminal.raw.endswith(b"\x1b[?2004l"), "its last word")
    assert "so far" in terminal.text


async def test_ctrl_c_at_the_prompt_clears_the_line_and_twice_leaves(chat: Opened) -> None:
    terminal = await chat()
    terminal.type("not this" + INTERRUPT)
    await terminal.until("› Ctrl-C again leaves")
    terminal.type("nor this")
    await terminal.until("› nor this")
    terminal.type(INTERRUPT)
    await terminal.until("› Ctrl-C again leaves")
    terminal.type(INTERRUPT)
    assert await terminal.end() == 0


async def test_several_lines_are_one_message(chat: Opened, worker: FakeWorker) -> None:
    terminal = await chat()
    terminal.paste("one\ntwo\n")
    await terminal.until("two")
    terminal.type("three\\" + ENTER + "four" + ALT_ENTER + "five" + ENTER)
    turn = await begun(worker, "Hi")
    assert turn.message.content == "one\ntwo\nthree\nfour\nfive"
    await terminal.until("Hi")
    terminal.paste("six\nseven\n")
    await turn.complete()
    await terminal.until("seven")
    terminal.type(ENTER)
    assert (await begun(worker)).message.content == "six\nseven\n"


async def test_what_was_typed_is_there_next_time(chat: Opened, worker: FakeWorker, tmp_path: Path) -> None:
    worker.answer_all("Hi")
    terminal = await chat()
    terminal.type("first one\\" + ENTER + "goes on" + ENTER)
    await terminal.prompts(2)
    terminal.type(LEAVE)
    assert await terminal.end() == 0
    history = tmp_path / "warmwire" / "chat" / "history.jsonl"
    assert (stat.S_IMODE(history.stat().st_mode), stat.S_IMODE(history.parent.stat().st_mode)) == (
        0o600,
        0o700,
    )
    terminal = await chat()
    terminal.type(UP)
    await terminal.until("› first one\n  goes on")
    terminal.type(INTERRUPT + INTERRUPT)
    assert await terminal.end() == 0
    before = history.read_bytes()
    terminal = await chat("--no-history")
    terminal.type(UP + "secret" + ENTER)
    await terminal.prompts(2)
    assert "first one" not in terminal.text
    assert history.read_bytes() == before


async def test_a_session_is_shown_and_what_runs_is_followed(
    chat: Opened, worker: FakeWorker, wire: Wire
) -> None:
    body = {"session_id": "s1", "message": "First?"}
    await wire.send("POST", "/v1/sessions/s1/messages", body)
    await (await begun(worker, "The **first** answer.")).complete()
    await wire.send("POST", "/v1/sessions/s1/messages", {**body, "message": "Second?"})
    turn = await begun(worker, "one ")
    terminal = await chat("--session", "s1", prompts=2)  # those of both messages
    await terminal.until("one")
    await turn.delta("two ")
    await turn.delta("three")
    await turn.complete()
    await terminal.prompts(3)
    lines = [line for line in terminal.shown if line]
    assert lines[2:] == ["› First?", "The first answer.", "› Second?", "one two three", "›"]
    terminal.type(LEAVE)
    assert await terminal.end() == 0
    again = await chat("--continue", prompts=3)
    assert "s1" == session_of(again)
    assert "one two three" in again.text
    again.type("Third?" + ENTER)
    assert "s1" == (await begun(worker)).session_id


async def test_commands(chat: Opened, worker: FakeWorker) -> None:
    terminal = await chat()
    first = session_of(terminal)
    for number, (typed, seen) in enumerate(
        [
            ("/help", "/quit             leave"),
            ("/nothing", "there is no /nothing; /help shows"),
            ("/model opus", "model opus"),
            ("/session a.b", "warmwire: session: must be 1 to 64"),
            ("/session s2", "session s2"),
        ],
        2,
    ):
        terminal.type(typed + ENTER)
        await terminal.prompts(number)
        assert seen in terminal.text
    terminal.type("//compact" + ENTER)
    turn = await begun(worker, "Hi")
    assert ("/compact", "s2", "opus") == (turn.message.content, turn.session_id, turn.message.options.model)
    await turn.complete()
    await terminal.prompts(7)
    terminal.type("/new" + ENTER)
    await terminal.prompts(8)
    terminal.type("Hello" + ENTER)
    assert (await begun(worker)).session_id not in (first, "s2")


async def test_a_failure_is_said_and_the_chat_goes_on(chat: Opened, worker: FakeWorker) -> None:
    terminal = await chat()
    terminal.type("Hello" + ENTER)
    await (await begun(worker, "so far")).fail("overloaded", "The API is overloaded.")
    await terminal.prompts(2)
    assert "so far\n\nwarmwire: The API is overloaded. (overloaded)\n›" in terminal.text
    terminal.type("/quit" + ENTER)
    assert await terminal.end() == 0


def question(turn: FakeTurn, request: str, summary: str = "ls -la") -> bytes:
    """The CLI asks."""
    asked = {"type": "permission_requested", "turn": turn.id, "request": request, "tool": "Bash"}
    return json.dumps(
        {**asked, "summary": summary, "input": {"command": summary}, "within_ms": 60000}
    ).encode()


async def answered(worker: FakeWorker, times: int) -> None:
    """Wait until so many questions are answered."""
    await eventually(lambda: len(worker.answers) == times, f"{times} answers")


async def test_questions_are_asked_and_answered(chat: Opened, worker: FakeWorker) -> None:
    terminal = await chat()
    terminal.type("Hello" + ENTER)
    turn = await begun(worker, "Let me look.")
    said = [("y", True, None), ("n not today", False, "not today"), ("", False, None)]
    for number, (typed, allow, reason) in enumerate(said, 1):
        await turn.publish(question(turn, f"q{number}", f"ls {number}"))
        await terminal.until(f"Bash wants: ls {number}")
        await terminal.until("Allow it?", number)
        terminal.type(typed + ENTER)
        await answered(worker, number)
        assert (allow, reason) == (worker.answers[-1].allow, worker.answers[-1].reason)
    await turn.publish(question(turn, "q4"))
    await terminal.until("Allow it?", 4)
    resolved = {"type": "permission_resolved", "turn": turn.id, "request": "q4", "outcome": "allowed"}
    await turn.publish(json.dumps(resolved).encode())
    await turn.delta(" Done.")
    await turn.complete()
    await terminal.prompts(2)
    assert 3 == len(worker.answers)
    assert 1 == terminal.text.count("Let me look. Done.")


async def test_a_connection_that_breaks_is_made_again_without_a_word_twice(
    chat: Opened, worker: FakeWorker, wire: Wire
) -> None:
    (port,) = free_ports(1)
    async with cutting("127.0.0.1", wire.port, cuts=0, most=1, at=port) as whole:
        terminal = await chat(port=whole.port)
        terminal.type("Hello" + ENTER)
        turn = await begun(worker, "word0 ")
        await terminal.until("word0")
    await terminal.until("reconnecting…")
    async with cutting("127.0.0.1", wire.port, cuts=20, most=600, seed=1, at=port) as proxy:
        number = 0
        while proxy.left:
            number += 1
            await turn.delta(f"word{number} ")
            await terminal.until(f"word{number}")
        await turn.complete()
        await terminal.prompts(2)
        words = re.findall(r"word\d+", terminal.text)
        assert [f"word{each}" for each in range(number + 1)] == words
        assert "reconnecting" not in terminal.text
        terminal.type(LEAVE)
        assert await terminal.end() == 0


async def test_a_turn_that_is_begun_again_otherwise_says_so(chat: Opened, worker: FakeWorker) -> None:
    terminal = await chat()
    terminal.type("Hello" + ENTER)
    turn = await begun(worker, "one ")
    await terminal.until("one")
    reset = {"type": "turn_reset", "turn": turn.id, "attempt": 1, "reason": "test", "message": 0}
    await turn.publish(json.dumps(reset).encode())
    await turn.publish(b'{"type":"message_start","message":{"id":"msg_1","role":"assistant"}}')
    await turn.delta("other ")
    await turn.delta("words")
    await turn.complete()
    await terminal.prompts(2)
    assert "the answer begins again; what is above of it is void" in terminal.text
    assert "other words\n\n›" in terminal.text


async def test_tools_are_named_between_the_pieces_of_an_answer(chat: Opened, worker: FakeWorker) -> None:
    terminal = await chat()
    terminal.type("Hello" + ENTER)
    turn = await begun(worker, "Let me look.")
    used = {"type": "tool_started", "turn": turn.id, "name": "Bash", "id": "t1", "summary": "ls"}
    await turn.publish(json.dumps(used).encode())
    failed = {"type": "tool_finished", "turn": turn.id, "id": "t1", "is_error": True, "summary": "no"}
    await turn.publish(json.dumps(failed).encode())
    await turn.publish(b'{"type":"message_start","message":{"id":"msg_2","role":"assistant"}}')
    await turn.delta("It is empty.")
    await turn.complete()
    await terminal.prompts(2)
    assert "Let me look.\n\n• Bash ls\n\n• failed: no\n\nIt is empty.\n\n›" in re.sub(
        r"(• .*)\n(?!\n)", r"\1\n\n", terminal.text
    )
