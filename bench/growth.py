"""Does a delta cost more with more streams? The same total rate, spread over more and more of them.

    python -m bench.growth [--streams 100,200,500,1000,2000] [--total 4000] [--seconds 15] [--svg FOLDER]

The aim: what a delta costs at the most streams, as a ratio to the floor, within 25 % of that at the fewest.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import measure
from bench.plot import chart
from bench.streams import APART_MS, Bench, Load, shown

WITHIN = 1.25


def flatness(rows: list[dict[str, Any]]) -> float:
    """The ratio to the floor at the most streams, over that at the fewest."""
    by_load = {(row["system"], row["streams"]): row["us_total"] for row in rows}
    counts = sorted({row["streams"] for row in rows})
    ratios = [by_load["product", count] / by_load["floor", count] for count in (counts[0], counts[-1])]
    return float(ratios[1] / ratios[0])


def charts(rows: list[dict[str, Any]], folder: Path) -> None:
    """Latency and CPU against the number of streams, into two files."""
    ours = [row for row in rows if row["system"] == "product"]
    floor = [row for row in rows if row["system"] == "floor"]
    latency = {
        f"{name} {percentile}": [(row["streams"], row[percentile]) for row in some]
        for name, some in (("product", ours), ("floor", floor))
        for percentile in ("p50", "p99")
    }
    cpu = {role: [(row["streams"], row["us"][role]) for row in ours] for role in ours[0]["us"]}
    cpu["floor"] = [(row["streams"], row["us_total"]) for row in floor]
    across = "streams at once, at the same total rate"
    drawn = {
        "latency": chart("Added latency of a delta", across, "ms", latency, logarithmic=True),
        "cpu": chart("CPU per delta, by stage", across, "µs", cpu),
    }
    for name, svg in drawn.items():
        (folder / f"streams-{name}.svg").write_text(svg)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", default="100,200,500,1000,2000")
    parser.add_argument("--total", type=float, default=4000, help="deltas a second of all streams together")
    parser.add_argument("--seconds", type=float, default=15, help="how long all of them run together")
    parser.add_argument("--svg", type=Path, help="folder for the charts")
    parser.add_argument("--json", type=Path, help="file to write the figures to, too")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options.seconds, apart=round(APART_MS * 1000))
        for streams in map(int, options.streams.split(",")):
            for system in ("floor", "product"):
                rows.append(bench.measured(system, Load(streams, options.total / streams)))
                print(json.dumps(rows[-1]), file=sys.stderr)
    print(shown(rows))
    print(
        f"\nthe ratio to the floor, at the most streams over at the fewest: {flatness(rows):.2f} (≤ {WITHIN})"
    )
    if options.svg:
        charts(rows, options.svg)
    measure.report(options.json, "growth", {"total": options.total, "seconds": options.seconds}, rows)
    return int(any(row["lost"] or row["repeated"] for row in rows) or flatness(rows) > WITHIN)


if __name__ == "__main__":
    sys.exit(main())
