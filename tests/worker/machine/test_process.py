"""The shell around a CLI, with small Python programs in its place."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from warmwire.worker.cli.launch import Launch
from warmwire.worker.cli.said import BadLine, Lifecycle
from warmwire.worker.errors import CliGone, CliMissing, CliStalled, CliStartFailed, ErrorCode
from warmwire.worker.machine import process, tree
from warmwire.worker.machine.process import CliProcess, Exit

from tests.conftest import SECONDS, wait_for
from tests.worker.conftest import Start

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a death signal and /proc")

SAY = """
import json, os, subprocess, sys, time
def say(text):
    print(json.dumps({"type": "command_lifecycle", "state": str(text)}), flush=True)
"""
ECHO = "for line in sys.stdin: say(line.strip())"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "session"


def program(folder: Path, code: str, **env: str) -> Launch:
    argv = (sys.executable, "-S", "-c", SAY + code)
    return Launch(argv, {"PATH": os.environ["PATH"], **env}, folder, (folder,))


def states(heard: Sequence[object]) -> list[str]:
    return [line.state for line in heard if isinstance(line, Lifecycle)]


def alive(pid: int) -> bool:
    """Runs, or is stopped; what has ended but was not yet reaped is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def until_dead(*pids: int) -> None:
    await asyncio.to_thread(wait_for, lambda: not any(alive(pid) for pid in pids), f"{pids} are gone")


# --- bytes -----------------------------------------------------------------------------------------------


async def test_what_is_written_arrives_and_what_is_said_is_heard(start: Start, folder: Path) -> None:
    cli = await start(program(folder, ECHO))
    cli.process.write(b"one\n")
    cli.process.write(b"two\n")
    heard, _ = await cli.until(Lifecycle, lambda line: line.state == "two")
    assert ["one", "two"] == states(heard)


async def test_a_long_line_passes_both_ways(start: Start, folder: Path) -> None:
    cli = await start(program(folder, ECHO))
    cli.process.write(b"x" * 3_000_000 + b"\n")
    _, line = await cli.until(Lifecycle)
    assert "x" * 3_000_000 == line.state


async def test_a_line_over_the_limit_does_not_hide_the_next(start: Start, folder: Path) -> None:
    cli = await start(program(folder, "print('x' * 9_000_000, flush=True); say('next')"))
    heard, _ = await cli.until(Lifecycle)
    assert isinstance(heard[0], BadLine)
    assert ErrorCode.LINE_TOO_LONG == heard[0].code


async def test_a_cli_that_does_not_read_is_stalled(start: Start, folder: Path) -> None:
    cli = await start(program(folder, "say('up'); time.sleep(600)"))
    await cli.until(Lifecycle)
    cli.process.write(b"x" * (process.STDIN_BUFFER + 1_000_000))
    with pytest.raises(CliStalled):
        cli.process.write(b"more\n")


async def test_writing_to_a_cli_that_has_ended_says_so(start: Start, folder: Path) -> None:
    cli = await start(program(folder, ""))
    await cli.until(Exit)
    with pytest.raises(CliGone) as raised:
        cli.process.write(b"hello\n")
    assert ErrorCode.CLI_CRASHED == raised.value.code


async def test_nothing_is_written_after_the_end_of_input(start: Start, folder: Path) -> None:
    cli = await start(program(folder, "time.sleep(600)"))
    cli.process.close_stdin()
    with pytest.raises(CliGone):
        cli.process.write(b"hello\n")


# --- the end ---------------------------------------------------------------------------------------------


async def test_the_exit_comes_once_after_the_last_line(start: Start, folder: Path) -> None:
    cli = await start(program(folder, "say('last'); sys.exit('why')"))
    heard, ended = await cli.until(Exit)
    assert ["last"] == states(heard)
    assert Exit(1, "why\n") == ended
    assert ended == await cli.process.wait()
    assert not cli.process.running


async def test_what_was_said_at_the_very_end_is_heard(start: Start, folder: Path) -> None:
    cli = await start(program(folder, "say('x' * 50_000); sys.exit('why')"))  # less than a pipe holds
    wait_for(lambda: not alive(cli.process.pid), "it is gone")  # and the loop has not run meanwhile
    heard, ended = await cli.until(Exit)
    assert ["x" * 50_000] == states(heard)
    assert "why\n" == ended.stderr


async def test_a_signal_shows_as_a_negative_code(start: Start, folder: Path) -> None:
    cli = await start(program(folder, "os.kill(os.getpid(), 9)"))
    _, ended = await cli.until(Exit)
    assert -signal.SIGKILL == ended.returncode


async def test_only_the_last_of_stderr_is_kept(start: Start, folder: Path) -> None:
    cli = await start(program(folder, "sys.stderr.write('x' * 1_000_000 + 'the end')"))
    _, ended = await cli.until(Exit)
    assert process.STDERR_KEPT == len(ended.stderr)
    assert ended.stderr.endswith("the end")


async def test_a_child_that_holds_the_pipes_does_not_hide_the_exit(start: Start, folder: Path) -> None:
    code = "say(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"
    cli = await start(program(folder, code))
    heard, ended = await cli.until(Exit)
    assert 0 == ended.returncode
    os.kill(int(states(heard)[0]), signal.SIGKILL)


@linux
async def test_what_it_leaves_in_its_group_ends_with_it(start: Start, folder: Path) -> None:
    cli = await start(program(folder, "say(subprocess.Popen(['sleep', '600']).pid)"))
    heard, _ = await cli.until(Exit)
    await until_dead(int(states(heard)[0]))


async def test_a_stop_lets_a_cli_finish(start: Start, folder: Path) -> None:
    cli = await start(program(folder, "sys.stdin.read(); say('finished')"))
    ended = await cli.process.stop(grace=10 * SECONDS)
    heard, _ = await cli.until(Exit)
    assert (0, ["finished"]) == (ended.returncode, states(heard))


async def test_a_stop_terminates_who_does_not_leave(start: Start, folder: Path) -> None:
    cli = await start(program(folder, "say('up'); time.sleep(600)"))
    await cli.until(Lifecycle)
    assert -signal.SIGTERM == (await cli.process.stop(grace=0.05)).returncode


@linux
async def test_a_stop_kills_who_does_not_listen_and_all_below(start: Start, folder: Path) -> None:
    code = "import signal; signal.signal(15, signal.SIG_IGN)\n" + PARENT_OF_A_SESSION
    cli = await start(program(folder, code))
    _, line = await cli.until(Lifecycle)
    assert -signal.SIGKILL == (await cli.process.stop(grace=0.05, term=0.05)).returncode
    await until_dead(int(line.state))


# A child in a session of its own, as each tool of the CLI is.
PARENT_OF_A_SESSION = "say(subprocess.Popen(['sleep', '600'], start_new_session=True).pid); time.sleep(600)"


@linux
async def test_a_kill_reaches_processes_in_other_sessions(start: Start, folder: Path) -> None:
    cli = await start(program(folder, PARENT_OF_A_SESSION))
    _, line = await cli.until(Lifecycle)
    assert {int(line.state)} == tree.descendants([cli.process.pid])
    cli.process.kill()
    assert -signal.SIGKILL == (await cli.process.wait()).returncode
    await until_dead(int(line.state))


async def test_a_kill_of_what_has_ended_does_nothing(start: Start, folder: Path) -> None:
    cli = await start(program(folder, ""))
    await cli.until(Exit)
    cli.process.kill()
    assert 0 == (await cli.process.stop()).returncode


@linux
async def test_a_frozen_cli_says_nothing_until_it_is_thawed(start: Start, folder: Path) -> None:
    cli = await start(program(folder, ECHO))
    cli.process.freeze()
    state = Path(f"/proc/{cli.process.pid}/stat")
    await asyncio.to_thread(wait_for, lambda: ") T " in state.read_text(), "it is stopped")
    cli.process.write(b"one\n")
    assert [] == cli.raw
    cli.process.thaw()
    await cli.until(Lifecycle)


# --- the start -------------------------------------------------------------------------------------------


async def test_it_has_a_session_of_its_own(start: Start, folder: Path) -> None:
    cli = await start(program(folder, "say(os.getsid(0) == os.getpgid(0) == os.getpid())"))
    _, line = await cli.until(Lifecycle)
    assert "True" == line.state
    assert os.getsid(0) != cli.process.pid


async def test_it_sees_the_environment_of_its_launch_and_no_more(start: Start, folder: Path) -> None:
    cli = await start(program(folder, "say(sorted(os.environ))", ONLY="this", LC_ALL="C.UTF-8"))
    _, line = await cli.until(Lifecycle)
    assert str(["LC_ALL", "ONLY", "PATH"]) == line.state


async def test_its_folders_are_there_and_its_own(start: Start, folder: Path) -> None:
    cli = await start(program(folder, "say(os.getcwd()); say(oct(os.stat('.').st_mode & 0o777))"))
    heard, _ = await cli.until(Exit)
    assert [str(folder), "0o700"] == states(heard)


async def failed_start(launched: Launch) -> CliProcess:
    return await CliProcess.start(launched, lambda _: None, lambda _: None)


async def test_a_command_that_is_not_there(folder: Path) -> None:
    launched = Launch(("no-such-cli", "--print"), {"PATH": "/nowhere"}, folder, (folder,))
    with pytest.raises(CliMissing, match="the CLI 'no-such-cli' is not installed") as raised:
        await failed_start(launched)
    assert ErrorCode.CLI_MISSING == raised.value.code


async def test_a_command_that_may_not_be_run(folder: Path) -> None:
    with pytest.raises(CliMissing, match="may not be executed"):
        await failed_start(Launch((__file__,), {}, folder, (folder,)))


async def test_a_folder_that_cannot_be_made() -> None:
    with pytest.raises(CliStartFailed, match="could not be started"):
        await failed_start(program(Path("/dev/null/session"), ""))


async def test_an_argument_that_no_process_can_have(folder: Path) -> None:
    with pytest.raises(CliStartFailed, match="could not be started"):
        await failed_start(program(folder, "\0"))


async def test_without_setpriv_it_starts_all_the_same(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    process._setpriv.cache_clear()
    try:
        cli = await start(program(folder, "say('up')"))
        await cli.until(Lifecycle)
    finally:
        process._setpriv.cache_clear()


# --- the death of the worker -----------------------------------------------------------------------------

WORKER = """
import asyncio, os, signal, sys
from pathlib import Path
from warmwire.worker.cli.launch import Launch
from warmwire.worker.machine.process import CliProcess

async def main():
    folder = Path(sys.argv[1])
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    launch = Launch((sys.executable, "-c", code), {"PATH": os.environ["PATH"]}, folder, (folder,))
    await CliProcess.start(launch, lambda lines: print(lines[0].decode(), flush=True), lambda ended: None)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_cli_dies_with_its_worker(folder: Path, number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER, str(folder)], stdout=subprocess.PIPE) as worker:
        assert worker.stdout
        cli = int(worker.stdout.readline())
        assert alive(cli)
        worker.send_signal(number)
    wait_for(lambda: not alive(cli), "the CLI is gone")
