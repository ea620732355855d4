"""How processes end: by the end of their input, by signals, with their worker; and what their exit says."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from warmwire.worker.cli.claude_stdin import interrupt_line, user_line
from warmwire.worker.cli.program import find_claude
from warmwire.worker.cli.said import Result, StreamEvent
from warmwire.worker.machine import tree
from warmwire.worker.machine.process import Exit

from tests.conftest import require, wait_for
from tests.standin.messages_api import Behaviour, in_thread
from tests.worker.conftest import Running
from tests.worker.contract.chat import (
    SLOW,
    STUMBLE,
    Chat,
    ask,
    is_delta,
    new_id,
    on_one_loop,
    real_only,
    relied_on,
)


@on_one_loop
@relied_on
async def test_the_end_of_input_lets_the_turn_finish(chat: Chat) -> None:
    cli = await _in_mid_turn(chat, SLOW)
    ended = await cli.process.stop()
    _, result = await cli.until(Result)
    assert ("completed", 0) == (result.ending, ended.returncode)


async def _in_mid_turn(chat: Chat, plays: Behaviour, folder: str = "s1") -> Running:
    cli = await chat(folder, plays=plays)
    cli.process.write(user_line(STUMBLE, new_id()))
    await cli.until(StreamEvent, is_delta)
    return cli


@on_one_loop
@relied_on
async def test_signals_but_sigint_end_it_at_once_and_without_a_result(chat: Chat) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        cli = await _in_mid_turn(chat, Behaviour(hang_after=1), number.name)
        os.kill(cli.process.pid, number)
        heard, ended = await cli.until(Exit)
        assert 128 + number == ended.returncode
        assert [] == [line for line in heard if isinstance(line, Result)]


@on_one_loop
@relied_on
async def test_sigint_is_an_interrupt_and_the_end(chat: Chat) -> None:
    cli = await _in_mid_turn(chat, Behaviour(hang_after=1))
    cli.process.interrupt()
    _, result = await cli.until(Result)
    _, ended = await cli.until(Exit)
    assert ("interrupted", 0) == (result.ending, ended.returncode)


@on_one_loop
@relied_on
async def test_an_exit_of_1_says_only_that_the_last_turn_did_not_complete(chat: Chat) -> None:
    cli = await _in_mid_turn(chat, Behaviour(hang_after=1))
    cli.process.write(interrupt_line("r1"))
    await cli.until(Result)
    assert 1 == (await cli.process.stop()).returncode
    chat.play(Behaviour())
    cli = await chat("s2")
    await ask(cli, "Hi")
    assert 0 == (await cli.process.stop()).returncode


@on_one_loop
@real_only("tools, MCP, hooks, permissions, slash commands, `@file`, compaction")
async def test_a_tool_is_within_reach_of_a_kill(chat: Chat) -> None:
    plays = Behaviour(tool="tail -f /dev/null")
    cli = await chat(plays=plays, flags=["--tools=Bash", "--allowedTools=Bash"])
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
import asyncio, os, sys
from pathlib import Path
from warmwire.worker.cli.claude_stdin import user_line
from warmwire.worker.cli.launch import Spawning, launch
from warmwire.worker.machine.process import CliProcess

async def main():
    def on_lines(lines):
        if any(b"content_block_delta" in line for line in lines):
            print(cli.pid, flush=True)

    cli, folder, url, session = sys.argv[1:]
    environment = {"PATH": os.environ["PATH"], "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "made up"}
    plan = launch([cli], Spawning(folder=Path(folder), session=session, environment=environment))
    cli = await CliProcess.start(plan, on_lines, print)
    cli.write(user_line("Hi", session))
    await asyncio.sleep(600)

asyncio.run(main())
"""


@real_only("tools, MCP, hooks, permissions, slash commands, `@file`, compaction")
@pytest.mark.claude
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a death signal")
def test_the_death_of_the_worker_ends_the_cli_in_mid_turn(tmp_path: Path) -> None:
    require(claude := find_claude(), "claude CLI (pip install 'warmwire[claude]')")
    with in_thread(Behaviour(text="word " * 1000, rate=20)) as api:
        argv = [sys.executable, "-c", WORKER, str(claude), str(tmp_path / "s1"), api.url, new_id()]
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
