"""A control group that a worker lives in with all that it starts, so that one write ends all of it.

Nothing leaves a group by itself: not by a session of its own, not by an empty environment. Version 2 of
cgroups has a file that kills; version 1 is frozen first, so that nothing forks while its members are killed.
Where the hierarchy may not be written (most containers) there is no group, and `guardian` goes by what works
in the worker's folder.

Standard library only: the guardian uses it.
"""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path

from warmwire.worker.machine import tree

MOUNTS = Path("/proc/self/mounts")
OURS = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class Group:
    """A group by its folder; `home` is the one that we came from."""

    path: Path
    home: Path

    def leave(self) -> None:
        """Go back to where we came from, and remove the group unless something is left in it."""
        with contextlib.suppress(OSError):
            move(self.home)
        remove(self.path)


def move(group: Path) -> None:
    """Move this process into the group of that folder. OSError if that is not allowed."""
    (group / "cgroup.procs").write_text("0")


def enter(name: str) -> Group | None:
    """Make a group of that name below our own and move into it; None where that is not allowed."""
    for home in _homes():
        path = home / name
        try:
            path.mkdir()
        except OSError:
            continue
        try:
            move(path)
        except OSError:
            path.rmdir()
            continue
        return Group(path, home)
    return None


def kill(path: Path) -> None:
    """End all that is in the group of that folder."""
    with contextlib.suppress(OSError):
        if (path / "cgroup.kill").exists():
            (path / "cgroup.kill").write_text("1")
            return
        (path / "freezer.state").write_text("FROZEN")
        tree.signal_all(map(int, (path / "cgroup.procs").read_text().split()), signal.SIGKILL)
    with contextlib.suppress(OSError):
        (path / "freezer.state").write_text("THAWED")


def remove(path: Path) -> bool:
    """Remove the group; False while it still has members."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _homes() -> list[Path]:
    """The folders of the groups that we are in and that can end their members; the best first."""
    try:
        mounts, ours = MOUNTS.read_text(), OURS.read_text()
    except OSError:
        return []
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in ours.splitlines())}
    found: list[Path] = []
    for _, at, kind, options, *_ in map(str.split, mounts.splitlines()):
        if kind == "cgroup2" and "" in paths:
            found.insert(0, Path(at + paths[""]))
        elif kind == "cgroup" and "freezer" in options.split(",") and "freezer" in paths:
            found.append(Path(at + paths["freezer"]))
    return [home for home in found if home.is_dir()]
