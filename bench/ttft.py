"""Time to the first delta, through the whole product, by what the pool has of a process for the session.

    python -m bench.ttft [--rounds 15] [--cli claude] [--json FILE]

From just before the HTTP request is sent to the first `content_block_delta` at the client. The CLI is the
real one; the API is the stand-in, which answers at once, so that what is measured is ours and the CLI's.
Three `warmwire up` run beside each other, as cold, adopted and frozen sessions want different settings, and
each round takes one sample of everything, so that whatever else the machine does falls on all alike. What is
compared are ratios to cold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench import measure
from bench.measure import WITHIN, below, up, wait_for

ROOT = Path(__file__).parents[1]
QUIET = 0.3  # seconds before each sample: what the sample before has set off is over
MARK = "--input-format=stream-json"  # in the command line of every CLI

AIMS = {"adopted": 0.35, "pinned": 0.15, "frozen": 0.2}
SAYS = {
    "cold": "a new conversation, no spare",
    "adopted": "a new conversation, on a spare",
    "pinned": "the next turn, its process warm",
    "frozen": "the next turn, its process frozen",
    "parked": "the next turn, its process gone: resumed",
}


@dataclass
class Product:
    """One `warmwire up`."""

    process: subprocess.Popen[bytes]
    errors: Path
    client: httpx.Client

    def first_delta(self, session: str) -> float:
        """Milliseconds to the first delta of one turn, which is then read to its end."""
        body, first = {"session_id": session, "message": "Hello"}, 0.0
        begun = time.perf_counter()
        with self.client.stream("POST", "/v1/chat/stream", json=body) as answer:
            for line in answer.iter_lines():
                if not first and "content_block_delta" in line:
                    first = time.perf_counter() - begun
                assert "turn_failed" not in line, line
        assert first, "a turn without a delta"
        return first * 1000

    def log(self, words: str) -> int:
        """How often its roles have said this."""
        return self.errors.read_text().count(words)

    def clis(self) -> list[int]:
        """The CLI processes below it."""
        return [pid for pid, command in below(self.process.pid) if MARK in command]

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Until it holds."""
        wait_for(condition, f"{what} ({self.errors})", self.process)


@contextmanager
def product(folder: Path, cli: str, api: str, **settings: object) -> Iterator[Product]:
    """A product while it is needed, ready."""
    environment = {
        "ANTHROPIC_BASE_URL": api,
        "ANTHROPIC_API_KEY": "made up",
        "WARMWIRE_EMULATOR_TTFT_MS": "0",
    }
    with up(folder, cli, environment, **settings) as started:
        url = f"http://127.0.0.1:{started.port}"
        with httpx.Client(base_url=url, timeout=WITHIN) as client:
            yield Product(started.process, started.errors, client)


@contextmanager
def stand_in() -> Iterator[str]:
    """The URL of a stand-in API in a process of its own."""
    argv = [sys.executable, "-m", "tests.standin.messages_api", "--text", "one two three"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().decode().removeprefix("ready ").strip()
        finally:
            process.terminate()


def _stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1] == ["T"]
    except OSError:  # it has ended meanwhile
        return False


Sample = dict[str, float]


def plain(one: Product) -> Sample:
    """A first turn without a spare, and a later one."""
    session = str(uuid.uuid4())
    cold = one.first_delta(session)
    time.sleep(QUIET)
    one.first_delta(session)  # the second turn of a CLI still has things to do for the first time
    time.sleep(QUIET)
    return {"cold": cold, "pinned": one.first_delta(session)}


def adopting(one: Product, number: int) -> Sample:
    """A first turn on the spare; each adoption is followed by a new spare."""
    one.wait(lambda: one.log("spare ready") > number, "a spare is ready")
    time.sleep(QUIET)
    return {"adopted": one.first_delta(str(uuid.uuid4()))}


def leaving(one: Product) -> Sample:
    """A turn after a pause, and one after a longer pause."""
    session = str(uuid.uuid4())
    one.first_delta(session)
    one.first_delta(session)
    one.wait(lambda: any(map(_stopped, one.clis())), "the process is frozen")
    frozen = one.first_delta(session)
    one.wait(lambda: not one.clis(), "the process is parked")
    time.sleep(QUIET)
    return {"frozen": frozen, "parked": one.first_delta(session)}


def measured(rounds: int, cli: str) -> dict[str, list[float]]:
    """Milliseconds per tier; the first round warms up the machine and is not counted."""
    found: dict[str, list[float]] = {tier: [] for tier in SAYS}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        api = stack.enter_context(stand_in())
        cold = stack.enter_context(product(folder / "cold", cli, api, spares=0, park_after=4))
        adopted = stack.enter_context(product(folder / "adopted", cli, api, spares=1, park_after=1))
        frozen = stack.enter_context(
            product(folder / "frozen", cli, api, spares=0, freeze_after=0.2, park_after=3)
        )
        for number in range(rounds + 1):
            sample = plain(cold) | adopting(adopted, number) | leaving(frozen)
            for tier, ms in sample.items():
                found[tier] += [ms] if number else []
            print(f"{number:3}", {tier: round(ms) for tier, ms in sample.items()}, file=sys.stderr)
    return found


def summary(found: dict[str, list[float]]) -> list[dict[str, object]]:
    """One row per tier."""
    cold = statistics.median(found["cold"])
    rows: list[dict[str, object]] = []
    for tier, samples in found.items():
        median = statistics.median(samples)
        rows.append(
            {
                "tier": tier,
                "what": SAYS[tier],
                "median_ms": round(median, 1),
                "least_ms": round(min(samples), 1),
                "most_ms": round(max(samples), 1),
                "ratio": round(median / cold, 3),
                "aim": AIMS.get(tier),
            }
        )
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown."""
    cells = [
        (
            f"{row['tier']}: {row['what']}",
            f"{row['median_ms']} ms",
            f"{row['least_ms']} to {row['most_ms']} ms",
            row["ratio"],
            f"≤ {row['aim']}" if row["aim"] else "",
        )
        for row in rows
    ]
    return measure.table(("", "median", "least to most", "ratio to cold", "aim"), cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="samples of each")
    parser.add_argument("--cli", default="claude", help="as for warmwire up")
    parser.add_argument("--json", type=Path, help="file to write the figures to, too")
    options = parser.parse_args()
    found = measured(options.rounds, options.cli)
    rows = summary(found)
    print(table(rows))
    if options.json:
        report = {"cli": options.cli, "rounds": options.rounds, "rows": rows, "samples_ms": found}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    missed = [row["tier"] for row in rows if row["aim"] and float(str(row["ratio"])) > float(str(row["aim"]))]
    if missed and options.cli == "claude":  # the aims are for the real CLI
        print(f"bench: not within its aim: {', '.join(map(str, missed))}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
