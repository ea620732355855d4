"""How much memory there is and is left, of the machine or of our container; and what processes take."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
MB = 1024 * 1024


def memory_mb(cgroup: Path = CGROUP) -> int:
    """What we may use at most."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MB
    limit = _number(cgroup / "memory.max")
    return physical if limit is None else min(physical, limit // MB)


def memory_left_mb(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int | None:
    """What can still be used without harm; None where nobody says."""
    left = [_available(meminfo), _left_in(cgroup)]
    return min((mb for mb in left if mb is not None), default=None)


def _available(meminfo: Path) -> int | None:
    """As the kernel reckons it: free memory, and caches that it can drop."""
    for line in text_of(meminfo).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return None


def _left_in(cgroup: Path) -> int | None:
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    if limit is None or used is None:
        return None
    stat = dict(line.split() for line in text_of(cgroup / "memory.stat").splitlines())
    return (limit - used + int(stat.get("inactive_file", 0))) // MB


def pss_mb(pid: int, proc: Path = Path("/proc")) -> float | None:
    """What a process takes: its own memory, and its share of what it has in common with others.

    The kernel walks all of its pages for that: some milliseconds for a real CLI. None if it is gone.
    """
    for line in text_of(proc / str(pid) / "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return None


def _number(path: Path) -> int | None:
    text = text_of(path).strip()
    return int(text) if text.isdigit() else None  # "max": no limit


def text_of(path: Path) -> str:
    """What the file says; nothing where there is none."""
    try:
        return path.read_text()
    except OSError:  # not Linux, or not in a container
        return ""
