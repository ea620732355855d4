"""What an emulator costs in memory, start-up and CPU per delta, next to a process that only writes.

    python bench/emulator.py [--processes 20] [--deltas 3000] [--rate 1000]

Bounded: it starts each process a fixed number of times and streams for about a minute at the defaults.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

Json = dict[str, object]

EMULATOR = Path(__file__).parents[1] / "worker/warmwire/worker/emulator.py"
PYTHON = (sys.executable, "-I", "-S", "-E")
FLAGS = ("--print", "--input-format=stream-json", "--output-format=stream-json", "--include-partial-messages")
INITIALIZE: Json = {"type": "control_request", "request_id": "1", "request": {"subtype": "initialize"}}
MESSAGE: Json = {"type": "user", "message": {"role": "user", "content": "Hello"}, "uuid": "bench"}
LIMIT = 60  # seconds that any one process may take
STARTS = 30
ROUNDS = 3

# Says when it is ready and waits: the least that a Python process can be.
BARE = "import posix; posix.write(1, b'ready\\n'); posix.read(0, 1)"
# Writes the same bytes at the same times and does nothing else; argv: lines, bytes of a line, lines a second.
WRITER = """
import posix, sys, time
count, size, rate = map(int, sys.argv[1:])
line = b"x" * (size - 1) + b"\\n"
start = time.monotonic()
for n in range(count):
    wait = start + n / rate - time.monotonic()
    if wait > 0:
        time.sleep(wait)
    posix.write(1, line)
"""


@contextmanager
def running(argv: tuple[str, ...], home: str, **settings: object) -> Iterator[subprocess.Popen[bytes]]:
    env = {f"WARMWIRE_EMULATOR_{name.upper()}": str(value) for name, value in settings.items()}
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=home, env={"HOME": home, **env}, stdin=pipe, stdout=pipe) as process:
        alarm = threading.Timer(LIMIT, process.kill)
        alarm.start()
        try:
            yield process
        finally:
            alarm.cancel()
            process.kill()


def emulator() -> tuple[str, ...]:
    return (*PYTHON, str(EMULATOR), *FLAGS)


def say(process: subprocess.Popen[bytes], *lines: Json) -> None:
    assert process.stdin
    process.stdin.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    process.stdin.flush()


def read_until(process: subprocess.Popen[bytes], mark: bytes) -> bytes:
    """The first line with `mark` in it."""
    assert process.stdout
    for line in process.stdout:
        if mark in line:
            return line
    raise EOFError(mark)


def pss(pid: int) -> float:
    """Proportional set size in MB: shared pages count by the number of their users."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def memory(argv: tuple[str, ...], home: str, count: int, first: Json | None, last: bytes) -> float:
    """Mean PSS of `count` processes that run at the same time, each after it has said `last`."""
    with ExitStack() as stack:
        processes = [stack.enter_context(running(argv, home, rate=1000)) for _ in range(count)]
        for process in processes:
            if first:
                say(process, first)
            read_until(process, last)
        return statistics.mean(pss(process.pid) for process in processes)


def start_up(argv: tuple[str, ...], home: str, first: Json | None) -> float:
    """Median milliseconds from spawn to the first line: the emulator's is its answer to `initialize`."""
    took = []
    for _ in range(STARTS):
        began = time.perf_counter()
        with running(argv, home) as process:
            if first:
                say(process, first)
            read_until(process, b"")
            took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def cpu(argv: tuple[str, ...], home: str, line: Json | None, **settings: object) -> float:
    """CPU seconds, user and system, of one process from start to end."""
    with running(argv, home, **settings) as process:
        assert process.stdin
        assert process.stdout
        if line:
            say(process, line)
        process.stdin.close()
        while os.read(process.stdout.fileno(), 1 << 16):
            pass
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, process.returncode
    return used.ru_utime + used.ru_stime


def cpu_per_delta(home: str, deltas: int, rate: int, size: int) -> tuple[float, float]:
    """Microseconds for one delta, of the emulator and of the writer; what start and end cost is taken off."""

    def emulated(count: int) -> float:
        return cpu(emulator(), home, MESSAGE, deltas=count, rate=rate)

    def written(count: int) -> float:
        return cpu((*PYTHON, "-c", WRITER, str(count), str(size), str(rate)), home, None)

    def each(measured: Iterator[float]) -> float:
        return statistics.median(measured) / (deltas - 1) * 1e6

    return (
        each(emulated(deltas) - emulated(1) for _ in range(ROUNDS)),
        each(written(deltas) - written(1) for _ in range(ROUNDS)),
    )


def delta_size(home: str) -> int:
    """Bytes of one delta's line."""
    with running(emulator(), home) as process:
        say(process, MESSAGE)
        return len(read_until(process, b"content_block_delta"))


def row(what: str, unit: str, ours: float, other: float) -> None:
    print(f"| {what} | {ours:.1f} {unit} | {other:.1f} {unit} | {ours / other:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=20, help="that share memory when it is measured")
    parser.add_argument("--deltas", type=int, default=3000, help="of one answer when CPU is measured")
    parser.add_argument("--rate", type=int, default=1000, help="deltas a second when CPU is measured")
    options = parser.parse_args()
    bare, ready, done = (*PYTHON, "-c", BARE), b"", b'"state":"completed"'
    with tempfile.TemporaryDirectory() as home:
        size = delta_size(home)
        print("| | emulator | bare process | ratio |\n|---|---|---|---|")
        least = memory(bare, home, options.processes, None, ready)
        row(
            "memory (PSS), ready", "MB", memory(emulator(), home, options.processes, INITIALIZE, ready), least
        )
        row(
            "memory (PSS), after a turn",
            "MB",
            memory(emulator(), home, options.processes, MESSAGE, done),
            least,
        )
        row("start to first line", "ms", start_up(emulator(), home, INITIALIZE), start_up(bare, home, None))
        for rate in (options.rate, 10**6):
            pace = f"at {rate}/s" if rate == options.rate else "as fast as it can"
            ours, other = cpu_per_delta(home, options.deltas, rate, size)
            row(f"CPU per delta of {size} bytes, {pace}", "µs", ours, other)


if __name__ == "__main__":
    main()
