"""How many cores we may use: of the machine, of those that we are bound to, of our container."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from warmwire.worker.machine.cgroup import OURS
from warmwire.worker.machine.memory import CGROUP, text_of


def cores(cgroup: Path = CGROUP, ours: Path = OURS) -> float:
    """What we may use at most; a container may have half a one."""
    return granted(_bound_to(), map(_quota, _groups(cgroup, ours)))


def granted(usable: int, quotas: Iterable[str]) -> float:
    """The least of the cores that run us and of the quotas: µs of CPU in a period of so many; else none."""
    return min([float(usable), *(share for quota in quotas if (share := _share(quota)) is not None)])


def _share(quota: str) -> float | None:
    used, _, period = quota.strip().partition(" ")
    return int(used) / int(period) if used.isdigit() and period.isdigit() else None


def _bound_to() -> int:
    """Of the machine's cores those that we may run on (cpusets, taskset)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _groups(cgroup: Path, ours: Path) -> Iterator[Path]:
    """The folders of our control group and of those above it; with version 1 that of our container."""
    path = next((line for line in text_of(ours).splitlines() if line.startswith("0::/")), "0::/")
    here = cgroup / path.removeprefix("0::/")
    yield from (folder for folder in (here, *here.parents) if folder.is_relative_to(cgroup))
    yield cgroup / "cpu"


def _quota(folder: Path) -> str:
    of_version_1 = (text_of(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return text_of(folder / "cpu.max") or " ".join(of_version_1)
