"""A program in a terminal: what is typed into it, and what its screen shows."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pyte

from tests.client import eventually
from tests.conftest import COUNTING, SECONDS, force

IN_A_TERMINAL = ("sh", "-c", 'exec "$@" <>"$0" >&0 2>&0')
"""Opening it makes it the terminal of the session, whose Ctrl-C is a signal."""


class Terminal:
    """Use ``in_terminal``. ``raw`` is all that was written to it."""

    def __init__(self, master: int, columns: int, lines: int) -> None:
        self.raw = b""
        self.process: asyncio.subprocess.Process | None = None
        self._master = master
        self._screen = pyte.HistoryScreen(columns, lines, history=100_000)
        self._stream = pyte.ByteStream(self._screen)

    def type(self, text: str) -> None:
        """As keys; \\r is Enter, \\x03 Ctrl-C."""
        os.write(self._master, text.encode())

    def paste(self, text: str) -> None:
        """As terminals do it that were told to put it in brackets."""
        self.type(f"\x1b[200~{text}\x1b[201~")

    @property
    def shown(self) -> list[str]:
        """The lines that went off the top of the screen, and those on it."""
        columns = self._screen.columns
        above = ["".join(line[x].data for x in range(columns)) for line in self._screen.history.top]
        return [line.rstrip() for line in [*above, *self._screen.display]]

    @property
    def text(self) -> str:
        """The same as one text, without what is empty at its end."""
        return "\n".join(self.shown).rstrip()

    async def until(self, text: str, count: int = 1) -> None:
        """Wait until it shows that."""
        try:
            await eventually(lambda: self.text.count(text) >= count, f"{text!r} on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows:\n{self.text}") from None

    async def prompts(self, times: int) -> None:
        """Wait until it has asked for a message so many times; what was asked before counts, too."""

        def asked() -> bool:
            return sum(line.startswith("›") for line in self.shown) >= times

        try:
            await eventually(asked, f"prompt number {times}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows:\n{self.text}") from None

    async def end(self) -> int:
        """Wait for the program's end; its exit code."""
        assert self.process is not None
        async with asyncio.timeout(15 * SECONDS):
            return await self.process.wait()

    def read(self) -> None:
        """What it has written."""
        try:
            data = os.read(self._master, 65536)
        except OSError:  # everybody on the other side has closed it
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.raw += data
        self._stream.feed(data)


@asynccontextmanager
async def in_terminal(
    command: Sequence[str],
    environment: dict[str, str],
    folder: Path,
    *,
    columns: int = 80,
    lines: int = 24,
) -> AsyncIterator[Terminal]:
    """The program while the block lasts; it is killed if it has not ended then."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    terminal = Terminal(master, columns, lines)
    given = {"TERM": "xterm-256color", "XDG_STATE_HOME": str(folder)} | environment
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", *COUNTING) if name in os.environ}
    argv = (*IN_A_TERMINAL, os.ttyname(slave), *command)
    terminal.process = await asyncio.create_subprocess_exec(*argv, env=kept | given, start_new_session=True)
    asyncio.get_running_loop().add_reader(master, terminal.read)
    try:
        yield terminal
    finally:
        await _ended(terminal.process)
        asyncio.get_running_loop().remove_reader(master)
        os.close(slave)
        os.close(master)


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        force(process)
        with suppress(TimeoutError):
            async with asyncio.timeout(5 * SECONDS):
                await process.wait()
    if process.returncode is None:
        process.kill()
    await process.wait()
