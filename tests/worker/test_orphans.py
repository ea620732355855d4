"""Nothing is left behind: each way to die, and two seconds later the processes that should be gone.

The emulator plays the CLI and starts a `sleep` in a session of its own, as the real CLI does with each tool;
that the real one does so is in contract/test_processes.py. The worker is a process of its own here, as it
must be to have orphans handed to it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest

from warmwire.worker import cgroup, tree

from tests.client import Client, eventually, on_own_streams
from tests.conftest import SECONDS, require
from tests.standin.messages_api import Behaviour, MessagesApi

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc and death signals")

# Two seconds by the promise, on a machine with time to spare. A test is no benchmark: it shows that they go.
LEFT_AFTER = 15.0 * SECONDS


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return f"t{tmp_path.name[-30:]}".replace("[", "").replace("]", "").replace("-", "")


@pytest.fixture
async def client(nats_server: str, prefix: str) -> AsyncIterator[Client]:
    async with on_own_streams(nats_server, prefix) as client:
        yield client


Act = Callable[["Scene"], list[tree.Seen]]


@dataclass(frozen=True)
class Scene:
    """A worker in the middle of a turn of its only session, whose CLI has a child in a session of its own."""

    worker: subprocess.Popen[bytes]
    guardian: tree.Seen
    cli: tree.Seen
    child: tree.Seen

    @property
    def all(self) -> list[tree.Seen]:
        worker = tree.Seen(self.worker.pid, "S", 0, 0, 0, started(self.worker.pid))
        return [worker, self.guardian, self.cli, self.child]


def started(pid: int) -> int:
    found = tree.seen(pid)
    return found.started if found else 0


def runs(process: tree.Seen) -> bool:
    now = tree.seen(process.pid)
    return now is not None and now.runs and now.started == process.started


@contextmanager
def running_worker(nats: str, prefix: str, data: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        "PATH": os.environ["PATH"],
        "WARMWIRE_NATS": nats,
        "WARMWIRE_PREFIX": prefix,
        "WARMWIRE_DATA": str(data),
        "WARMWIRE_SPARES": "0",
        "WARMWIRE_DRAIN_TIMEOUT": "0.2",
        "WARMWIRE_EMULATOR_FAULT": "child",
        "WARMWIRE_EMULATOR_RATE": "20",
        **settings,
    }
    argv = [sys.executable, "-P", "-m", "warmwire.worker"]
    with subprocess.Popen(argv, env=environment, start_new_session=True) as worker:
        try:
            yield worker
        finally:
            worker.kill()


async def scene(client: Client, worker: subprocess.Popen[bytes], data: Path) -> Scene:
    """Wait until a turn runs and the child is there."""
    await client.send("s1", "Hello")
    await eventually(lambda: any(map(is_child, tree.descendants([worker.pid]))), "the turn runs")
    found = [tree.seen(pid) for pid in tree.descendants([worker.pid])]
    by_name = {cmdline(process.pid): process for process in found if process is not None}
    (folder,) = (data / "workers").iterdir()
    (child,) = [process for process in by_name.values() if is_child(process.pid)]
    (cli,) = [process for name, process in by_name.items() if "--input-format=stream-json" in name]
    (guardian,) = [process for name, process in by_name.items() if "guardian.py" in name]
    assert {cli.pid, child.pid} <= tree.working_in(folder)
    assert child.session != cli.session == cli.pid
    return Scene(worker, guardian, cli, child)


def is_child(pid: int) -> bool:
    return cmdline(pid).startswith(("sleep 600", "tail -f"))


def cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


async def left(processes: list[tree.Seen]) -> list[str]:
    """The names of those that still run when the time is over; at once if none does."""
    until = monotonic() + LEFT_AFTER
    while any(map(runs, processes)) and monotonic() < until:  # noqa: ASYNC110 - the kernel has no event for us
        await asyncio.sleep(0.01)
    return [cmdline(process.pid) for process in processes if runs(process)]


# --- the scenarios -----------------------------------------------------------------------------------------


def kill_worker(scene: Scene) -> list[tree.Seen]:
    everybody = scene.all
    scene.worker.kill()
    return everybody


def kill_group_of_worker(scene: Scene) -> list[tree.Seen]:
    everybody = scene.all
    os.killpg(scene.worker.pid, signal.SIGKILL)
    return everybody


def kill_cli(scene: Scene) -> list[tree.Seen]:
    os.kill(scene.cli.pid, signal.SIGKILL)
    return [scene.cli, scene.child]


def kill_group_of_cli(scene: Scene) -> list[tree.Seen]:
    os.killpg(scene.cli.pid, signal.SIGKILL)
    return [scene.cli, scene.child]


def kill_cli_and_worker(scene: Scene) -> list[tree.Seen]:
    everybody = scene.all
    os.kill(scene.cli.pid, signal.SIGKILL)
    scene.worker.kill()
    return everybody


def terminate_worker(scene: Scene) -> list[tree.Seen]:
    everybody = scene.all
    scene.worker.terminate()
    scene.worker.wait(30 * SECONDS)  # it leaves in order; the two seconds begin when it has left
    return everybody


def terminate_worker_twice(scene: Scene) -> list[tree.Seen]:
    everybody = scene.all
    scene.worker.terminate()
    scene.worker.send_signal(signal.SIGINT)
    return everybody


def break_worker(scene: Scene) -> list[tree.Seen]:
    everybody = scene.all
    scene.worker.send_signal(signal.SIGSEGV)
    return everybody


def kill_stopped_worker(scene: Scene) -> list[tree.Seen]:
    everybody = scene.all
    scene.worker.send_signal(signal.SIGSTOP)
    scene.worker.kill()
    return everybody


SCENARIOS: list[Act] = [
    kill_worker,
    kill_group_of_worker,
    kill_cli,
    kill_group_of_cli,
    kill_cli_and_worker,
    terminate_worker,
    terminate_worker_twice,
    break_worker,
    kill_stopped_worker,
]


@pytest.fixture(params=["control group", "no control group"])
def group(request: pytest.FixtureRequest) -> str:
    """Whether the worker may have one; where the hierarchy is read-only only the second can be tried."""
    wanted = request.param == "control group"
    if wanted:
        require(
            any(os.access(home, os.W_OK) for home in cgroup._homes()), "control groups that may be written"
        )
    return "true" if wanted else "false"


@pytest.mark.parametrize("act", SCENARIOS, ids=lambda act: act.__name__)
async def test_nothing_is_left_after_two_seconds(
    act: Act, client: Client, nats_server: str, tmp_path: Path, group: str
) -> None:
    prefix = client.subjects.prefix
    with running_worker(nats_server, prefix, tmp_path, WARMWIRE_CONTROL_GROUP=group) as worker:
        doomed = act(await scene(client, worker, tmp_path))
        assert [] == await left(doomed)


WITH_BASH = """#!/bin/sh
for argument; do
  shift
  [ "$argument" = --tools= ] && argument=--tools=Bash
  set -- "$@" "$argument"
done
exec {claude} "$@" --allowedTools=Bash
"""


@pytest.mark.claude
@pytest.mark.parametrize("act", [kill_worker, kill_cli, kill_cli_and_worker], ids=lambda act: act.__name__)
async def test_nothing_is_left_of_the_real_cli_and_its_tool(
    act: Act, client: Client, nats_server: str, tmp_path: Path, group: str, claude_cli: Path
) -> None:
    cli = tmp_path / "cli"
    cli.write_text(WITH_BASH.format(claude=claude_cli))
    cli.chmod(0o755)
    async with MessagesApi(Behaviour(tool="tail -f /dev/null")) as api:
        settings = {
            "WARMWIRE_CONTROL_GROUP": group,
            "WARMWIRE_CLI": str(cli),
            "ANTHROPIC_BASE_URL": api.url,
            "ANTHROPIC_API_KEY": "made up",
        }
        data = tmp_path / "data"
        with running_worker(nats_server, client.subjects.prefix, data, **settings) as worker:
            assert [] == await left(act(await scene(client, worker, data)))


async def test_a_cli_that_hangs_takes_its_child_along(
    client: Client, nats_server: str, tmp_path: Path, group: str
) -> None:
    """The child is let go by the CLI: only as the worker's own child is it found."""
    settings = {"WARMWIRE_CONTROL_GROUP": group, "WARMWIRE_STALL_TIMEOUT": "0.5"}
    with running_worker(nats_server, client.subjects.prefix, tmp_path, **settings) as worker:
        there = await scene(client, worker, tmp_path)
        os.kill(there.cli.pid, signal.SIGSTOP)
        await eventually(lambda: not runs(there.cli), "the silent CLI is ended")
        assert [] == await left([there.cli, there.child])


async def test_between_turns_a_child_may_stay_until_its_cli_goes(
    client: Client, nats_server: str, tmp_path: Path
) -> None:
    with running_worker(
        nats_server, client.subjects.prefix, tmp_path, WARMWIRE_EMULATOR_RATE="500"
    ) as worker:
        there = await scene(client, worker, tmp_path)
        await client.ask("s2", "another session, whose CLI is killed")
        (other,) = {pid for pid in tree.children(worker.pid) if "emulator.py" in cmdline(pid)} - {
            there.cli.pid
        }
        os.kill(other, signal.SIGKILL)
        await eventually(lambda: tree.seen(other) is None, "the other CLI is gone")
        assert runs(there.child)
        os.kill(there.cli.pid, signal.SIGKILL)
        assert [] == await left([there.cli, there.child])


async def test_a_guardian_that_is_killed_is_replaced(
    client: Client, nats_server: str, tmp_path: Path, group: str
) -> None:
    with running_worker(
        nats_server, client.subjects.prefix, tmp_path, WARMWIRE_CONTROL_GROUP=group
    ) as worker:
        there = await scene(client, worker, tmp_path)
        os.kill(there.guardian.pid, signal.SIGKILL)

        def new() -> list[int]:
            guards = [pid for pid in tree.children(worker.pid) if "guardian.py" in cmdline(pid)]
            return [pid for pid in guards if pid != there.guardian.pid]

        await eventually(new, "there is a new guardian", deadline=5 * SECONDS)
        (pid,) = new()
        guardian = tree.seen(pid)
        assert guardian is not None
        worker.kill()
        assert [] == await left([there.cli, there.child, guardian])


async def test_what_a_worker_and_its_guardian_leave_the_next_worker_ends(
    client: Client, nats_server: str, tmp_path: Path, group: str
) -> None:
    prefix = client.subjects.prefix
    with running_worker(nats_server, prefix, tmp_path, WARMWIRE_CONTROL_GROUP=group) as worker:
        there = await scene(client, worker, tmp_path)
        os.kill(there.guardian.pid, signal.SIGKILL)
        worker.kill()
        assert [] == await left([there.guardian, there.cli])
        assert runs(there.child)  # nobody is there who could
    with running_worker(nats_server, prefix, tmp_path, WARMWIRE_CONTROL_GROUP=group):
        await eventually(lambda: not runs(there.child), "the next worker has ended it")


async def test_an_empty_environment_and_another_folder_do_not_hide_from_a_control_group(
    client: Client, nats_server: str, tmp_path: Path, group: str
) -> None:
    hidden = "import os; os.chdir('/'); os.execve('/bin/sleep', ['sleep', '500'], {})"
    cli = tmp_path / "cli"
    cli.write_text(
        f'#!/bin/sh\ncase "$*" in *--version*) echo none; exit;; esac\n'
        f'{sys.executable} -S -c "{hidden}" </dev/null >/dev/null 2>&1 &\n'
        f'exec {sys.executable} -I -S -E {Path(cgroup.__file__).with_name("emulator.py")} "$@"\n'
    )
    cli.chmod(0o755)
    settings = {"WARMWIRE_CONTROL_GROUP": group, "WARMWIRE_CLI": str(cli)}
    with running_worker(nats_server, client.subjects.prefix, tmp_path / "data", **settings) as worker:
        await scene(client, worker, tmp_path / "data")
        below = [process for process in map(tree.seen, tree.descendants([worker.pid])) if process]
        (secret,) = [process for process in below if cmdline(process.pid).startswith("sleep 500")]
        worker.kill()
        gone = [] == await left([secret])
    if not gone:
        os.kill(secret.pid, signal.SIGKILL)
    assert gone == (group == "true")  # without one it is what we do not find
