"""A worker for a long time: many turns over more sessions than it has processes; does it grow?

    python -m bench.soak [--turns 10000] [--sessions 200] [--processes 50] [--per-second 20]

The worker is a process of its own on a nats-server of its own, its CLI the emulator. Most turns meet a
session that has been parked meanwhile, so that nearly each of them evicts, spawns and resumes. What the
worker holds is looked at between turns, when nothing runs: after its start and after each tenth of the turns.
Growth is counted from half of the turns on: by then every session has been here often, caches are full, and
the allocator has seen the busiest moment. (On a busy machine that comes late: counted from a fifth on, one
run of two grew by more than is allowed, and then stood still.)
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import uvloop

from warmwire.broker import role
from warmwire.compose.nats.server import NatsServer
from warmwire.producer import Producer
from warmwire.worker.app import Worker
from warmwire.worker.machine import tree
from warmwire.worker.machine.processes import GUARDIANS
from warmwire.worker.settings import WorkerSettings

AT_ONCE = 20
"""Turns that run at the same time."""
PER_SECOND = 1000.0
"""Turns that begin in a second, at most: as fast as they can."""
WITHIN = 60.0
"""Seconds that anything waited for may take."""
POLL = 0.05
STILL = 3
"""Looks in a row that find as many tasks, before a worker counts as quiet."""
QUICK = {
    "WARMWIRE_EMULATOR_RATE": "100000",
    "WARMWIRE_EMULATOR_DELTAS": "5",
    "WARMWIRE_EMULATOR_TTFT_MS": "0",
}
BASE = 5
"""Number of the look from which growth is counted."""
ALLOWED_MB = 5.0
ALLOWED_PART = 0.05
"""Growth of RSS that is no leak: MB, or part of what it was."""


EXECUTOR = 4
"""Threads that the loop's executor may still lack then."""


@dataclass(frozen=True)
class Look:
    """What a worker holds."""

    turns: int
    seconds: float
    rss_mb: float
    fds: int
    threads: int
    tasks: int
    objects: int  # that the garbage collector knows
    processes: int  # CLIs
    zombies: int

    def grown_since(self, before: Look) -> list[str]:
        """The names of what has grown more than is allowed."""
        allowed = max(ALLOWED_MB, before.rss_mb * ALLOWED_PART)
        grown = ["rss_mb"] if self.rss_mb > before.rss_mb + allowed else []
        # Of processes there may be one more or less; what counts is what comes on top of their four fds.
        grown += ["fds"] if self.fds - 4 * self.processes > before.fds - 4 * before.processes + 4 else []
        grown += ["threads"] if self.threads > before.threads + EXECUTOR else []
        grown += ["tasks"] if self.tasks > before.tasks + 2 else []
        return grown + (["zombies"] if self.zombies else [])


# --- the worker --------------------------------------------------------------------------------------------


async def _work() -> None:
    """A worker that says on stdout what only it can know, whenever it gets a line."""
    worker = Worker(WorkerSettings(), alone=True)
    await worker.start()
    loop = asyncio.get_running_loop()
    asked: asyncio.Queue[bytes] = asyncio.Queue()
    loop.add_reader(0, lambda: asked.put_nowait(os.read(0, 4096)))
    print("ready", flush=True)
    while await asked.get():
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # what is held, not what the allocator keeps for later
        inside = {"tasks": len(asyncio.all_tasks()), "objects": len(gc.get_objects())}
        print(msgspec.json.encode(inside).decode(), flush=True)
    await worker.stop()


class Soaked:
    """The worker from outside."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.begun = monotonic()

    def look(self, turns: int) -> Look:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"?")
        inside: dict[str, Any] = msgspec.json.decode(self.process.stdout.readline())
        here = Path(f"/proc/{self.process.pid}")
        status = dict(line.split(":", 1) for line in (here / "status").read_text().splitlines())
        below = [tree.seen(pid) for pid in tree.children(self.process.pid)]
        return Look(
            turns=turns,
            seconds=round(monotonic() - self.begun, 1),
            rss_mb=round(int(status["VmRSS"].split()[0]) / 1024, 1),
            fds=len(list((here / "fd").iterdir())),
            threads=int(status["Threads"]),
            processes=sum(1 for process in below if process and process.runs) - GUARDIANS,
            zombies=sum(1 for process in below if process and not process.runs),
            **inside,
        )


@contextmanager
def worker(nats: str, data: Path, processes: int) -> Iterator[Soaked]:
    environment = {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
        "WARMWIRE_NATS": nats,
        "WARMWIRE_DATA": str(data),
        "WARMWIRE_MAX_SESSIONS": str(processes),
        "WARMWIRE_MAX_TURNS": str(min(AT_ONCE, processes)),
        "WARMWIRE_SPARES": "0",
        **QUICK,
    }
    argv = [sys.executable, "-m", "bench.soak", "--worker"]
    pipe = subprocess.PIPE
    with (data / "log").open("wb") as log:
        running = subprocess.Popen(argv, bufsize=0, stdin=pipe, stdout=pipe, stderr=log, env=environment)
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == b"ready\n", (data / "log").read_text()
        yield Soaked(running)
    finally:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.close()
        running.wait(WITHIN)
        running.stdout.close()


# --- the load ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def nats_server(folder: Path) -> AsyncIterator[str]:
    server = NatsServer(folder)
    process = subprocess.Popen(server.prepare(), stdin=subprocess.DEVNULL)  # noqa: ASYNC220 - once
    try:
        while (url := server.url(process.pid)) is None:
            assert process.poll() is None, server.cause()
            await asyncio.sleep(POLL)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(WITHIN)


async def soak(turns: int, sessions: int, processes: int, per_second: float = PER_SECOND) -> list[Look]:
    """Run it; the looks, the first of them before any turn."""
    with tempfile.TemporaryDirectory(prefix="warmwire-soak") as name:
        folder = Path(name)
        async with nats_server(folder / "nats") as url:
            with worker(url, folder, processes) as soaked:
                looks = [soaked.look(0)]
                for _ in range(10):
                    done = looks[-1].turns + turns // 10
                    await _load(url, turns // 10, sessions, per_second)
                    await _until_quiet(soaked, processes)
                    looks.append(soaked.look(done))
                    print(_row(looks[-1]), file=sys.stderr)
                return looks


async def _load(url: str, turns: int, sessions: int, per_second: float) -> None:
    async with Producer.connect(url) as producer:
        left, begun = list(range(turns)), monotonic()

        async def ask() -> None:
            while left:
                number = left.pop()
                await asyncio.sleep(begun + (turns - 1 - number) / per_second - monotonic())
                turn = await producer.send(f"turn {number}", session_id=f"s{random.randrange(sessions)}")
                async with asyncio.timeout(WITHIN):
                    assert "turn" in await turn.text()

        await asyncio.gather(*(ask() for _ in range(AT_ONCE)))


async def _until_quiet(soaked: Soaked, processes: int) -> None:
    """Surplus sessions are parked, what was parked has ended, and no task is about to end."""
    tasks: list[int] = []
    async with asyncio.timeout(WITHIN):
        while len(tasks) < STILL or len(set(tasks[-STILL:])) > 1:
            await asyncio.sleep(POLL * 4)
            look = soaked.look(0)
            tasks = [] if look.processes > processes or look.zombies else [*tasks, look.tasks]


# --- the table ---------------------------------------------------------------------------------------------


def _row(look: Look) -> str:
    return "| " + " | ".join(str(value) for value in asdict(look).values()) + " |"


def table(looks: list[Look]) -> str:
    names = [field.name for field in fields(Look)]
    return "\n".join(["| " + " | ".join(names) + " |", "|" + "---|" * len(names), *map(_row, looks)])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--processes", type=int, default=50)
    parser.add_argument("--per-second", type=float, default=PER_SECOND, help="turns that begin, at most")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        role.log_to_stderr(20)
        uvloop.run(_work())
        return 0
    looks = uvloop.run(soak(given.turns, given.sessions, given.processes, given.per_second))
    grown = looks[-1].grown_since(looks[BASE])
    print(table(looks))
    print(f"\ngrown: {', '.join(grown) or 'nothing'}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
