"""A script beside each worker: when the worker is gone, however it went, so is all that it had started.

A CLI dies with its worker, by the kernel's hand. What the CLI has started does not: each tool has a session
of its own and is handed to init. Only a process that outlives the worker can end those at once.

It reads the worker's folder and, on the next line, the folder of the worker's control group (empty if it has
none); then nothing more until the pipe ends, as it does when the worker does. It has a session of its own, so
that a signal for the worker's group does not reach it.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

PATIENCE = 2.0  # seconds in which everything has to be gone
PAUSE = 0.02  # seconds between two looks


def start() -> None:
    sys.path.append(__file__.rpartition("/warmwire/worker/")[0])
    from warmwire.worker.machine import cgroup  # noqa: PLC0415 - needs the path

    folder, group = sys.stdin.readline().rstrip("\n"), sys.stdin.readline().rstrip("\n")
    if group:
        with contextlib.suppress(OSError):  # started by a worker in the group, it would end itself
            cgroup.move(Path(group).parent)
    sys.stdin.read()  # to its end, which is the worker's
    if folder:
        clear(Path(folder), Path(group) if group else None)


def clear(folder: Path, group: Path | None) -> None:
    """End whatever works in the folder or is in the group, until two looks in a row find nothing."""
    from warmwire.worker.machine import cgroup, tree  # noqa: PLC0415 - needs the path

    deadline, clean = time.monotonic() + PATIENCE, 0
    while clean < 2 and time.monotonic() < deadline:
        if group is not None:
            cgroup.kill(group)
        left = tree.working_in(folder)
        tree.kill_trees(left)
        empty = group is None or cgroup.remove(group)
        clean = clean + 1 if empty and not left else 0
        time.sleep(PAUSE)


if __name__ == "__main__":
    start()
