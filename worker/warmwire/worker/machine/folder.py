"""A worker's folder: its own while it lives, cleared by the next worker if it was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from time import time

from warmwire.broker.errors import BadInput
from warmwire.worker.machine import registry

_MAKING = ".making-"
"""Begins the name of a folder that is not locked yet."""
MADE_WITHIN = 600.0
"""Seconds after which nobody is making such a folder any more, which takes an instant."""


class ClaimedFolder:
    """A worker's own folder, locked while it lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Locked before it bears its name: another worker that starts now would take it for a dead one's.
        making = path.with_name(f"{_MAKING}{path.name}")
        making.mkdir(mode=0o700, parents=True)
        self._lock = os.open(making / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        making.rename(path)

    def remove(self) -> None:
        """The worker leaves."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def claimed_folder(data: Path, worker: str) -> ClaimedFolder:
    """Make the worker's folder and remove those of workers that are no more.

    Raises:
        BadInput: the data folder cannot be written.
    """
    home = data.absolute() / "workers"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = ClaimedFolder(home / worker)
    except OSError as error:
        raise BadInput("data", f"{data} cannot be written: {error.strerror}") from error
    for other in home.iterdir():
        if other.name != worker and _abandoned(other):
            registry.clear(other)
            shutil.rmtree(other, ignore_errors=True)
    return folder


def _abandoned(folder: Path) -> bool:
    try:
        if folder.name.startswith(_MAKING):
            return time() - folder.stat().st_mtime > MADE_WITHIN
        with (folder / "lock").open("rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return False  # it has just left
    return True
