"""Our ends of a process's pipes. They alone close what they have been given, and once.

Not the loop's own transports: when uvloop closes one over a file object, it closes the descriptor twice, and
the second time it may be somebody else's by then, opened by another thread in between.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from typing import IO, Any, Protocol

from warmwire.broker.telemetry import delta_delay

FIRST = 8 * 1024
"""Bytes read at first. To make room for many costs 30 times what it costs to read a delta."""
CHUNK = 256 * 1024
"""Bytes read if those were not all."""
PIPES = 1024
"""Pipes that are read in one round; more have their turn in the next."""
SAMPLE = 64
"""Of so many rounds the delay of one is measured."""


class Readers(Protocol):
    """Calls back when a file can be read: the event loop, or ``Rounds``."""

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> Any:
        """Call when there is something to read."""

    def remove_reader(self, fd: int, /) -> Any:
        """Call no more; the file is still open."""


class Rounds:
    """Reads many pipes in rounds that begin ``window`` seconds apart at least.

    A wake-up costs more than what it is for. When all is quiet the first byte begins a round at once; what
    comes meanwhile on other pipes is read in the next one, with one wake-up for all. Needs epoll, thus Linux.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._ended = 0.0
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rest()

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """Call when there is something to read."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def remove_reader(self, fd: int) -> None:
        """Call no more; the file is still open."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        """No round begins any more."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            if self._timer is not None:
                self._timer.cancel()
            self._epoll.close()

    def _rest(self) -> None:
        self._loop.add_reader(self._epoll.fileno(), self._begin)

    def _begin(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._read()

    def _next(self) -> None:
        self._timer = None
        self._number += 1
        if self._number % SAMPLE == 1:
            delta_delay.record(self._loop.time() - self._ended)
        self._read()

    def _read(self) -> None:
        ready = self._epoll.poll(0, PIPES)
        if not ready:
            self._rest()
            return
        try:
            for fd, _ in ready:
                callback = self._callbacks.get(fd)
                if callback is not None:  # else closed by one before it in this round
                    callback()
        finally:  # a callback that fails is the loop's business; the others are read in the next round
            self._ended = self._loop.time()
            self._timer = self._loop.call_at(self._ended + self._window, self._next)


class Incoming:
    """What a process says: each chunk is given to ``heard``; after the last ``ended`` is called, once."""

    def __init__(
        self,
        file: IO[bytes],
        heard: Callable[[bytes], None],
        ended: Callable[[], None],
        readers: Readers | None = None,
    ) -> None:
        self._readers: Readers = readers or asyncio.get_running_loop()
        self._file = file
        self._fd = file.fileno()
        self._heard = heard
        self._ended = ended
        os.set_blocking(self._fd, False)
        self._readers.add_reader(self._fd, self._read)

    def close(self) -> None:
        """Read no more."""
        if not self._file.closed:
            self._readers.remove_reader(self._fd)
            self._file.close()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, FIRST)
            if len(data) == FIRST:
                data += self._more()
        except BlockingIOError:
            return
        if data:
            self._heard(data)
        else:
            self.close()
            self._ended()

    def _more(self) -> bytes:
        try:
            return os.read(self._fd, CHUNK)
        except BlockingIOError:
            return b""


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
