"""Our ends of a process's pipes. They alone close what they have been given, and once.

Not the loop's own transports: when uvloop closes one over a file object, it closes the descriptor twice, and
the second time it may be somebody else's by then, opened by another thread in between.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import IO

CHUNK = 256 * 1024  # bytes read at a time


class Incoming:
    """What a process says: each chunk is given to ``heard``; after the last ``ended`` is called, once."""

    def __init__(self, file: IO[bytes], heard: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._file = file
        self._heard = heard
        self._ended = ended
        os.set_blocking(file.fileno(), False)
        self._loop.add_reader(file.fileno(), self._read)

    def close(self) -> None:
        """Read no more."""
        if not self._file.closed:
            self._loop.remove_reader(self._file.fileno())
            self._file.close()

    def _read(self) -> None:
        try:
            data = os.read(self._file.fileno(), CHUNK)
        except BlockingIOError:
            return
        if data:
            self._heard(data)
        else:
            self.close()
            self._ended()


class Outgoing:
    """What a process is told. What it does not read at once waits here; ``waiting`` are its bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._loop = asyncio.get_running_loop()
        self._file = file
        self._buffer = bytearray()
        self.closing = False
        os.set_blocking(file.fileno(), False)

    @property
    def waiting(self) -> int:
        return len(self._buffer)

    def write(self, data: bytes) -> None:
        """Write now what can be written, the rest as soon as it can."""
        if self.closing:
            return
        done = 0 if self._buffer else self._write(data)
        if done < len(data) and not self.closing:
            if not self._buffer:
                self._loop.add_writer(self._file.fileno(), self._flush)
            self._buffer += memoryview(data)[done:]

    def close(self) -> None:
        """The end of what it is told, once all that waits has been written."""
        self.closing = True
        if not self._buffer:
            self.drop()

    def drop(self) -> None:
        """The end, at once."""
        self.closing = True
        if not self._file.closed:
            self._loop.remove_writer(self._file.fileno())
            self._buffer.clear()
            self._file.close()

    def _flush(self) -> None:
        done = self._write(self._buffer)
        del self._buffer[:done]
        if self._buffer or self._file.closed:
            return
        self._loop.remove_writer(self._file.fileno())
        if self.closing:
            self.drop()

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._file.fileno(), data)
        except BlockingIOError:
            return 0
        except BrokenPipeError:  # nobody reads any more; the process's end is heard elsewhere
            self.drop()
            return 0
