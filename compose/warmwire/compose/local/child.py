"""One child process, kept alive: the I/O shell around `supervision`."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from warmwire.compose.local.supervision import History, Restart, on_exit

BOUND_TO_US = [sys.executable, "-IS", str(Path(__file__).with_name("die_with_parent.py"))]
NOT_STARTED = 126  # what a shell answers for a command that is there and cannot be run


def say(text: str) -> None:
    """One line for the person at the terminal; stdout is kept for the `ready` line."""
    with suppress(OSError):  # a terminal that was closed: nobody is to be told, and yet we must stop
        print(f"warmwire: {text}", file=sys.stderr, flush=True)


class Child:
    """A process in a session of its own, so that the terminal's Ctrl-C reaches only the supervisor.

    Lifecycle: `launch` once, then `stop` or `kill`. `over` is called with an exit code when all must end.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[], list[str]],
        environment: Mapping[str, str],
        over: Callable[[int], None],
    ) -> None:
        self.name = name
        self.history = History()
        self.settled = False  # set once everything is ready: from then on only a stop ends it
        self._command = command
        self._environment = environment
        self._over = over
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and running else None

    def launch(self) -> None:
        """Start it, and again whenever it ends."""
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.name}")

    async def stop(self, timeout: float) -> None:
        """Ask it to end and wait; past the timeout, kill it."""
        if self._keeper is None:
            return
        self._stopping.set()
        self._signal(signal.SIGTERM)
        _, unfinished = await asyncio.wait({self._keeper}, timeout=timeout)
        if unfinished:
            say(f"{self.name} did not end within {timeout:g} s and is killed")
            self.kill()
        await self._keeper

    def kill(self) -> None:
        """End it at once."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._run()
            self.history = self.history.after(time.monotonic() - started)
            step = on_exit(self.history, code, stopping=self._stopping.is_set(), settled=self.settled)
            if isinstance(step, Restart):
                say(f"{self.name} ended ({_how(code)}) and starts again in {step.delay:g} s")
                await self._pause(step.delay)
            elif step is not None:
                self._over(step.code)
                return

    async def _run(self) -> int:
        try:
            self._process = await self._spawn()
        except OSError as error:  # no memory, too many processes: it may pass
            say(f"{self.name} could not be started: {error}")
            return NOT_STARTED
        if self._stopping.is_set():  # asked to stop before there was anything to signal
            self._signal(signal.SIGTERM)
        return await self._process.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *BOUND_TO_US,
            str(os.getpid()),
            *self._command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            env=self._environment,
            start_new_session=True,
        )

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):  # it ended by itself just now
                os.killpg(self.pid, number)


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
