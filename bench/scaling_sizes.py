"""What docs/scaling.md reckons with: what a process of the real CLI takes, and a session of a nats-server.

    python -m bench.scaling_sizes [--processes 20] [--sessions 20000] [--json FILE]

The CLI speaks to the stand-in API. The server is one, by itself. Records have the product's subjects and
usual sizes; each is synced (`sync_interval: always`) where writes a second are counted, not where sizes are.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import uvloop

from bench import measure, ttft
from warmwire.broker.nats import streams
from warmwire.broker.nats.bus import Bus, connect
from warmwire.broker.wire.names import SessionKey, Subjects
from warmwire.compose.nats.server import NatsServer

SUBJECTS = Subjects("ww")
TURNS = 4
"""Of each session."""
RECORD, ENTRY = b"r" * 1200, b"t" * 1500
"""A turn's record with a short answer; what a turn adds to a transcript."""
AT_ONCE = 200
WRITES = 4000


def cli(processes: int) -> dict[str, float]:
    """MB and milliseconds of CPU of processes that have had some turns."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ttft.stand_in() as api,
        ttft.product(Path(folder) / "p", "claude", api, spares=0, max_sessions=processes) as one,
    ):
        sessions = [str(uuid.uuid4()) for _ in range(processes)]
        for session in sessions * TURNS:
            one.first_delta(session)
        pids = one.clis()
        assert len(pids) >= processes, "every session has its process"
        sizes = [measure.memory(pid) / 2**20 for pid in pids]
        threads = [len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids]
        begun, used = time.monotonic(), sum(map(measure.cpu, pids))
        time.sleep(10)
        idle = (sum(map(measure.cpu, pids)) - used) / (time.monotonic() - begun) / len(pids)
    return {
        "processes": len(pids),
        "pss_mb": round(fmean(sizes), 1),
        "most_mb": round(max(sizes), 1),
        "threads": round(fmean(threads), 1),
        "idle_percent_of_a_core": round(100 * idle, 2),
    }


# --- a server ----------------------------------------------------------------------------------------------


@contextmanager
def served(folder: Path, *, sync: bool) -> Iterator[tuple[str, int]]:
    """A nats-server: its URL and process id."""
    server = NatsServer(folder)
    command = server.prepare()
    if not sync:
        config = Path(command[-1])
        config.write_text(config.read_text().replace("sync_interval: always", 'sync_interval: "2m"'))
    process = subprocess.Popen(command)
    try:
        measure.wait_for(lambda: server.url(process.pid), "nats-server listens", process)
        yield str(server.url(process.pid)), process.pid
    finally:
        process.terminate()
        process.wait(measure.LEAVING)


@asynccontextmanager
async def ready(url: str) -> AsyncIterator[Bus]:
    """A connection, the streams made."""
    bus = await connect(url, "bench")
    try:
        await streams.ensure(bus, SUBJECTS, 1, time.time_ns() // 1_000_000)
        yield bus
    finally:
        await bus.close()


async def all_of(calls: Iterator[Callable[[], Awaitable[object]]]) -> None:
    """Some at a time."""

    async def work() -> None:
        for call in calls:
            await call()

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def records(bus: Bus, first: int, sessions: int) -> Iterator[Callable[[], Awaitable[object]]]:
    """What a kept session has stored: an owner record, records of its turns, their transcript."""
    for number in range(first, first + sessions):
        key = SessionKey("tenant", str(uuid.UUID(int=number)))
        todo = [(SUBJECTS.owner(key), b"o" * 90)]
        todo += [(SUBJECTS.turn(key, str(uuid.UUID(int=turn))), RECORD) for turn in range(TURNS)]
        todo += [(SUBJECTS.transcript(key), ENTRY)] * TURNS
        for subject, data in todo:
            yield lambda subject=subject, data=data: bus.js.publish(subject, data)  # type: ignore[misc]


async def stored(url: str, pid: int, sessions: int) -> float:
    """KB of the server for a kept session."""
    async with ready(url) as bus:
        before = measure.memory(pid)
        await all_of(records(bus, 0, sessions))
        after = measure.memory(pid)
    return round((after - before) / 1024 / sessions, 2)


async def subscribed(url: str, pid: int, many: int) -> float:
    """KB of the server for one subscription."""

    async def ignore(_: object) -> None:
        return None

    async with ready(url) as bus:
        before = measure.memory(pid)
        for number in range(many):
            await bus.subscribe(SUBJECTS.control(SessionKey("tenant", str(uuid.UUID(int=number)))), ignore)  # type: ignore[arg-type]
        await bus.flush()
        return round((measure.memory(pid) - before) / 1024 / many, 2)


async def written(url: str, pid: int) -> dict[str, float]:
    """Writes a second over the three streams, each on disk before it is acknowledged; CPU of the server."""
    async with ready(url) as bus:
        begun, used = time.monotonic(), measure.cpu(pid)
        await all_of(iter(list(records(bus, 0, WRITES // 9))))
        seconds, cpu = time.monotonic() - begun, measure.cpu(pid) - used
    return {"writes_per_second": round(WRITES / seconds), "cpu_us_per_write": round(1e6 * cpu / WRITES)}


def nats(sessions: int) -> dict[str, Any]:
    """All figures of a server."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with served(folder / "stored", sync=False) as (url, pid):
            found: dict[str, Any] = {"memory_kb": uvloop.run(stored(url, pid, sessions))}
            disk = sum(file.stat().st_size for file in folder.rglob("*.blk"))
            found["disk_kb"] = round(disk / 1024 / sessions, 2)
        with served(folder / "subscribed", sync=False) as (url, pid):
            found["subscription_kb"] = uvloop.run(subscribed(url, pid, sessions))
        with served(folder / "written", sync=True) as (url, pid):
            found |= uvloop.run(written(url, pid))
    return {"sessions": sessions, **found}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--json", type=Path, help="file to write the figures to, too")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = [nats(options.sessions), dict(cli(options.processes))]
    for row in rows:
        print(measure.table(list(row), [list(row.values())]), end="\n\n")
    measure.report(options.json, "sizes", {}, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
