"""The data folder: made if missing, used by one `warmwire up` at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from warmwire.compose.errors import DataFolderError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Have the folder for as long as the block lasts. The kernel lets go of it however we end."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "lock").open("ab+", buffering=0)
    except OSError as error:
        raise _unwritable(folder, error) from error
    with lock:
        _take(lock, folder)
        yield


def _take(lock: IO[bytes], folder: Path) -> None:
    """Lock it, and write down who has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
    except BlockingIOError as error:
        raise DataFolderError(_in_use(folder)) from error
    except OSError as error:  # the disk is full
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> DataFolderError:
    return DataFolderError(f"data folder {folder} cannot be written: {error.strerror} (another one: --data)")


def _in_use(folder: Path) -> str:
    holder = (folder / "lock").read_text() or "unknown"
    remedy = "stop it, or choose another folder with --data (WARMWIRE_DATA)"
    return f"data folder {folder} is in use by process {holder}, another `warmwire up`: {remedy}"
