"""Processes as the kernel shows them in /proc: who descends from whom, who works in a folder; and their end.

Standard library only: the guardian, which is not to weigh anything, uses it too. Where there is no /proc
(macOS) every question is answered with nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
HOMES = (b"HOME", b"TMPDIR", b"CLAUDE_CONFIG_DIR")
"""Variables that point into the folder of a CLI's session."""
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Seen:
    """A process. ``started`` (clock ticks since boot) tells it from a later one with the same number."""

    pid: int
    state: str
    parent: int
    session: int
    terminal: int  # 0: none
    started: int

    @property
    def runs(self) -> bool:
        """False for what has ended and only waits to be reaped."""
        return self.state not in "ZX"


def seen(pid: int) -> Seen | None:
    """The process of that number, if there is one."""
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The command name, in brackets, may hold anything; what follows the last bracket is fields.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return Seen(pid, fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[4]), int(fields[19]))


def everybody() -> Iterator[Seen]:
    """All processes; what ends during the walk may be missing."""
    for entry in os.scandir(PROC) if (PROC / "self").exists() else ():
        if entry.name.isdigit() and (found := seen(int(entry.name))):
            yield found


def children(parent: int) -> set[int]:
    """The processes that have this parent now, by birth or because their own has died."""
    try:
        threads = (PROC / str(parent) / "task").iterdir()
        listed = [(thread / "children").read_text() for thread in threads]
    except OSError:  # a kernel without these files
        return {process.pid for process in everybody() if process.parent == parent}
    return {int(pid) for text in listed for pid in text.split()}


def descendants(roots: Iterable[int]) -> set[int]:
    """All processes below `roots`, in whatever session or group."""
    below: dict[int, list[int]] = {}
    for process in everybody():
        below.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    pending = [child for root in roots for child in below.get(root, ())]
    while pending:
        pid = pending.pop()
        found.add(pid)
        pending += below.get(pid, ())
    return found


def works_in(process: Seen, folder: Path) -> bool:
    """Whether the process has its home in the folder, or is there itself.

    What a CLI starts inherits its environment and its working directory, whatever its session and parent. An
    operator who looks around in the folder is told from that by the terminal.
    """
    inside = os.fsencode(folder) + b"/"
    with contextlib.suppress(OSError):
        environment = b"\0" + (PROC / str(process.pid) / "environ").read_bytes()
        if any(b"\0" + name + b"=" + inside in environment for name in HOMES):
            return True
    with contextlib.suppress(OSError):
        here = os.fsencode((PROC / str(process.pid) / "cwd").readlink()) + b"/"
        return not process.terminal and here.startswith(inside)
    return False


def working_in(folder: Path) -> set[int]:
    """All processes that run and work in a folder, but for ourselves."""
    running = (process for process in everybody() if process.runs and process.pid != os.getpid())
    return {process.pid for process in running if works_in(process, folder)}


# --- end ---------------------------------------------------------------------------------------------------


def kill_trees(pids: Collection[int]) -> None:
    """Kill these processes and all their descendants; one walk over /proc for all of them.

    The roots are stopped first, so that they start nothing new during the walk.
    """
    signal_all(pids, signal.SIGSTOP)
    signal_all(descendants(pids) | set(pids), signal.SIGKILL)


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def signal_group(group: int, number: signal.Signals) -> None:
    """Signal a process group, if it is still there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def become_subreaper() -> bool:
    """Have descendants whose parent dies become our children, not init's; False where that cannot be."""
    return sys.platform == "linux" and not ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
