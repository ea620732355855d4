"""Which CLI processes a worker has, on disk, for whoever clears up after it: one empty file for each.

A file's name is the process's number and start time (a number alone may by then be somebody else's); the
folder's name is that of the boot, before which nothing lives.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from time import monotonic, sleep

from warmwire.worker.machine import cgroup, tree

BOOT = Path("/proc/sys/kernel/random/boot_id")
FOLDER = "processes"
GROUP = "cgroup"
GROUP_ENDS_WITHIN = 1.0
"""Seconds."""


class Registry:
    """The processes of the worker that has this folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER / _boot()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._entries: dict[int, Path] = {}

    def add(self, pid: int) -> None:
        """It was started just now."""
        if found := tree.seen(pid):
            entry = self._entries[pid] = self._folder / f"{pid}-{found.started}"
            entry.touch(mode=0o600)

    def remove(self, pid: int) -> None:
        """It has ended."""
        entry = self._entries.pop(pid, None)
        if entry is not None:
            with contextlib.suppress(OSError):  # what is left names what is no more, and misleads nobody
                entry.unlink()

    def running(self) -> set[int]:
        """Those on disk that run still."""
        return {pid for pid, started in map(_parts, self._folder.iterdir()) if _runs(pid, started)}


def clear(folder: Path) -> int:
    """End what a worker that is no more has left running; returns how many processes that were.

    Its guardian has done so long before, unless that was killed with it.
    """
    left = tree.working_in(folder)
    if (folder / FOLDER / _boot()).is_dir():
        left |= Registry(folder).running()
    tree.kill_trees(left)
    with contextlib.suppress(FileNotFoundError):
        _end_group(Path((folder / GROUP).read_text()))
    return len(left)


def _end_group(group: Path) -> None:
    """Waits a moment, as a group can only be removed once its members have ended."""
    until = monotonic() + GROUP_ENDS_WITHIN
    cgroup.kill(group)
    while not cgroup.remove(group) and monotonic() < until:
        sleep(GROUP_ENDS_WITHIN / 100)


def _boot() -> str:
    try:
        return BOOT.read_text().strip()
    except OSError:
        return "this"


def _parts(entry: Path) -> tuple[int, int]:
    pid, _, started = entry.name.partition("-")
    return int(pid), int(started)


def _runs(pid: int, started: int) -> bool:
    found = tree.seen(pid)
    return found is not None and found.runs and found.started == started
