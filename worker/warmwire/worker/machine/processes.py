"""All the processes of a worker: started within limits, written down, and nothing of them left behind.

What ends whom, when … dies by a kill -9:

* the CLI: its children become ours, as we are their subreaper; those that belong to no living CLI are ended;
* the worker: its CLIs by the kernel (see `process`), all else by the guardians: at one blow where the worker
  has a control group of its own, else by what has its home or working directory in the worker's folder;
* a guardian: a new one is started. There are two, so that one may go with the worker;
* all three at once: the next worker on the same data folder clears up, by registry and folder.

Not covered: a process that was started with another HOME, has left its folder and survives both its CLI and
its worker, where control groups cannot be written; what a tool has had others start (at, systemd-run, a
container engine); anything outside Linux.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
from pathlib import Path

from warmwire.broker.logs import logger
from warmwire.broker.tasks import Tasks
from warmwire.worker.cli.launch import Launch
from warmwire.worker.errors import CliStartFailed
from warmwire.worker.machine import cgroup, sandbox, tree
from warmwire.worker.machine.pipes import Rounds
from warmwire.worker.machine.process import CliProcess, Exit, OnExit, OnLines, watch
from warmwire.worker.machine.registry import GROUP, Registry

OPEN_FILES = 4096
"""Files that a CLI may have open; the worker itself needs many more."""
FIRST_TO_GO = 500
"""Of 1000: how much rather than the worker a CLI is ended when the machine's memory is used up."""
LOOK_EVERY = 5.0
"""Seconds after which we look for what has become our child although nothing of ours has ended."""
LOOK_AGAIN = 0.02
"""Seconds until what we have killed has ended."""
GUARDIAN = Path(__file__).with_name("guardian.py")
GUARDIANS = 2
"""Each takes 3 MB; the second is there for when the first is killed together with the worker."""
GUARDIAN_AGAIN = 1.0
"""Seconds between two starts of a guardian."""
SET_UP_WITHIN = 5.0
"""Seconds after which a sandbox is left alone, whether or not it is up."""
SET_UP_LOOK = 0.002
"""Seconds between two looks; a sandbox is set up in about 5 ms."""

log = logger(__name__)


class Processes:
    """``open``, then ``start`` CLIs, then ``close``.

    ``alone``: this process is a worker and nothing else, so it may take a control group of its own (if
    ``group``), and what becomes its child without its doing was left by a CLI. Between two rounds of reading
    them there are ``window`` seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        alone: bool,
        group: bool = True,
        memory_mb: int | None = None,
        window: float = 0.0,
    ) -> None:
        self._folder = folder
        self._window = window
        self._rounds: Rounds | None = None
        self._memory = memory_mb
        self._registry = Registry(folder)
        self.running: dict[int, Path] = {}
        """The CLIs' pids, and their folders."""
        self._something_ended = asyncio.Event()
        self._group: cgroup.Group | None = None
        self._guardians: list[_Guardian] = []
        self._tasks = Tasks()
        self._alone = alone
        self._wants_group = group

    def open(self) -> None:
        """See to it that nothing can be left behind from now on."""
        if self._window and sys.platform == "linux":
            self._rounds = Rounds(self._window)
        if self._alone:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold users' credentials
            self._group = cgroup.enter(f"warmwire-{self._folder.name}") if self._wants_group else None
            self._alone = tree.become_subreaper()
        if self._group is not None:
            (self._folder / GROUP).write_text(str(self._group.path))
        group = self._group.path if self._group else None
        self._guardians = [_Guardian(self._folder, group) for _ in range(GUARDIANS)]
        for guardian in self._guardians:
            self._tasks.begin(guardian.keep(), "keep a guardian")
        if self._alone:
            self._tasks.begin(self._clear_up(), "clear up after CLIs")
        log.info("processes", group=str(self._group.path) if self._group else None, subreaper=self._alone)

    async def start(self, launch: Launch, on_lines: OnLines, on_exit: OnExit) -> CliProcess:
        """As ``CliProcess.start``; one that is to be in a sandbox is in it, unless it has ended."""
        if launch.enclosed:
            return await self._enclosed(launch, on_lines, on_exit, sandbox.TRIES)
        return await self._start(launch, on_lines, on_exit)

    async def _enclosed(self, launch: Launch, on_lines: OnLines, on_exit: OnExit, tries: int) -> CliProcess:
        setting_up = _SettingUp(on_exit)
        process = await self._start(launch, on_lines, setting_up.exited)
        ended = await _set_up(process)
        if ended is not None and tries > 1 and sandbox.lost_a_mount(ended.stderr):
            log.info("a mount went away: the sandbox is set up again", why=ended.stderr)
            return await self._enclosed(launch, on_lines, on_exit, tries - 1)
        setting_up.over()
        return process

    async def _start(self, launch: Launch, on_lines: OnLines, on_exit: OnExit) -> CliProcess:
        process = await CliProcess.start(launch, on_lines, on_exit, self._gone, self._rounds)
        self.running[process.pid] = launch.folders[0]
        try:
            self._registry.add(process.pid)
            self._limit(process.pid)
        except OSError as error:  # what nobody would find, or without its limits, is not to run
            process.kill()
            raise CliStartFailed(f"the CLI process {process.pid} cannot be kept: {error}") from error
        return process

    async def close(self) -> None:
        """All CLIs have been stopped: end what they have left, and go back to where we came from."""
        await self._tasks.stop()
        self._end_orphans()
        if self._rounds is not None:
            self._rounds.close()
        if self._group is not None:
            self._group.leave()
        await asyncio.gather(*(guardian.dismiss() for guardian in self._guardians))

    # -- limits

    def _limit(self, pid: int) -> None:
        """Before it has done anything: it is still on its way to its program."""
        if sys.platform != "linux":
            return
        limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: OPEN_FILES}
        if self._memory is not None:
            limits[resource.RLIMIT_DATA] = self._memory * 1024 * 1024
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            for kind, most in limits.items():
                _lower(pid, kind, most)
            (tree.PROC / str(pid) / "oom_score_adj").write_text(str(FIRST_TO_GO))

    # -- what CLIs leave behind

    def _gone(self, pid: int) -> None:
        self.running.pop(pid, None)
        self._registry.remove(pid)
        self._something_ended.set()

    async def _clear_up(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._something_ended.wait()
            self._something_ended.clear()
            while self._end_orphans():  # noqa: ASYNC110 - others may have become ours meanwhile
                await asyncio.sleep(LOOK_AGAIN)

    def _end_orphans(self) -> bool:
        """Kill what has become ours and belongs to no living CLI; whether something is still on its way."""
        orphans = self._orphans()
        doomed = [process.pid for process in orphans if process.runs and not self._belongs(process)]
        if doomed:
            log.info("processes that a CLI has left are ended", pids=doomed)
            tree.kill_trees(doomed)
        for process in orphans:
            if not process.runs:
                with contextlib.suppress(ChildProcessError):  # reaped by somebody else
                    os.waitpid(process.pid, os.WNOHANG)
        return bool(doomed)

    def _orphans(self) -> list[tree.Seen]:
        """Children of ours in sessions of their own that we have not started."""
        if not self._alone:
            return []
        ours = os.getsid(0)
        known = {*self.running, *(guardian.pid for guardian in self._guardians)}
        found = map(tree.seen, tree.children(os.getpid()) - known)
        return [process for process in found if process is not None and process.session != ours]

    def _belongs(self, process: tree.Seen) -> bool:
        """A CLI may have let it go on purpose, to have it in the background."""
        return any(tree.works_in(process, folder) for folder in self.running.values())


class _SettingUp:
    """Who hears of the end of a process whose sandbox is being set up: until it is ``over``, nobody."""

    def __init__(self, on_exit: OnExit) -> None:
        self._on_exit = on_exit
        self._over = False
        self._exit: Exit | None = None

    def exited(self, exit_: Exit) -> None:
        self._exit = exit_
        if self._over:
            self._on_exit(exit_)

    def over(self) -> None:
        """Tell of it from now on: who has begun the start has to have its process first."""
        self._over = True
        if self._exit is not None:
            asyncio.get_running_loop().call_soon(self._on_exit, self._exit)


async def _set_up(process: CliProcess) -> Exit | None:
    """Wait until a process is in its sandbox; how it ended, if it has. Cancelled: there is no process."""
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SET_UP_WITHIN):
                while process.running and not _is_up(process.pid):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(SET_UP_LOOK)
        return None if process.running else await process.wait()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise


def _is_up(pid: int) -> bool:
    """bubblewrap sets up in its first child, which then starts the command."""
    return any(map(tree.children, tree.children(pid)))


class _Guardian:
    """One of the two; a new one is started when it ends before its time."""

    def __init__(self, folder: Path, group: Path | None) -> None:
        self._told = f"{folder}\n{group or ''}\n".encode()
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = asyncio.Event()
        self._start()

    @property
    def pid(self) -> int:
        """0: there is none at the moment."""
        return self._process.pid if self._process else 0

    async def keep(self) -> None:
        """See to it that there is one."""
        while True:
            await self._ended.wait()
            if self._process is not None:
                log.warning("a guardian has ended", code=self._process.returncode)
                self._let_go()
            await asyncio.sleep(GUARDIAN_AGAIN)
            try:
                self._start()
            except OSError as error:  # too many processes: it may pass
                log.warning("no guardian", error=str(error))

    async def dismiss(self) -> None:
        """There is nothing left to guard."""
        self._let_go()
        await self._ended.wait()

    def _start(self) -> None:
        """It gets no environment and no argument that names the folder: it must not be taken for a CLI."""
        guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", "-E", str(GUARDIAN)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
        assert guardian.stdin is not None  # noqa: S101 - asked for above
        guardian.stdin.write(self._told)
        self._process = guardian
        self._ended.clear()
        watch(guardian, self._ended.set)

    def _let_go(self) -> None:
        guardian, self._process = self._process, None
        if guardian is not None and guardian.stdin is not None:
            guardian.stdin.close()  # what it waits for


def _lower(pid: int, kind: int, most: int) -> None:
    """The hard limit, too: the process cannot raise it again."""
    _, hard = resource.prlimit(pid, kind)
    if hard == resource.RLIM_INFINITY or most < hard:
        resource.prlimit(pid, kind, (most, most))
