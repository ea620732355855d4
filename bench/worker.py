"""What a worker itself costs: memory for each session that it holds, CPU for each delta that it carries.

    python -m bench.worker [--idle 250 500] [--streams 20] [--rate 50] [--seconds 8] [--rounds 3]

The worker is a process of its own on a nats-server of its own; its CLIs are emulators, and what they take is
not counted. For the CPU the same emulators say the same to a bare process, in turn with the worker: one that
reads their pipes and publishes each line as it is, with the same loop and the same NATS client. What the
worker does beyond that (parse, number, wrap, remember, decide) is the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

from bench.soak import nats_server
from warmwire.broker import role
from warmwire.producer import Producer
from warmwire.worker.app import Worker
from warmwire.worker.cli.claude_stdin import user_line
from warmwire.worker.cli.launch import Spawning, launch
from warmwire.worker.cli.program import cli_command
from warmwire.worker.machine.memory import pss_mb
from warmwire.worker.machine.process import spawned
from warmwire.worker.settings import WorkerSettings

WITHIN = 60.0
"""Seconds that anything waited for may take."""
SETTLE = 1.0
"""Seconds after which what has begun is under way, and what has ended is at rest."""
AIM = 2.0
"""CPU for each delta, as a multiple of the bare process's."""
AT_ONCE = 20
"""Turns at a time while sessions are made."""
TICKS = os.sysconf("SC_CLK_TCK")


# --- the two processes -----------------------------------------------------------------------------------


async def _work() -> None:
    worker = Worker(WorkerSettings(), alone=True)
    await worker.start()
    await _until_told()
    await worker.stop()


async def _until_told() -> None:
    """Say that it is up, and go on until stdin ends."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)  # it is never written to
    print("ready", flush=True)
    await ended.wait()


async def _carry(streams: int) -> None:
    """The bare process: as many emulators, and each of their lines published."""
    connection = await nats.connect(os.environ["WARMWIRE_NATS"])
    with tempfile.TemporaryDirectory() as name:
        children = [_source(connection, Path(name) / str(n), f"bare.{n}") for n in range(streams)]
        await _until_told()
        for child in children:
            child.kill()
            child.wait()
    await connection.close()


def _source(connection: Client, folder: Path, subject: str) -> subprocess.Popen[bytes]:
    plan = launch(cli_command("emulator"), Spawning(folder=folder, environment=os.environ))
    for each in plan.folders:
        each.mkdir(parents=True, exist_ok=True)
    child = spawned(plan.argv, plan.env, plan.cwd)
    assert child.stdin is not None
    assert child.stdout is not None
    fd, rest, tasks = child.stdout.fileno(), b"", set[asyncio.Task[None]]()

    async def publish(lines: list[bytes]) -> None:
        for line in lines:
            await connection.publish(subject, line)

    def read() -> None:
        nonlocal rest
        *lines, rest = (rest + os.read(fd, 1 << 18)).split(b"\n")
        task = asyncio.get_running_loop().create_task(publish(lines))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    asyncio.get_running_loop().add_reader(fd, read)
    os.write(child.stdin.fileno(), user_line("Hello", subject))
    return child


@dataclass(frozen=True)
class Process:
    """One of the two, from outside."""

    pid: int

    @property
    def pss_mb(self) -> float:
        found = pss_mb(self.pid)
        assert found is not None
        return found

    @property
    def rss_mb(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024

    @property
    def cpu(self) -> float:
        """Seconds of its own, user and system; those of its children are not in them."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def process(nats_url: str, data: Path, *flags: str, **settings: object) -> Iterator[Process]:
    """One of the two."""
    data.mkdir(parents=True, exist_ok=True)
    environment = {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
        "WARMWIRE_NATS": nats_url,
        "WARMWIRE_DATA": str(data),
        "WARMWIRE_SPARES": "0",
        **{f"WARMWIRE_{name.upper()}": str(value) for name, value in settings.items()},
    }
    pipe = subprocess.PIPE
    with (data / "log").open("wb") as log:
        argv = [sys.executable, "-m", "bench.worker", *flags]
        running = subprocess.Popen(argv, bufsize=0, stdin=pipe, stdout=pipe, stderr=log, env=environment)
    assert running.stdin is not None
    assert running.stdout is not None
    try:
        assert running.stdout.readline() == b"ready\n", (data / "log").read_text()
        yield Process(running.pid)
    finally:
        running.stdin.close()
        running.wait(WITHIN)
        running.stdout.close()


# --- memory ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """What a worker takes that holds so many idle sessions."""

    sessions: int
    rss_mb: float
    pss_mb: float


async def memory(nats_url: str, folder: Path, counts: list[int]) -> list[Held]:
    """One worker, more and more sessions."""
    quick = {"emulator_rate": 100_000, "emulator_ttft_ms": 0, "freeze_after": 3600, "park_after": 7200}
    with process(nats_url, folder, "--worker", max_sessions=max(counts) + 1, **quick) as worker:
        async with Producer.connect(nats_url) as producer:
            await _talk(producer, ["warm-up"])  # what the first turn loads is no session's
            found = [await _at_rest(worker, 0)]
            for before, count in itertools.pairwise([0, *counts]):
                await _talk(producer, [f"idle-{n}" for n in range(before, count)])
                found.append(await _at_rest(worker, count))
    return found


async def _talk(producer: Producer, sessions: list[str]) -> None:
    left = list(sessions)

    async def ask() -> None:
        while left:
            turn = await producer.send("Hello", session_id=left.pop())
            async with asyncio.timeout(WITHIN):
                assert "Hello" in await turn.text()

    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))


async def _at_rest(worker: Process, sessions: int) -> Held:
    await asyncio.sleep(SETTLE)
    return Held(sessions, worker.rss_mb, worker.pss_mb)


# --- CPU -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    streams: int
    rate: int
    seconds: float

    @property
    def settings(self) -> dict[str, object]:
        deltas = round(self.rate * (self.seconds + WITHIN))  # they are cut off, none comes to its end
        return {"emulator_rate": self.rate, "emulator_deltas": deltas, "emulator_ttft_ms": 0}


async def worker_cpu(nats_url: str, folder: Path, load: Load) -> float:
    """Seconds for each delta."""
    settings = {"max_turns": load.streams, "max_sessions": load.streams, "drain_timeout": 0}
    with process(nats_url, folder, "--worker", **settings, **load.settings) as worker:
        async with Producer.connect(nats_url) as producer:
            turns = [
                await producer.send("Hello", session_id=f"{folder.name}-{n}") for n in range(load.streams)
            ]
            cost = await _each(nats_url, "ww.evt.>", worker, load)
            for turn in turns:
                await turn.interrupt()
            await asyncio.sleep(SETTLE)
    return cost


async def bare_cpu(nats_url: str, folder: Path, load: Load) -> float:
    """Seconds for each delta."""
    with process(nats_url, folder, "--bare", str(load.streams), **load.settings) as bare:
        return await _each(nats_url, "bare.>", bare, load)


async def _each(nats_url: str, subject: str, process: Process, load: Load) -> float:
    async with _counted(nats_url, subject) as count:
        async with asyncio.timeout(WITHIN):
            while count() < load.streams * load.rate * SETTLE:  # noqa: ASYNC110 - another process
                await asyncio.sleep(SETTLE / 10)
        cpu, deltas, begun = process.cpu, count(), monotonic()
        await asyncio.sleep(load.seconds)
        cpu, deltas, took = process.cpu - cpu, count() - deltas, monotonic() - begun
    wanted = load.streams * load.rate * took
    assert deltas > 0.9 * wanted, f"{deltas} deltas instead of {wanted:.0f}: the machine is too busy"
    return cpu / deltas


@asynccontextmanager
async def _counted(nats_url: str, subject: str) -> AsyncIterator[Callable[[], int]]:
    seen = 0

    async def hear(_: Msg) -> None:
        nonlocal seen
        seen += 1

    connection = await nats.connect(nats_url)
    await connection.subscribe(subject, cb=hear, pending_msgs_limit=0, pending_bytes_limit=0)
    yield lambda: seen
    await connection.close()


async def cpu(nats_url: str, folder: Path, load: Load, rounds: int) -> tuple[float, float]:
    """Medians of the rounds: the worker's seconds for each delta, and the bare process's."""
    found: dict[str, list[float]] = {"worker": [], "bare": []}
    measures: dict[str, Callable[[str, Path, Load], Awaitable[float]]]
    measures = {"worker": worker_cpu, "bare": bare_cpu}
    for number in range(rounds):
        for name, measure in measures.items():
            found[name].append(await measure(nats_url, folder / f"{name}{number}", load))
            print(f"{name}: {found[name][-1] * 1e6:.1f} µs", file=sys.stderr)
    return statistics.median(found["worker"]), statistics.median(found["bare"])


# --- the tables ------------------------------------------------------------------------------------------


def memory_table(found: list[Held]) -> str:
    rows = [f"| {held.sessions} | {held.rss_mb:.1f} MB | {held.pss_mb:.1f} MB |" for held in found]
    first, last = found[0], found[-1]
    each = (last.pss_mb - first.pss_mb) / max(1, last.sessions - first.sessions) * 1024
    head = ["| idle sessions | RSS | PSS |", "|---|---|---|"]
    return "\n".join(
        [*head, *rows, f"\nEach session takes {each:.1f} KB of the worker (PSS, without its CLI)."]
    )


def cpu_table(worker: float, bare: float, load: Load) -> str:
    what = f"{load.streams} streams at {load.rate} deltas/s"
    return "\n".join(
        [
            "| CPU per delta | worker | bare process | ratio |",
            "|---|---|---|---|",
            f"| {what} | {worker * 1e6:.1f} µs | {bare * 1e6:.1f} µs | {worker / bare:.2f} |",
        ]
    )


async def _measure(options: argparse.Namespace) -> int:
    load = Load(options.streams, options.rate, options.seconds)
    with tempfile.TemporaryDirectory(prefix="warmwire-bench") as name:
        folder = Path(name)
        async with nats_server(folder / "nats") as url:
            if options.idle:
                print(memory_table(await memory(url, folder / "idle", options.idle)), end="\n\n", flush=True)
            worker, bare = await cpu(url, folder, load, options.rounds)
    print(cpu_table(worker, bare, load))
    return 0 if worker / bare <= AIM else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--idle", type=int, nargs="*", default=[250, 500], help="sessions; none: no memory")
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--rate", type=int, default=50, help="deltas a second of each stream")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker or options.bare:
        role.log_to_stderr(20)
        uvloop.run(_work() if options.worker else _carry(options.bare))
        return 0
    return uvloop.run(_measure(options))


if __name__ == "__main__":
    sys.exit(main())
