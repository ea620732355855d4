"""Nothing is left behind: each way to die of `orphans`, and some that need a look at more than the end.

The emulator plays the CLI; that the real one starts each tool in a session of its own, too, is in
contract/test_processes.py.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from warmwire.worker.machine import tree
from warmwire.worker.machine.processes import GUARDIANS

from tests.client import Client, eventually
from tests.conftest import SECONDS, require
from tests.standin.messages_api import Behaviour, MessagesApi
from tests.worker import orphans
from tests.worker.orphans import (
    EMULATOR,
    SCENARIOS,
    SPARE,
    Act,
    Scenario,
    after,
    can_group,
    cmdline,
    kill_cli,
    kill_cli_and_worker,
    kill_guardian_and_worker,
    kill_worker,
    killed_at_start,
    killed_with_spare,
    running_worker,
    runs,
    scene,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc and death signals")

# Two seconds by the promise, on a machine with time to spare. A test is no benchmark: it shows that they go.
LEFT_AFTER = 15.0 * SECONDS


async def left(processes: list[tree.Seen]) -> list[str]:
    return (await orphans.left(processes, LEFT_AFTER))[0]


@pytest.fixture(params=["control group", "no control group"])
def group(request: pytest.FixtureRequest) -> str:
    """Whether the worker may have one; where the hierarchy is read-only only the second can be tried."""
    wanted = request.param == "control group"
    if wanted:
        require(can_group(), "control groups that may be written")
    return "true" if wanted else "false"


# Without a control group there is more that can go wrong; `make orphans` tries all of them with one, too.
IN_GROUP = [s for s in SCENARIOS if s.act in {kill_worker, kill_cli_and_worker, kill_guardian_and_worker}]


@pytest.mark.parametrize(
    ("scenario", "group"),
    [*((scenario, "false") for scenario in SCENARIOS), *((scenario, "true") for scenario in IN_GROUP)],
    ids=lambda each: each.name if isinstance(each, Scenario) else each,
)
async def test_nothing_is_left(
    scenario: Scenario, client: Client, nats_server: str, tmp_path: Path, group: str
) -> None:
    if group == "true":
        require(can_group(), "control groups that may be written")
    settings = {"WARMWIRE_CONTROL_GROUP": group, **scenario.settings}
    with running_worker(nats_server, client.subjects.prefix, tmp_path, **settings) as worker:
        assert [] == await left(await after(scenario, client, worker, tmp_path))


@pytest.mark.usefixtures("client")
async def test_nothing_is_left_of_a_worker_that_is_killed_as_it_starts(
    nats_server: str, prefix: str, tmp_path: Path
) -> None:
    with running_worker(nats_server, prefix, tmp_path, WARMWIRE_CONTROL_GROUP="false") as worker:
        assert [] == await left(await killed_at_start(worker))


@pytest.mark.usefixtures("client")
async def test_nothing_is_left_of_a_spare_that_is_being_started(
    nats_server: str, prefix: str, tmp_path: Path
) -> None:
    with running_worker(nats_server, prefix, tmp_path, WARMWIRE_CONTROL_GROUP="false", **SPARE) as worker:
        assert [] == await left(await killed_with_spare(worker))


WITH_BASH = """#!/bin/sh
for argument; do
  shift
  [ "$argument" = --tools= ] && argument=--tools=Bash
  set -- "$@" "$argument"
done
exec {claude} "$@" --allowedTools=Bash
"""


@pytest.mark.claude
@pytest.mark.parametrize("act", [kill_cli, kill_cli_and_worker], ids=lambda act: act.__name__)
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


async def test_guardians_that_are_killed_are_replaced(
    client: Client, nats_server: str, tmp_path: Path, group: str
) -> None:
    with running_worker(
        nats_server, client.subjects.prefix, tmp_path, WARMWIRE_CONTROL_GROUP=group
    ) as worker:
        there = await scene(client, worker, tmp_path)
        before = {guardian.pid for guardian in there.guardians}
        assert GUARDIANS == len(before)
        tree.signal_all(before, signal.SIGKILL)

        def new() -> set[int]:
            return {pid for pid in tree.children(worker.pid) if "guardian.py" in cmdline(pid)} - before

        await eventually(lambda: len(new()) == GUARDIANS, "there are new guardians", deadline=5 * SECONDS)
        guardians = [process for process in map(tree.seen, new()) if process is not None]
        worker.kill()
        assert [] == await left([*there.of_cli, *guardians])


async def test_what_a_worker_and_its_guardians_leave_the_next_worker_ends(
    client: Client, nats_server: str, tmp_path: Path, group: str
) -> None:
    prefix = client.subjects.prefix
    with running_worker(nats_server, prefix, tmp_path, WARMWIRE_CONTROL_GROUP=group) as worker:
        there = await scene(client, worker, tmp_path)
        orphans.kill_guardians_and_worker(there)
        assert [] == await left([*there.guardians, there.cli])
        assert runs(there.child)  # nobody is there who could
    with running_worker(nats_server, prefix, tmp_path, WARMWIRE_CONTROL_GROUP=group):
        await eventually(lambda: not any(map(runs, there.of_cli)), "the next worker has ended it")


def that_hides(cli: Path) -> Path:
    """A CLI whose tool has another folder and no environment."""
    hidden = "import os; os.chdir('/'); os.execve('/bin/sleep', ['sleep', '500'], {})"
    cli.write_text(
        f'#!/bin/sh\ncase "$*" in *--version*) echo none; exit;; esac\n'
        f'{sys.executable} -S -c "{hidden}" </dev/null >/dev/null 2>&1 &\n'
        f'exec {sys.executable} -I -S -E {EMULATOR} "$@"\n'
    )
    cli.chmod(0o755)
    return cli


def hidden_below(worker: int) -> list[tree.Seen]:
    below = [process for process in map(tree.seen, tree.descendants([worker])) if process]
    return [process for process in below if cmdline(process.pid).startswith("sleep 500")]


async def test_an_empty_environment_and_another_folder_do_not_hide_from_a_control_group(
    client: Client, nats_server: str, tmp_path: Path, group: str
) -> None:
    settings = {"WARMWIRE_CONTROL_GROUP": group, "WARMWIRE_CLI": str(that_hides(tmp_path / "cli"))}
    with running_worker(nats_server, client.subjects.prefix, tmp_path / "data", **settings) as worker:
        there = await scene(client, worker, tmp_path / "data")
        await eventually(lambda: hidden_below(worker.pid), "it has hidden")
        (secret,) = hidden_below(worker.pid)
        # Guardians that are quick find what descends from the CLI before the kernel has ended that.
        guardians = [guardian.pid for guardian in there.guardians]
        tree.signal_all(guardians, signal.SIGSTOP)
        worker.kill()
        assert [] == await left([there.cli])
        tree.signal_all(guardians, signal.SIGCONT)
        assert [] == await left(there.guardians)  # they go when they have found all that they find
        gone = not runs(secret)
    if not gone:
        os.kill(secret.pid, signal.SIGKILL)
    assert gone == (group == "true")  # without one it is what we do not find
