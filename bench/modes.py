"""Streamed, or the whole answer at once: what a person waits for, and what it costs.

    python -m bench.modes [--requests 600] [--per-second 100] [--seconds 6] [--rate 20]

The same turns at 100 requests a second, each answered at 20 deltas a second (`--rate`): by the product, by a
FastAPI process that streams, and by one that collects the answer and sends it when it is whole. Who sees
nothing for five seconds counts as a person who has left.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import measure
from bench.streams import WARM_APART, Bench

MODES = {
    "streamed, warmwire": ("product", "/v1/chat/stream"),
    "streamed, one process": ("baseline", "/v1/chat/stream"),
    "whole answer at once": ("baseline", "/v1/chat"),
}


def measured(
    bench: Bench, mode: str, requests: int, per_second: float, seconds: float, rate: float
) -> dict[str, Any]:
    """One row."""
    system, path = MODES[mode]
    with bench.system(system, requests) as served:
        list(bench.run(served, requests, 1000, 1, WARM_APART))
        before, cpu = sum(served.memory().values()), sum(served.cpu().values())
        count, apart = round(rate * seconds), round(1e6 / per_second)
        begun = time.monotonic()
        seen = [
            (said, sum(served.memory().values()))
            for said in bench.run(served, requests, rate, count, apart, path)
        ]
        took = time.monotonic() - begun
        used = sum(served.cpu().values()) - cpu
    last, memory = seen[-1][0], [held for _, held in seen]
    return {
        "mode": mode,
        "first_text_p50_ms": last["wait_p50"],
        "first_text_p99_ms": last["wait_p99"],
        "left_percent": round(100 * last["abandoned"] / requests, 1),
        "lost": last["lost"],
        "memory_mb_mean": round(sum(memory) / len(memory) / 2**20, 1),
        "cpu_percent_of_a_core": round(100 * used / took, 1),
        "memory_kb_per_running_request": round(
            (max(memory) - before) / 1024 / min(requests, per_second * seconds), 1
        ),
        "cpu_ms_per_request": round(used / requests * 1000, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--per-second", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=6, help="how long each answer takes")
    parser.add_argument("--rate", type=float, default=20, help="deltas a second of each answer")
    parser.add_argument("--json", type=Path, help="file to write the figures to, too")
    options = parser.parse_args()
    given = {name: value for name, value in vars(options).items() if name != "json"}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.seconds)
        for mode in MODES:
            rows.append(measured(bench, mode, **given))
            print(json.dumps(rows[-1]), file=sys.stderr)
    head = (
        "mode",
        "first text p50",
        "p99",
        "left after 5 s",
        "memory",
        "a request",
        "CPU of a core",
        "a request",
    )
    print(measure.table(head, [_cells(row) for row in rows]))
    measure.report(options.json, "modes", given, rows)
    return int(any(row["lost"] for row in rows))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["mode"],
        f"{row['first_text_p50_ms']:.0f} ms",
        f"{row['first_text_p99_ms']:.0f} ms",
        f"{row['left_percent']} %",
        f"{row['memory_mb_mean']} MB",
        f"{row['memory_kb_per_running_request']} kB",
        f"{row['cpu_percent_of_a_core']} %",
        f"{row['cpu_ms_per_request']} ms",
    )


if __name__ == "__main__":
    sys.exit(main())
