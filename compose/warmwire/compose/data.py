"""The data folder: made if missing, used by one `warmwire up` at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import DataFolderError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Have the folder for as long as the block lasts. The kernel lets go of it however we end."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise DataFolderError(f"data folder {folder} cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataFolderError(_in_use(folder)) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _in_use(folder: Path) -> str:
    holder = (folder / "lock").read_text() or "unknown"
    return f"data folder {folder} is in use by process {holder}, another `warmwire up`: see --data"
