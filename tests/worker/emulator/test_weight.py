from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import require
from tests.worker.emulator.cli import (
    DEADLINE,
    EMULATOR,
    LIGHT,
    Start,
)


def pss(pid: int) -> int:
    """Proportional set size in KiB: shared pages count by the number of their users."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def test_ten_emulators_take_at_most_6_mb_each(cli: Start, tmp_path: Path) -> None:
    require(Path("/proc/self/smaps_rollup").exists(), "/proc/*/smaps_rollup")
    running = [cli(home=tmp_path / f"home{n}", light=True) for n in range(10)]
    for each in running:
        each.turn()
    assert [] == [size for size in (pss(each.process.pid) for each in running) if size > 6 * 1024]


def test_it_imports_nothing_that_is_written_in_python_but_its_own() -> None:
    argv = [sys.executable, *LIGHT, "-X", "importtime", str(EMULATOR), "--version"]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=True).stderr
    imported = [line.rpartition("|")[2].strip() for line in told.splitlines()]
    bare = [*argv[:-2], "-c", ""]
    told = subprocess.run(bare, capture_output=True, text=True, timeout=DEADLINE, check=True).stderr
    needed = {line.rpartition("|")[2].strip() for line in told.splitlines()}
    own = [name for name in imported if name not in needed]
    sources = [name for name in own if not name.startswith("warmwire") and name in sys.stdlib_module_names]
    assert {"__future__", "_json", "_signal", "posix", "select", "time"} >= set(sources)
