"""Many streams at once: how late each delta is, and what it costs, next to the floor and the baseline.

    python -m bench.streams [--load 200x20 --load 1000x20] [--seconds 20] [--rounds 1] [--json FILE]

Each session is a source process (`native/source.c`) that writes deltas with the time in them; each has one
viewer (`native/viewers.c`), who compares. Systems take turns in one run: `product` is `warmwire up`, `floor`
copies pipes to sockets, `baseline` is FastAPI with a StreamingResponse. CPU is counted while all streams run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import measure
from bench.measure import Served

APART = 20_000
"""Microseconds between the beginnings of two streams, unless said otherwise."""
APART_MS = 41.3
"""The same in milliseconds, here: of a thousand streams that last a minute 17 begin in a second. No part of a
period, or all streams would speak in the same moments, which costs less and is later."""
WARM_APART = 12_000
"""Microseconds between two sessions that get their process."""


@dataclass(frozen=True)
class Load:
    """Streams at once, and deltas a second of each."""

    streams: int
    rate: float

    @classmethod
    def parse(cls, text: str) -> Load:
        """From `200x20`."""
        streams, _, rate = text.partition("x")
        return cls(int(streams), float(rate))


class Bench:
    """The helpers, compiled, and where things are put."""

    grace = 1e6
    """Seconds after its time that a run may take to be whole."""

    def __init__(
        self, folder: Path, seconds: float, edges: int = 1, workers: int = 1, apart: int = APART
    ) -> None:
        self.source = measure.native("source", folder)
        self.viewers = measure.native("viewers", folder)
        self._folder = folder
        self._seconds = seconds
        self._apart = apart
        self._roles = {"edges": edges, "workers": workers}
        self._started = 0

    def system(self, name: str, streams: int) -> AbstractContextManager[Served]:
        """Start one."""
        if name != "product":
            return measure.script(name, str(self.source))
        self._started += 1
        folder = self._folder / f"product-{self._started}"
        room = {"max_turns": streams + 8, "max_sessions": streams + 8}
        return measure.product(folder, str(self.source), **room, **self._roles)

    def measured(self, name: str, load: Load) -> dict[str, Any]:
        """One row: a system under a load."""
        with self.system(name, load.streams) as served:
            empty = served.memory()
            for _ in self.run(served, load.streams, 1000, 1, WARM_APART):
                pass
            idle = served.memory()
            count = round(load.rate * (load.streams * self._apart / 1e6 + self._seconds))
            steady: list[tuple[dict[str, Any], dict[str, float]]] = []
            last: dict[str, Any] = {}
            for last in self.run(served, load.streams, load.rate, count, self._apart):
                if last["open"]:
                    steady.append((last, served.cpu()))
            running = served.memory()
        return row(name, load, steady, last) | {
            "idle_kb_per_session": per(idle, empty, load.streams),
            "after_kb_per_session": per(running, empty, load.streams),
        }

    def run(
        self, served: Served, streams: int, rate: float, count: int, apart: int, path: str = "/v1/chat/stream"
    ) -> Iterator[dict[str, Any]]:
        """A viewer for each stream; what they say every second, and at their end."""
        argv = [self.viewers, served.port, streams, 1, rate, count, apart, "s", path]
        argv.append(count / rate + self.grace)
        with subprocess.Popen(list(map(str, argv)), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for line in process.stdout:
                yield json.loads(line)


def per(after: dict[str, int], before: dict[str, int], streams: int) -> dict[str, float]:
    """Kilobytes per session, by role."""
    return {role: round((after[role] - before[role]) / 1024 / streams, 1) for role in after}


def row(
    name: str, load: Load, steady: list[tuple[dict[str, Any], dict[str, float]]], last: dict[str, Any]
) -> dict[str, Any]:
    """What was seen, per delta."""
    if len(steady) < 2:
        raise SystemExit(f"bench: {name} never had all {load.streams} streams running: {last}")
    (from_, cpu_from), (to, cpu_to) = steady[0], steady[-1]
    deltas = max(1, to["got"] - from_["got"])
    micros = {role: round((cpu_to[role] - cpu_from[role]) / deltas * 1e6, 1) for role in cpu_to}
    return {
        "system": name,
        "streams": load.streams,
        "rate": load.rate,
        "achieved": round(deltas / (to["at"] - from_["at"])),
        "us": micros,
        "us_total": round(sum(micros.values()), 1),
        "us_viewers": round((to["cpu"] - from_["cpu"]) / deltas * 1e6, 1),
        **{name: last[name] for name in ("got", "lost", "repeated", "refused", "p50", "p90", "p99", "max")},
        **{name: last[name] for name in ("samples", "first_p50", "first_p99", "first_max")},
    }


def shown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table; CPU as ratios to the floor of the same load."""
    floors = {(row["streams"], row["rate"]): row["us_total"] for row in rows if row["system"] == "floor"}
    lines = []
    for row in rows:
        floor = floors.get((row["streams"], row["rate"]))
        stages = " + ".join(f"{role} {us}" for role, us in row["us"].items()) if len(row["us"]) > 1 else ""
        lines.append(
            (
                row["system"],
                f"{row['streams']} × {row['rate']:g}/s",
                f"{row['achieved']}/s",
                f"{row['lost']} / {row['repeated']}",
                f"{row['p50']:.1f} / {row['p99']:.1f} / {row['max']:.0f}",
                f"{row['first_p50']:.0f} / {row['first_p99']:.0f}",
                row["us_total"],
                f"{row['us_total'] / floor:.2f}" if floor else "",
                stages,
            )
        )
    head = ("system", "load", "rate", "lost / repeated", "p50 / p99 / max ms", "first p50 / p99 ms")
    return measure.table((*head, "CPU µs a delta", "× floor", "of which"), lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--load", action="append", type=Load.parse, help="STREAMSxRATE; more than one may be given"
    )
    parser.add_argument("--system", action="append", choices=("product", "floor", "baseline"))
    parser.add_argument("--seconds", type=float, default=20, help="how long all of them run together")
    parser.add_argument(
        "--apart", type=float, default=APART_MS, help="milliseconds between the beginnings of two streams"
    )
    parser.add_argument("--rounds", type=int, default=1, help="times that all is measured")
    parser.add_argument("--edges", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file to write the figures to, too")
    options = parser.parse_args()
    loads = options.load or [Load(200, 20), Load(1000, 10), Load(1000, 20)]
    apart = round(options.apart * 1000)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.seconds, options.edges, options.workers, apart)
        for _ in range(options.rounds):
            for load in loads:
                for name in options.system or ("floor", "baseline", "product"):
                    rows.append(bench.measured(name, load))
                    print(json.dumps(rows[-1]), file=sys.stderr)
    print(shown(rows))
    settings = {name: getattr(options, name) for name in ("seconds", "apart", "edges", "workers")}
    measure.report(options.json, "streams", settings, rows)
    return int(any(row["lost"] or row["repeated"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
