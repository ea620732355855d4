"""Ours next to other systems that bring a process's output to viewers: same sources, viewers, rate.

    python -m bench.peers [--load 100x10] [--system NAME] [--seconds 6] [--rounds 1] [--json FILE] [--check]

Systems take turns under each load. One that did not keep up with a load is not given a larger one. A peer
that is not installed here is named, with what installs it; the exit code is 1 then, unless `--allow-missing`
is given.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from bench import measure
from bench.measure import Served
from bench.peers.systems import LITELLM, PEERS, RESUMABLE, versions
from bench.streams import Bench, Load, row

OURS = ("floor", "baseline", "product")
LOADS = (Load(100, 10), Load(200, 20), Load(1000, 10), Load(1000, 20))
APART = 5.0
"""Milliseconds between the beginnings of two streams."""
WARM_APART = 3_000
"""Microseconds between two sessions that get their process."""
WARM = 10, 2
"""Rate and number of deltas of each session's first turn: one that is over at once could not be followed."""
WARM_GRACE, GRACE = 45.0, 4.0
"""Seconds after its time that the first turns, and the measured ones, may take to be whole."""
KEEPS_UP = 0.95
"""Share of the offered rate from which on a system counts as one that keeps up."""


class Peers(Bench):
    """The same helpers, with more systems, and for a bounded time."""

    apart = round(APART * 1000)

    def start(self, name: str, streams: int) -> AbstractContextManager[Served]:
        """One system, by its name."""
        if name in OURS:
            return self.system(name, streams)
        self._started += 1
        return PEERS[name].running(self._folder / f"peer-{self._started}", self.source)

    def compared(self, name: str, load: Load) -> dict[str, Any]:
        """One row: a system under a load."""
        path = PEERS[name].path if name in PEERS else "/v1/chat/stream"
        ramp = load.streams * self.apart / 1e6
        count = round(load.rate * (ramp + self._seconds))
        with self.start(name, load.streams) as served:
            self.grace = WARM_GRACE
            warm = list(self.run(served, load.streams, *WARM, WARM_APART, path))[-1]
            if warm["begun"] < load.streams:
                print(f"bench: {name}: {warm['begun']} of {load.streams} sessions began", file=sys.stderr)
            self.grace = GRACE
            saying = self.run(served, load.streams, load.rate, count, self.apart, path)
            seen = [(said, served.cpu()) for said in saying]
        return compare(name, load, seen, ramp, count)


def compare(
    name: str, load: Load, seen: list[tuple[dict[str, Any], dict[str, float]]], ramp: float, count: int
) -> dict[str, Any]:
    """What was seen while all streams ran; where not all of them began in time, from when all had asked."""
    last = seen[-1][0]
    steady = [look for look in seen[:-1] if look[0]["open"]]
    if len(steady) < 2:
        steady = [look for look in seen[:-1] if look[0]["at"] - seen[0][0]["at"] >= ramp]
    offered = load.streams * load.rate
    figures = row(name, load, steady, last)
    return figures | {
        "offered": offered,
        "begun": last["begun"],
        "late": load.streams * count - last["got"] - last["lost"],
        "keeps_up": figures["achieved"] >= KEEPS_UP * offered and last["begun"] == load.streams,
    }


def shown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table, next to ours in the same round under the same load."""
    ours = {(one["round"], one["streams"], one["rate"]): one for one in rows if one["system"] == "product"}
    lines = [_cells(one, ours.get((one["round"], one["streams"], one["rate"]))) for one in rows]
    head = ("load", "system", "rate", "lost / repeated / not in time", "p50 / p99 ms", "CPU µs an event")
    return measure.table((*head, "× warmwire", "of which"), lines)


def _cells(one: dict[str, Any], ours: dict[str, Any] | None) -> tuple[object, ...]:
    parts = {role: us for role, us in one["us"].items() if us}
    return (
        f"{one['streams']} × {one['rate']:g}/s",
        one["system"],
        f"{one['achieved']}/s" + ("" if one["keeps_up"] else f" of {one['offered']:g}"),
        f"{one['lost']} / {one['repeated']} / {one['late']}",
        f"{one['p50']:.1f} / {one['p99']:.1f}" if one["samples"] else "none",
        one["us_total"],
        f"{one['us_total'] / ours['us_total']:.2f}" if ours else "",
        " + ".join(f"{role} {us}" for role, us in parts.items()) if len(parts) > 1 else "",
    )


def install() -> None:
    """What only the benchmark needs: LiteLLM into an environment of its own, resumable-stream by npm."""
    if not (LITELLM / "bin/litellm").exists():
        print("installing LiteLLM into bench/peers/.venv (740 MB) ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", LITELLM], check=True)
        pip = [str(LITELLM / "bin/python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-r", str(LITELLM.parent / "requirements.txt")], check=True)
    if not (RESUMABLE / "node_modules").exists():
        beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(["npm", "ci"], cwd=RESUMABLE, check=True, env=os.environ | {"PATH": beside})


def missing(names: Iterable[str]) -> dict[str, list[str]]:
    """What is not here, by peer, with what installs it; each is said."""
    lacking = {name: PEERS[name].lacking() for name in names if name in PEERS}
    for name, what in lacking.items():
        print(f"{name}: {'; '.join(what) if what else 'installed'}", file=sys.stderr)
    return {name: what for name, what in lacking.items() if what}


def rounds(
    bench: Peers, names: list[str], loads: Iterable[Load], times: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """All rows, and what could not be measured."""
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    behind: set[str] = set()
    for number in range(times):
        behind.clear()
        for load in loads:
            for name in (name for name in names if name not in behind):
                try:
                    began = time.monotonic()
                    rows.append({"round": number} | bench.compared(name, load))
                    rows[-1]["took"] = round(time.monotonic() - began, 1)
                except (
                    OSError,
                    SystemExit,
                ) as why:  # one that dies does not take the others' figures with it
                    failures.append(f"{name} at {load.streams} × {load.rate:g}/s: {why}")
                    print(f"bench: {failures[-1]}", file=sys.stderr)
                    behind.add(name)
                    continue
                print(json.dumps(rows[-1]), file=sys.stderr)
                behind |= set() if rows[-1]["keeps_up"] else {name}
    return rows, failures


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--load", action="append", type=Load.parse, help="STREAMSxRATE; more than one may be given"
    )
    parser.add_argument("--system", action="append", choices=(*OURS, *PEERS))
    parser.add_argument("--seconds", type=float, default=6, help="how long all of them run together")
    parser.add_argument("--apart", type=float, default=APART, help="ms between the beginnings of two streams")
    parser.add_argument("--rounds", type=int, default=1, help="times that all is measured")
    parser.add_argument("--check", action="store_true", help="only say what is installed, and what is not")
    parser.add_argument("--install", action="store_true", help="install first what only this needs")
    parser.add_argument(
        "--allow-missing", action="store_true", help="measure what is there, and do not fail for the rest"
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to, too")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    names = options.system or [*OURS, *PEERS]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started ends with us
    if options.install:
        install()
    lacking = missing(names)
    failed = int(bool(lacking) and not options.allow_missing)
    if options.check:
        return failed
    there = [name for name in names if name not in lacking]
    with tempfile.TemporaryDirectory() as folder:
        bench = Peers(Path(folder), options.seconds)
        bench.apart = round(options.apart * 1000)
        rows, failures = rounds(bench, there, options.load or LOADS, options.rounds)
    print(shown(rows))
    settings = {
        "seconds": options.seconds,
        "apart": options.apart,
        "rounds": options.rounds,
        "versions": versions(there),
    }
    measure.report(options.json, "peers", settings | {"missing": lacking, "failed": failures}, rows)
    return failed or int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
