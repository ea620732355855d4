"""`warmwire up` as a process, for the tests that look at it from outside."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.conftest import COUNTING, SECONDS, wait_for

REAL = (sys.executable, "-m", "warmwire.compose", "up")


class Running:
    """One `warmwire up` and what it has said so far."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], folder: Path) -> None:
        self._out, self._err = folder / "stdout", folder / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=os.environ | environment,
                cwd=folder,
            )

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    @property
    def url(self) -> str:
        return self.stdout.removeprefix("ready ").strip()

    def wait_until_ready(self, deadline: float = 30) -> None:
        over = self.process.poll
        self._wait(lambda: "\n" in self.stdout or over() is not None, "the ready line", deadline)
        assert self.stdout.startswith("ready http://"), self._account()

    def wait_until_it_says(self, text: str, deadline: float = 10) -> None:
        self._wait(lambda: text in self.stderr, f"{text!r} on stderr", deadline)

    def _wait(self, condition: Callable[[], object], what: str, deadline: float) -> None:
        try:
            wait_for(condition, what, deadline)
        except TimeoutError as error:
            error.add_note(self._account())
            raise

    def _account(self) -> str:
        """How it stands, for who has waited for something else."""
        return f"exit code {self.process.poll()}, stdout {self.stdout!r}, stderr:\n{self.stderr}"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, deadline: float = 30) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(deadline * SECONDS)

    def end_counting(self) -> None:
        """Have all end, and soon: what a killed process has counted of the coverage goes with it.

        A role ends at once at its second signal. One is from us, the other from its supervisor.
        """
        self.process.terminate()
        for pid, command in self.below().items():
            if "-m warmwire." in command:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self.end(10)

    def below(self) -> dict[int, str]:
        """Process id and command line of everything that descends from it."""
        parents = {pid: parent_of(pid) for pid in _processes()}
        found, more = set[int](), {self.process.pid}
        while more:
            more = {pid for pid, parent in parents.items() if parent in more}
            found |= more
        return {pid: command_of(pid) for pid in found}

    def child(self, part: str) -> int:
        """Process id of its only child whose command line has `part`."""
        (pid,) = [
            pid
            for pid, command in self.below().items()
            if part in command and parent_of(pid) == self.process.pid
        ]
        return pid


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def parent_of(pid: int) -> int | None:
    """None when it has ended, waited for or not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent = stat.rpartition(")")[2].split()[:2]
    return None if state == "Z" else int(parent)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def wait_for_the_end_of(pids: dict[int, str]) -> None:
    wait_for(lambda: not any(parent_of(pid) for pid in pids), f"the end of {pids}")


@contextmanager
def running(
    folder: Path, command: Sequence[str] = REAL, environment: dict[str, str] | None = None
) -> Iterator[Running]:
    """Start it on a data folder and a free port of the test's own; nothing of it is left afterwards."""
    folder.mkdir(exist_ok=True)
    ours = {"WARMWIRE_DATA": str(folder / "data"), "WARMWIRE_PORT": "0"}
    up = Running(command, ours | (environment or {}), folder)
    try:
        yield up
    finally:
        left = up.below()
        if COUNTING:
            up.end_counting()
        up.process.kill()
        up.process.wait()
        wait_for_the_end_of(left)
