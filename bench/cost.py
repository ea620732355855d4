"""What it costs to watch: CPU per delta with tracing and metrics on, against off.

    python -m bench.cost [--load 100x20] [--seconds 20] [--rounds 8] [--json FILE]

Two products run side by side: `off` is as it is without settings; `on` exports every turn's spans to a
collector in another process (`collector.py`, real OTLP over HTTP), and the metrics of its edge and its worker
are read each second, as Prometheus would. In each round both have the same load at the same time, so that
whatever else the machine does is the same for both; who begins changes from round to round. Counted are whole
turns, from the requests to the last exported span: spans cost at beginnings and ends. Ends with 1 if `on`
takes more than 1.05 times the CPU of `off`.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench import measure
from bench.measure import Served
from bench.streams import WARM_APART, Bench, Load

AIM = 1.05
"""CPU per delta with all on, to that with all off, at most."""
APART = 5_000
"""Microseconds between the beginnings of two streams."""
SCRAPE_EVERY = 5.0
"""Seconds; three times as often as Prometheus is usually told to."""
EXPORT_WITHIN = 6.0
"""Seconds until the last spans of a round have been sent: more than the exporter's own 5."""


class Collector:
    """The receiver, in its own process."""

    def __init__(self) -> None:
        argv = [sys.executable, str(measure.BENCH / "collector.py")]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin, self.process.stdout
        self.port = int(self._out.readline())

    def taken(self) -> dict[str, int]:
        """Bytes that have come, by path."""
        self._in.write("?\n")
        self._in.flush()
        found: dict[str, int] = json.loads(self._out.readline())
        return found


@contextmanager
def collecting() -> Iterator[Collector]:
    """One, while it is needed."""
    collector = Collector()
    try:
        yield collector
    finally:
        collector.process.terminate()
        collector.process.wait(measure.LEAVING)


class Scraper(threading.Thread):
    """Reads metrics as Prometheus does."""

    def __init__(self, ports: tuple[int, ...]) -> None:
        super().__init__(daemon=True)
        self.scrapes = 0
        self.enough = threading.Event()
        self._urls = [f"http://127.0.0.1:{port}/metrics" for port in ports]

    def run(self) -> None:
        """Until it is enough."""
        while not self.enough.wait(SCRAPE_EVERY):
            for url in self._urls:
                with urllib.request.urlopen(url, timeout=measure.WITHIN) as answer:  # noqa: S310 - our own
                    text = answer.read()
                assert b"warmwire_" in text
            self.scrapes += 1


@contextmanager
def scraping(*ports: int) -> Iterator[Scraper]:
    """One, while it is needed."""
    scraper = Scraper(ports)
    scraper.start()
    try:
        yield scraper
    finally:
        scraper.enough.set()
        scraper.join()


def free_ports() -> int:
    """A port that is free, and the next one is, too."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first, socket.socket() as second:
            port: int = first.getsockname()[1]
            if second.connect_ex(("127.0.0.1", port + 1)) != 0 and port < 65_000:
                return port


def one_round(bench: Bench, both: Mapping[str, Served], load: Load, count: int) -> dict[str, Any]:
    """Every stream of both has one turn; CPU until all of them are over and exported."""
    before = {name: served.cpu() for name, served in both.items()}
    with ThreadPoolExecutor(len(both)) as pool:
        ran = {name: pool.submit(_ran, bench, served, load, count) for name, served in both.items()}
    time.sleep(EXPORT_WITHIN)
    rows = {}
    for name, served in both.items():
        last, deltas = ran[name].result(), load.streams * count
        us = {role: (used - before[name][role]) / deltas * 1e6 for role, used in served.cpu().items()}
        rows[name] = {"us": us, "us_total": sum(us.values()), "p50_ms": last["p50"], "p99_ms": last["p99"]}
    return rows


def _ran(bench: Bench, served: Served, load: Load, count: int) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for said in bench.run(served, load.streams, load.rate, count, APART):
        last = said
    if last["lost"] or last["refused"] or last["got"] < load.streams * count:
        raise SystemExit(f"bench: not every delta came: {last}")
    return last


def measured(folder: Path, options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rounds, and what was exported and read meanwhile. Each has new processes: no two cost the same."""
    bench, rounds, scrapes = Bench(folder, options.seconds), [], 0
    load, count = options.load, round(options.load.rate * options.seconds)
    with collecting() as collector:
        for number in range(options.rounds):
            order = ("off", "on") if number % 2 == 0 else ("on", "off")
            with pair(bench, folder / str(number), load, order, collector.port) as (both, scraper):
                rounds.append(one_round(bench, both, load, count))
                scrapes += scraper.scrapes
            print(json.dumps(rounds[-1]), file=sys.stderr)
        return rounds, {"exported_bytes": collector.taken(), "scrapes": scrapes}


@contextmanager
def pair(
    bench: Bench, folder: Path, load: Load, order: tuple[str, ...], collector: int
) -> Iterator[tuple[dict[str, Served], Scraper]]:
    """Both products, every session with its process."""
    folder.mkdir()
    metrics = free_ports()
    room = {"max_turns": load.streams + 8, "max_sessions": load.streams + 8}
    exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}"}
    with ExitStack() as stack:
        both = {}
        for name in order:
            how = (exporting, {"metrics_port": metrics}) if name == "on" else (None, {})
            made = measure.product(folder / name, str(bench.source), how[0], **room, **how[1])
            both[name] = stack.enter_context(made)
        scraper = stack.enter_context(scraping(metrics, metrics + 1))
        for served in both.values():
            list(bench.run(served, load.streams, 1000, 1, WARM_APART))
        time.sleep(EXPORT_WITHIN)  # the first export loads what the others find
        yield both, scraper


def summed(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians over the rounds, off and on."""
    rows = []
    for name in ("off", "on"):
        own = [each[name] for each in rounds]
        us = {role: statistics.median(row["us"][role] for row in own) for role in own[0]["us"]}
        rows.append(
            {"watched": name, "us": us}
            | {key: statistics.median(row[key] for row in own) for key in ("us_total", "p50_ms", "p99_ms")}
        )
    return rows


def ratio(rounds: list[dict[str, Any]]) -> float:
    """The median of the rounds' ratios: what else the machine does differs from round to round."""
    ratios: list[float] = [each["on"]["us_total"] / each["off"]["us_total"] for each in rounds]
    return statistics.median(ratios)


def shown(rows: list[dict[str, Any]]) -> str:
    """As a table."""
    head = ("tracing and metrics", "CPU µs a delta", "of which", "p50 / p99 ms")
    lines = []
    for row in rows:
        stages = " + ".join(f"{role} {us:.1f}" for role, us in row["us"].items())
        late = f"{row['p50_ms']:.1f} / {row['p99_ms']:.1f}"
        lines.append((row["watched"], f"{row['us_total']:.1f}", stages, late))
    return measure.table(head, lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--load", type=Load.parse, default=Load(100, 20), help="STREAMSxRATE, for each")
    parser.add_argument("--seconds", type=float, default=20, help="how long each turn takes")
    parser.add_argument("--rounds", type=int, default=8, help="in each both have the load")
    parser.add_argument("--json", type=Path, help="file to write the figures to, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rounds, seen = measured(Path(folder), options)
    found = ratio(rounds)
    print(shown(summed(rounds)))
    print(f"ratio {found:.3f}, aim {AIM}; {seen['scrapes']} scrapes; exported {seen['exported_bytes']}")
    given = {"load": str(options.load), "seconds": options.seconds, "rounds": options.rounds}
    measure.report(options.json, "cost", given | seen | {"ratio": found}, rounds)
    return int(found > AIM or not seen["exported_bytes"].get("/v1/traces"))


if __name__ == "__main__":
    sys.exit(main())
