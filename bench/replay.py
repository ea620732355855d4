"""Viewers who all come back at once: how long until each has what it missed, and what others notice of it.

    python -m bench.replay [--viewers 100 --viewers 1000] [--json FILE]

They watch one running turn, lose their lines at the same moment and return with their `Last-Event-ID`. Beside
them twenty other streams run, without and with the return: their latencies are compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import uvloop

from bench import measure
from bench.streams import Bench

DELTAS = 50
"""Deltas a second of the turn that is watched."""
SECONDS = 12.0
"""How long it runs; the others as long."""
OTHERS, OTHERS_RATE = 20, 20.0
BEFORE = 3.0
"""Seconds of watching before the lines break."""
AWAY = 1.0
"""Seconds without a line: what is missed."""

_NUMBER = re.compile(rb"@(\d+) \d+ \d+@")
_ID = re.compile(rb"\nid: (\S+)\n\n")


class Viewer(asyncio.Protocol):
    """One viewer over its connections: the deltas that it has had, in order, each once."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.next = 0
        self.last_id = ""
        self.wrong = 0
        self.whole_at: float | None = None
        self.goal: int | None = None
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    async def connect(self, port: int) -> None:
        """Watch, from where it left off."""
        self._rest = b""
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)
        again = f"Last-Event-ID: {self.last_id}\r\n" if self.last_id else ""
        head = f"GET /v1/sessions/{self.session}/events HTTP/1.1\r\nHost: localhost\r\n{again}\r\n"
        transport.write(head.encode())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def cut(self) -> None:
        """Lose the line."""
        assert self._transport is not None
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        whole, _, self._rest = (self._rest + data).rpartition(b"\n\n")
        whole += b"\n\n"
        for found in _NUMBER.finditer(whole):
            number = int(found[1])
            self.wrong += number != self.next
            self.next = number + 1
        ids = _ID.findall(whole)
        if ids:
            self.last_id = ids[-1].decode()
        if self.goal is not None and self.whole_at is None and self.next >= self.goal:
            self.whole_at = time.monotonic()


async def ask(port: int, session: str) -> Viewer:
    """Post the message; the viewer that follows it."""
    viewer = Viewer(session)
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: viewer, "127.0.0.1", port)
    body = json.dumps({"session_id": session, "message": f"go {DELTAS} {round(DELTAS * SECONDS)}"})
    head = "POST /v1/chat/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return viewer


async def others(bench: Bench, port: int, prefix: str) -> dict[str, Any]:
    """The latencies of streams beside it."""
    argv = [bench.viewers, port, OTHERS, 1, OTHERS_RATE, round(OTHERS_RATE * (SECONDS - 2)), 1000, prefix]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*map(str, argv), stdout=pipe)
    output, _ = await process.communicate()
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


async def measured(bench: Bench, port: int, count: int) -> dict[str, Any]:
    """One row."""
    calm = await others(bench, port, f"calm{count}-")
    session = f"watched{count}"
    viewers = [Viewer(session) for _ in range(count)]
    await asyncio.gather(*(viewer.connect(port) for viewer in viewers))
    first = await ask(port, session)
    beside = asyncio.create_task(others(bench, port, f"beside{count}-"))
    await asyncio.sleep(BEFORE)
    for viewer in viewers:
        viewer.cut()
    await asyncio.sleep(AWAY)
    begun = time.monotonic()
    for viewer in viewers:
        viewer.goal = first.next
    await asyncio.gather(*(viewer.connect(port) for viewer in viewers))
    while any(viewer.whole_at is None for viewer in viewers):
        if time.monotonic() - begun > measure.WITHIN:
            raise SystemExit("bench: not all viewers are whole again")
        await asyncio.sleep(0.005)
    back = sorted((viewer.whole_at or 0) - begun for viewer in viewers)
    found = await beside
    return {
        "viewers": count,
        "missed_deltas": DELTAS * AWAY,
        "whole_p50_ms": round(statistics.median(back) * 1000, 1),
        "whole_all_ms": round(back[-1] * 1000, 1),
        "wrong": sum(viewer.wrong for viewer in viewers),
        "others_p99_ms": found["p99"],
        "others_p99_before_ms": calm["p99"],
        "others_lost": found["lost"] + found["repeated"],
    }


async def run(counts: list[int]) -> list[dict[str, Any]]:
    """Every row, each on a product of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), SECONDS)
        for count in counts:
            with bench.system("product", 4 * OTHERS) as served:
                rows.append(await measured(bench, served.port, count))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--viewers", type=int, action="append")
    parser.add_argument("--json", type=Path, help="file to write the figures to, too")
    options = parser.parse_args()
    rows = uvloop.run(run(options.viewers or [100, 1000]))
    print(measure.table(list(rows[0]), [list(row.values()) for row in rows]))
    measure.report(options.json, "replay", {"deltas": DELTAS, "away": AWAY}, rows)
    return int(any(row["wrong"] or row["others_lost"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
