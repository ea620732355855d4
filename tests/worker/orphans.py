"""Each way to die, and the processes that are left two seconds later.

    python -m tests.worker.orphans [--write]

The worker is a process of its own, with a turn at hand. Its CLI is the emulator, and has started what the
real one starts for a tool, a process in a session of its own; and what a tool may start: one that was forked
twice and so is nobody's child any more. ``--write`` puts the table into docs/orphans.md.
tests/worker/machine/test_orphans.py asks of the same scenarios that nothing is left, however slow the
machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep

from warmwire.worker.machine import cgroup, tree

from tests.client import Client, eventually, on_own_streams
from tests.conftest import COUNTING, SECONDS, started_nats_server

PAGE = Path(__file__).parents[2] / "docs/orphans.md"
MARK = "<!-- the last run -->\n"
PROMISED = 2.0
"""Seconds after which nothing may be left."""
EMULATOR = Path(cgroup.__file__).parents[1] / "emulator.py"
DAEMON = "sleep 601"
CLI = """#!/bin/sh
case "$*" in *--version*) echo "0.1.0 (warmwire emulator)"; exit;; esac
(setsid {daemon} </dev/null >/dev/null 2>&1 &)
exec {python} -I -S -E {emulator} "$@"
"""
"""It leaves a process that was forked twice and has a session of its own."""

Act = Callable[["Scene"], list[tree.Seen]]


@dataclass(frozen=True)
class Scene:
    """A worker in the middle of a turn of its only session, whose CLI has a child in a session of its own."""

    worker: subprocess.Popen[bytes]
    guardians: list[tree.Seen]
    cli: tree.Seen
    child: tree.Seen
    daemon: tree.Seen | None  # only our own CLI has one

    @property
    def all(self) -> list[tree.Seen]:
        worker = tree.Seen(self.worker.pid, "S", 0, 0, 0, started(self.worker.pid))
        return [worker, *self.guardians, *self.of_cli]

    @property
    def of_cli(self) -> list[tree.Seen]:
        """The CLI, and what it has started."""
        return [self.cli, self.child, *([self.daemon] if self.daemon else [])]


def started(pid: int) -> int:
    found = tree.seen(pid)
    return found.started if found else 0


def runs(process: tree.Seen) -> bool:
    now = tree.seen(process.pid)
    return now is not None and now.runs and now.started == process.started


@contextmanager
def running_worker(nats: str, prefix: str, data: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    data.mkdir(parents=True, exist_ok=True)
    cli = data / "cli"
    cli.write_text(CLI.format(daemon=DAEMON, python=sys.executable, emulator=EMULATOR))
    cli.chmod(0o755)
    environment = {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH", *COUNTING) if name in os.environ},
        "WARMWIRE_CLI": str(cli),
        "WARMWIRE_NATS": nats,
        "WARMWIRE_PREFIX": prefix,
        "WARMWIRE_DATA": str(data),
        "WARMWIRE_SPARES": "0",
        "WARMWIRE_DRAIN_TIMEOUT": "0.2",
        "WARMWIRE_EMULATOR_FAULT": "child",
        "WARMWIRE_EMULATOR_RATE": "20",
        "WARMWIRE_EMULATOR_DELTAS": "400",  # so that it is in mid-turn still, on a slow machine too
        **settings,
    }
    argv = [sys.executable, "-P", "-m", "warmwire.worker"]
    with subprocess.Popen(argv, env=environment, start_new_session=True) as worker:
        try:
            yield worker
        finally:
            worker.kill()


async def scene(client: Client, worker: subprocess.Popen[bytes], data: Path) -> Scene:
    """Wait until a turn runs and the child is there, and what it was forked from bears that name alone."""

    def is_set() -> bool:
        names = [cmdline(pid) for pid in tree.descendants([worker.pid])]
        clis = {name for name in names if "--input-format=stream-json" in name}
        return len(clis) == 1 and any(map(is_child, tree.descendants([worker.pid])))

    await client.send("s1", "Hello")
    await eventually(is_set, "the turn runs")
    found = [tree.seen(pid) for pid in tree.descendants([worker.pid])]
    by_name = {cmdline(process.pid): process for process in found if process is not None}
    (folder,) = (data / "workers").iterdir()
    (child,) = [process for process in by_name.values() if is_child(process.pid)]
    (cli,) = [process for name, process in by_name.items() if "--input-format=stream-json" in name]
    guardians = [process for process in found if process and "guardian.py" in cmdline(process.pid)]
    daemon = next((process for name, process in by_name.items() if name.startswith(DAEMON)), None)
    assert {cli.pid, child.pid} <= tree.working_in(folder)
    assert child.session != cli.session == cli.pid
    return Scene(worker, guardians, cli, child, daemon)


def is_child(pid: int) -> bool:
    return cmdline(pid).startswith(("sleep 600", "tail -f"))


def cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


async def left(processes: list[tree.Seen], within: float) -> tuple[list[str], float]:
    """The names of those that still run when the time is over, and when the last of the others had gone."""
    begun = monotonic()
    while any(map(runs, processes)) and monotonic() < begun + within:  # noqa: ASYNC110 - the kernel has no event for us
        await asyncio.sleep(0.01)
    return [cmdline(process.pid) for process in processes if runs(process)], monotonic() - begun


# --- in the middle of a turn ------------------------------------------------------------------------------


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
    return scene.of_cli


def kill_group_of_cli(scene: Scene) -> list[tree.Seen]:
    os.killpg(scene.cli.pid, signal.SIGKILL)
    return scene.of_cli


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


def kill_draining_worker(scene: Scene) -> list[tree.Seen]:
    everybody = scene.all
    scene.worker.terminate()
    os.kill(scene.worker.pid, signal.SIGSTOP)  # wherever it is in its orderly way out
    scene.worker.kill()
    return everybody


def kill_guardian(scene: Scene) -> list[tree.Seen]:
    """The worker goes on, and so does its CLI; there is a new guardian."""
    os.kill(scene.guardians[0].pid, signal.SIGKILL)
    return scene.guardians[:1]


def kill_guardian_and_worker(scene: Scene) -> list[tree.Seen]:
    everybody = scene.all
    os.kill(scene.guardians[0].pid, signal.SIGKILL)
    scene.worker.kill()
    return everybody


def kill_guardians_and_worker(scene: Scene) -> list[tree.Seen]:
    everybody = scene.all
    tree.signal_all([guardian.pid for guardian in scene.guardians], signal.SIGKILL)
    scene.worker.kill()
    return everybody


def hang_cli(scene: Scene) -> list[tree.Seen]:
    """It is stopped in mid-turn; the worker finds out by its silence, which is no part of the two seconds."""
    os.kill(scene.cli.pid, signal.SIGSTOP)
    until = monotonic() + 20 * SECONDS
    while runs(scene.cli) and monotonic() < until:
        sleep(0.01)
    return scene.of_cli


@dataclass(frozen=True)
class Scenario:
    """``act`` does it and returns who has to go; ``waits`` is what has to be so before, beside the turn."""

    name: str
    act: Act
    settings: Mapping[str, str] = field(default_factory=dict)
    waits: Callable[[Scene], bool] = lambda _: True


def is_frozen(scene: Scene) -> bool:
    now = tree.seen(scene.cli.pid)
    return now is not None and now.state == "T"


FROZEN = {"WARMWIRE_FREEZE_AFTER": "0", "WARMWIRE_EMULATOR_RATE": "1000"}
SCENARIOS = [
    Scenario("the worker", kill_worker),
    Scenario("the worker's process group", kill_group_of_worker),
    Scenario("the worker, by SIGSEGV", break_worker),
    Scenario("the worker, while it is stopped", kill_stopped_worker),
    Scenario("the worker, by SIGTERM (from when it has left)", terminate_worker),
    Scenario("the worker, by SIGTERM and then SIGINT", terminate_worker_twice),
    Scenario("the worker, on its way out after SIGTERM", kill_draining_worker),
    Scenario("the worker, with a frozen CLI", kill_worker, FROZEN, is_frozen),
    Scenario("the worker, by SIGTERM, with a frozen CLI", terminate_worker, FROZEN, is_frozen),
    Scenario("the CLI", kill_cli),
    Scenario("the CLI's process group", kill_group_of_cli),
    Scenario("the CLI, frozen", kill_cli, FROZEN, is_frozen),
    Scenario("the CLI and the worker at once", kill_cli_and_worker),
    Scenario(
        "a CLI that hangs (from when its silence is noticed)", hang_cli, {"WARMWIRE_STALL_TIMEOUT": "2"}
    ),
    Scenario("a guardian (the worker goes on)", kill_guardian),
    Scenario("a guardian and the worker at once", kill_guardian_and_worker),
]
BEYOND = Scenario("both guardians and the worker at once", kill_guardians_and_worker)
"""Nobody is there who could; the next worker on the same folder is."""


async def after(
    scenario: Scenario, client: Client, worker: subprocess.Popen[bytes], data: Path
) -> list[tree.Seen]:
    """Let it happen; who has to go."""
    there = await scene(client, worker, data)
    await eventually(lambda: scenario.waits(there), scenario.name)
    return await asyncio.to_thread(scenario.act, there)


# --- while something starts ------------------------------------------------------------------------------


async def killed_at_start(worker: subprocess.Popen[bytes]) -> list[tree.Seen]:
    """The worker, as soon as it has started anything."""
    await eventually(lambda: tree.children(worker.pid), "something of its is there")
    below = [tree.seen(pid) for pid in tree.descendants([worker.pid])]
    worker.kill()
    return [process for process in below if process is not None]


async def killed_with_spare(worker: subprocess.Popen[bytes]) -> list[tree.Seen]:
    """The worker, while a spare is being started."""

    def starting() -> bool:
        return any("--input-format" in cmdline(pid) for pid in tree.children(worker.pid))

    await eventually(starting, "a spare is being started")
    below = [tree.seen(pid) for pid in tree.descendants([worker.pid])]
    worker.kill()
    return [process for process in below if process is not None]


SPARE = {"WARMWIRE_SPARES": "1", "WARMWIRE_EMULATOR_STARTUP_MS": "60000"}


# --- the table -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What was left, and seconds until the rest had gone."""

    name: str
    left: int
    of: int
    seconds: float

    def __str__(self) -> str:
        return f"| {self.name} | {self.left} of {self.of} | {self.seconds:.2f} s |"


async def rows(nats: str, folder: Path, group: str) -> list[Row]:
    """Every scenario once; and what the next worker does about what is beyond the promise."""
    found: list[Row] = []
    for number, scenario in enumerate([*SCENARIOS, BEYOND]):
        data, prefix = folder / f"{group}{number}", f"orphans-{group}-{number}"
        async with on_own_streams(nats, prefix) as client:
            settings = {"WARMWIRE_CONTROL_GROUP": group, **scenario.settings}
            with running_worker(nats, prefix, data, **settings) as worker:
                doomed = await after(scenario, client, worker, data)
                found.append(await row(scenario.name, doomed))
            if scenario is BEYOND:
                with running_worker(nats, prefix, data, **settings):
                    found.append(await row("… and then the next worker starts", doomed, 10 * SECONDS))
    for name, act, settings in (
        ("the worker, as it starts", killed_at_start, {}),
        ("the worker, while a spare is being started", killed_with_spare, SPARE),
    ):
        data, prefix = folder / f"{group}-{act.__name__}", f"orphans-{group}-{act.__name__}"
        async with on_own_streams(nats, prefix):
            with running_worker(nats, prefix, data, WARMWIRE_CONTROL_GROUP=group, **settings) as worker:
                found.append(await row(name, await act(worker)))
    return found


async def row(name: str, doomed: list[tree.Seen], within: float = PROMISED) -> Row:
    names, seconds = await left(doomed, within)
    found = Row(name, len(names), len(doomed), seconds)
    print(found, file=sys.stderr)
    return found


def table(with_group: list[Row] | None, without: list[Row]) -> str:
    """Side by side."""
    group = "left, control group | gone after"
    head = f"| what is killed (SIGKILL unless said) | processes | {group} | left, none | gone after |"
    lines = [head, "|---|---|---|---|---|---|"]
    for number, plain in enumerate(without):
        grouped = with_group[number] if with_group else None
        first = f"{grouped.left} | {grouped.seconds:.2f} s" if grouped else "not tried | "
        lines.append(f"| {plain.name} | {plain.of} | {first} | {plain.left} | {plain.seconds:.2f} s |")
    return "\n".join(lines) + "\n"


def can_group() -> bool:
    """Whether control groups may be written here."""
    return any(os.access(home, os.W_OK) for home in cgroup._homes())


async def _measure(folder: Path) -> tuple[str, bool]:
    with started_nats_server(folder / "nats") as (url, _):
        grouped = await rows(url, folder, "true") if can_group() else None
        plain = await rows(url, folder, "false")
    bad = [each for each in [*(grouped or []), *plain] if each.left and each.name != BEYOND.name]
    return table(grouped, plain), not bad


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/orphans.md")
    write = parser.parse_args().write
    folder = Path(tempfile.mkdtemp(prefix="warmwire-orphans"))
    try:
        found, kept = asyncio.run(_measure(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(found)
    if write:
        text = PAGE.read_text().partition(MARK)[0]
        when = f"{datetime.now(UTC):%Y-%m-%d}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n\n"
        PAGE.write_text(f"{text}{MARK}\n{when}{found}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
