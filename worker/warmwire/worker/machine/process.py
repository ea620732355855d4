"""The shell around one CLI process: starts it, carries bytes both ways, ends it; not knowing what they mean.

Why each precaution is here:

* an own session and process group: a signal for the worker's group (Ctrl-C in a terminal) must not reach the
  CLI, which would drop its turn without a result;
* the parent's death signal, set by `setpriv` before the exec: a CLI whose worker was killed would otherwise
  finish its turn, and the work would be done twice. If the worker dies in the instant before that signal is
  set, the CLI finds its stdin at end of file and leaves by itself;
* no open file of ours but its three pipes: see `spawned`;
* stdout and stderr are always drained: the CLI buffers without bound what nobody reads;
* a kill reaches the whole tree: each tool of the CLI runs in a session of its own and would outlive it. What
  a CLI leaves behind when something else kills it is the business of `processes`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from warmwire.broker.logs import logger
from warmwire.worker.cli.launch import Launch
from warmwire.worker.cli.lines import Lines
from warmwire.worker.errors import CliGone, CliMissing, CliStalled, CliStartFailed
from warmwire.worker.machine.pipes import Incoming, Outgoing, Rounds
from warmwire.worker.machine.tree import descendants, kill_trees, seen, signal_all, signal_group

STDERR_KEPT = 16 * 1024
"""Bytes: the last of what the CLI said on stderr."""
STDIN_BUFFER = 16 * 1024 * 1024
"""Bytes written but not yet read by the CLI; more means that it is stuck."""
LAST_WORDS = 0.5
"""Seconds after the exit for output that is still in the pipes, if a grandchild holds them open."""

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a CLI ended: the exit code (negative: the signal) and the last of its stderr.

    The code alone says little: the CLI exits 1 after a plain interrupt.
    """

    returncode: int
    stderr: str


OnLines = Callable[[list[bytes]], None]  # the whole lines of one read of stdout; at least one
OnExit = Callable[[Exit], None]  # once, after the last line
OnGone = Callable[[int], None]  # once, as soon as the process of that number is no more


def _nothing(_pid: int) -> None:
    """For who does not mind."""


class CliProcess:
    """One running CLI. `start` makes it; its two callbacks hear all that happens to it."""

    def __init__(self, child: subprocess.Popen[bytes], pipes: _Pipes, *, enclosed: bool = False) -> None:
        self.pid = child.pid
        self._child = child
        self._enclosed = enclosed
        self._pipes = pipes

    @classmethod
    async def start(
        cls,
        launch: Launch,
        on_lines: OnLines,
        on_exit: OnExit,
        on_gone: OnGone = _nothing,
        rounds: Rounds | None = None,
    ) -> CliProcess:
        """Its stdout is read by ``rounds``, else by the loop. Raises CliMissing or CliStartFailed."""
        argv = _dying_with_parent(_resolved(launch))
        try:
            for folder in launch.folders:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            child = spawned(argv, launch.env, launch.cwd)
        except OSError as error:
            raise CliStartFailed(f"the CLI {launch.argv[0]!r} could not be started: {error}") from error
        return cls(child, _Pipes(child, on_lines, on_exit, on_gone, rounds), enclosed=launch.enclosed)

    @property
    def running(self) -> bool:
        return self._child.returncode is None

    def write(self, line: bytes) -> None:
        """Hand one line to the CLI's stdin. Raises CliGone, or CliStalled when it has stopped reading."""
        stdin = self._pipes.stdin
        if not self.running or stdin.closing:
            raise CliGone(f"the CLI process {self.pid} has ended")
        if stdin.waiting > STDIN_BUFFER:
            raise CliStalled(f"the CLI process {self.pid} does not read its input")
        stdin.write(line)

    def tell(self, on_lines: OnLines) -> None:
        """From now on tell this one what it says."""
        self._pipes.on_lines = on_lines

    def close_stdin(self) -> None:
        """Ask the CLI to leave once its running turn is done."""
        self._pipes.stdin.close()

    def freeze(self) -> None:
        """Stop it in its tracks until `thaw`. Its tools run on, but nobody hears of it."""
        if self.running:
            signal_group(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        if self.running:
            signal_group(self.pid, signal.SIGCONT)

    def interrupt(self) -> None:
        """As Ctrl-C in a terminal does: it and what it has started in its own group."""
        if not self.running:
            return
        if self._enclosed:  # what encloses it would die of the signal, and take it along
            within = filter(None, map(seen, descendants([self.pid])))
            signal_all([each.pid for each in within if each.session == self.pid], signal.SIGINT)
        else:
            signal_group(self.pid, signal.SIGINT)

    def terminate(self) -> None:
        """Ask it to end, at the price of its turn; what it has started is its own business then."""
        if self.running:
            signal_all([self.pid], signal.SIGTERM)

    def kill(self) -> None:
        """End the process and everything it has started, now."""
        if self.running:
            kill_trees([self.pid])

    async def wait(self) -> Exit:
        return await asyncio.shield(self._pipes.exit)

    async def stop(self, *, grace: float = 5.0, term: float = 2.0) -> Exit:
        """End it politely: end of input; after `grace` seconds SIGTERM; after `term` more a kill of the tree.

        SIGTERM alone would come at the price of the running turn, so the end of input comes first.
        """
        self.close_stdin()
        if await self._ended_within(grace):
            return self._pipes.exit.result()
        self.terminate()
        if not await self._ended_within(term):
            self.kill()
        return await self.wait()

    async def _ended_within(self, seconds: float) -> bool:
        done, _ = await asyncio.wait([self._pipes.exit], timeout=seconds)
        return bool(done)


class _Pipes:
    """The three pipes and the end. Callbacks instead of streams: a delta costs one call, no task."""

    __slots__ = (
        "_child",
        "_complaints",
        "_exited",
        "_framer",
        "_loop",
        "_on_exit",
        "_on_gone",
        "_open",
        "_stderr",
        "_stdout",
        "exit",
        "on_lines",
        "stdin",
    )

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        on_lines: OnLines,
        on_exit: OnExit,
        on_gone: OnGone,
        rounds: Rounds | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.exit: asyncio.Future[Exit] = self._loop.create_future()
        self._child = child
        self.on_lines = on_lines
        self._on_exit = on_exit
        self._on_gone = on_gone
        self._framer = Lines()
        self._stderr = bytearray()
        self._open = 2  # stdout and stderr
        self._exited = False
        assert child.stdin is not None  # noqa: S101 - all three are pipes
        assert child.stdout is not None  # noqa: S101
        assert child.stderr is not None  # noqa: S101
        self.stdin = Outgoing(child.stdin)
        self._stdout = Incoming(child.stdout, self._said, self._closed, rounds)
        self._complaints = Incoming(child.stderr, self._complained, self._closed)
        watch(child, self._ended)

    def _said(self, data: bytes) -> None:
        if self.exit.done():
            return  # a grandchild that outlived the CLI; what it says belongs to nobody
        lines = self._framer.feed(data)
        if lines:
            self.on_lines(lines)

    def _complained(self, data: bytes) -> None:
        self._stderr += data
        del self._stderr[:-STDERR_KEPT]

    def _closed(self) -> None:
        self._open -= 1
        self._finish_if_drained()

    def _ended(self) -> None:
        self._exited = True
        signal_group(self._child.pid, signal.SIGKILL)  # what it leaves behind in its own group
        self._on_gone(self._child.pid)
        self._finish_if_drained()
        self._loop.call_later(LAST_WORDS, self._finish)

    def _finish_if_drained(self) -> None:
        if self._exited and not self._open:
            self._finish()

    def _finish(self) -> None:
        if self.exit.done():
            return
        self._close()
        ended = Exit(self._child.returncode, self._stderr.decode(errors="replace"))
        self.exit.set_result(ended)
        self._on_exit(ended)

    def _close(self) -> None:
        self.stdin.drop()
        self._stdout.close()
        self._complaints.close()


# --- start -----------------------------------------------------------------------------------------------


def spawned(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> subprocess.Popen[bytes]:
    """A child in a session of its own that has three pipes of ours and no other open file.

    Not by the loop: uvloop's children inherit what their parent did, and each of their own pipes twice, so
    that a tool of a CLI could write to the CLI's stdout and hold it open. OSError if it cannot be started.
    """
    pipe = subprocess.PIPE
    return subprocess.Popen(
        argv, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, env=env, cwd=cwd, start_new_session=True
    )


def watch(child: subprocess.Popen[bytes], ended: Callable[[], None]) -> None:
    """Reap the child when it ends, then call."""
    loop = asyncio.get_running_loop()
    if sys.platform == "linux":
        pidfd = os.pidfd_open(child.pid)

        def reap() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            child.wait()
            ended()

        loop.add_reader(pidfd, reap)
    else:

        def wait() -> None:
            child.wait()
            loop.call_soon_threadsafe(ended)

        threading.Thread(target=wait, name=f"wait for {child.pid}", daemon=True).start()


def _resolved(launch: Launch) -> tuple[str, ...]:
    """The argv, its command as an absolute path: behind `setpriv` a missing one would be a mere exit code."""
    command = launch.argv[0]
    if any("\0" in argument for argument in launch.argv):  # subprocess has no OSError for it
        raise CliStartFailed(f"the CLI {command!r} could not be started: an argument holds a NUL character")
    found = shutil.which(command, path=launch.env.get("PATH"))
    if found is None:
        there = Path(command).exists()
        raise CliMissing(f"the CLI {command!r} " + ("may not be executed" if there else "is not installed"))
    return (found, *launch.argv[1:])


def _dying_with_parent(argv: tuple[str, ...]) -> tuple[str, ...]:
    setpriv = _setpriv()
    return (setpriv, "--pdeathsig", "KILL", "--", *argv) if setpriv else argv


@functools.cache
def _setpriv() -> str | None:
    """Looked for, and missed, once."""
    found = shutil.which("setpriv") if sys.platform == "linux" else None
    if found is not None and Path(found).resolve().name != "busybox":  # busybox's has no --pdeathsig
        return found
    log.warning("setpriv_missing", consequence="a CLI outlives a worker that is killed until its turn ends")
    return None
