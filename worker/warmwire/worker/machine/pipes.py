"""Our ends of a process's pipes. They alone close what they have been given, and once.

Not the loop's own transports: when uvloop closes one over a file object, it closes the descriptor twice, and
the second time it may be somebody else's by then, opened by another thread in between.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections import deque
from collections.abc import Callable
from typing import IO

from warmwire.broker.telemetry import delta_delay

FIRST = 8 * 1024
"""Bytes read at first. To make room for many costs 30 times what it costs to read a delta."""
CHUNK = 256 * 1024
"""Bytes read if those were not all."""
PIPES = 1024
"""Pipes that are read in one round; more have their turn in the next."""
SAMPLE = 64
"""Of so many rounds the delay of one is measured."""


class Rounds:
    """Reads many pipes in rounds that begin ``window`` seconds apart at least.

    A wake-up costs more than what it is for. When all is quiet the first byte begins a round at once; what
    comes meanwhile on other pipes is read in the next one, with one wake-up for all. Needs epoll, thus Linux.
    First all are read, then all are heard: else our code and the kernel's would push each other out of the
    caches for each delta.
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._pipes: dict[int, Incoming] = {}
        self._read: deque[tuple[Incoming, bytes]] = deque()
        self._ended = 0.0
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rest()

    def add(self, fd: int, pipe: Incoming) -> None:
        """Read this one, too."""
        self._pipes[fd] = pipe
        self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        """No longer; the file is still open."""
        if self._pipes.pop(fd, None) is not None:
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
        self._round()

    def _next(self) -> None:
        self._timer = None
        self._number += 1
        if self._number % SAMPLE == 1:
            delta_delay.record(self._loop.time() - self._ended)
        self._round()

    def _round(self) -> None:
        if not self._read:  # else one has failed, and what was read with it comes first
            ready = self._epoll.poll(0, PIPES)
            if not ready:
                self._rest()
                return
            for fd, _ in ready:
                pipe = self._pipes[fd]
                if (data := pipe.read()) is not None:
                    self._read.append((pipe, data))
        self._hear()

    def _hear(self) -> None:
        try:
            while self._read:
                pipe, data = self._read.popleft()
                pipe.hear(data)
        finally:  # one that fails is the loop's business; the others are heard in the next round
            self._ended = self._loop.time()
            self._timer = self._loop.call_at(self._ended + self._window, self._next)


class Incoming:
    """What a process says: each chunk is given to ``heard``; after the last ``ended`` is called, once."""

    __slots__ = ("_ended", "_fd", "_file", "_heard", "_rounds")

    def __init__(
        self,
        file: IO[bytes],
        heard: Callable[[bytes], None],
        ended: Callable[[], None],
        rounds: Rounds | None = None,
    ) -> None:
        self._rounds = rounds
        self._file = file
        self._fd = file.fileno()
        self._heard = heard
        self._ended = ended
        os.set_blocking(self._fd, False)
        if rounds is not None:
            rounds.add(self._fd, self)
        else:
            asyncio.get_running_loop().add_reader(self._fd, self._ready)

    def close(self) -> None:
        """Read no more."""
        if self._file.closed:
            return
        if self._rounds is not None:
            self._rounds.remove(self._fd)
        else:
            asyncio.get_running_loop().remove_reader(self._fd)
        self._file.close()

    def read(self) -> bytes | None:
        """The first of what is there; empty at its end, None if there is nothing yet."""
        try:
            return os.read(self._fd, FIRST)
        except BlockingIOError:
            return None

    def hear(self, data: bytes) -> None:
        """This was read, and if it was all that there was room for, there is more."""
        if self._file.closed:  # by one that was heard before it
            return
        if len(data) == FIRST:
            data += self._more()
        if data:
            self._heard(data)
        else:
            self.close()
            self._ended()

    def _ready(self) -> None:
        if (data := self.read()) is not None:
            self.hear(data)

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
