"""Where CLI processes come from: started a few at a time, and some of them ahead of their session (spares).

What is to be spawned, adopted and killed is decided by `policy`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

from warmwire.broker import telemetry
from warmwire.broker.logs import logger
from warmwire.broker.tasks import Tasks
from warmwire.worker.cli import said
from warmwire.worker.cli.launch import Launch, Spawning
from warmwire.worker.errors import CliError
from warmwire.worker.machine.process import CliProcess, Exit, OnExit, OnLines
from warmwire.worker.machine.processes import Processes
from warmwire.worker.machine.workdir import prepare
from warmwire.worker.pool import policy
from warmwire.worker.pool.recipe import Recipe

STARTING_WITHIN = 10.0
"""Seconds after which a silent process no longer keeps others from starting."""

SHARE = 0.3
"""Weight of the newest spare in how long they take; older ones count for less and less."""

log = logger(__name__)


class Supply:
    """The processes of one worker that are about to start, and its spares."""

    def __init__(
        self, recipe: Recipe, folder: Path, at_once: int, tasks: Tasks, processes: Processes
    ) -> None:
        self.recipe = recipe
        self.adopted_at = float("-inf")
        self.failed = 0
        self.failed_at = float("-inf")
        self.starting = 0
        self._folder = folder / "spares"
        self._gate = asyncio.Semaphore(at_once)
        self._tasks = tasks
        self._processes = processes
        self._spares: dict[int, Spare] = {}
        self._ids = itertools.count(1)
        self._arrivals: dict[str, policy.Arrivals] = {}
        self._spawn_seconds = 0.0  # that spares take of late, from the wish to the first word

    async def start(self, plan: Launch, on_lines: OnLines, on_exit: OnExit) -> CliProcess:
        """Start a process when it is its turn, which is over when it says that it is up. Raises CliError."""
        self.starting += 1
        start = _Start(self, on_lines, on_exit)
        try:
            await self._gate.acquire()
            start.has_slot = True
            await prepare(plan)
            process = start.process = await self._processes.start(plan, start.lines, start.exited)
        except BaseException:
            start.end()
            raise
        asyncio.get_running_loop().call_later(STARTING_WITHIN, start.end)
        ready = self.recipe.dialect().ready_line()
        if ready is None:
            start.end()
            return process
        with contextlib.suppress(CliError):  # it has ended: that is heard by `on_exit`
            process.write(ready)
        return process

    def started(self, *, had_slot: bool) -> None:
        """A process has said something, or is gone."""
        self.starting -= 1
        if had_slot:
            self._gate.release()

    # -- how many, and for whom

    def served(self, need: policy.Need, service: policy.Service) -> str:
        """A turn gets its process like this; the word for it."""
        how = _how(need, service)
        telemetry.provided.add(1, {"how": how})
        if need.new and not isinstance(service, policy.Use):
            self._arrivals.setdefault(need.profile, policy.Arrivals()).add(monotonic())
        return how

    def wanted(self, least: Mapping[str, int], most: int) -> dict[str, int]:
        """How many spares each profile is to have, by the conversations that have begun of late."""
        now, wanted = monotonic(), {}
        if not self.recipe.can.adopt:
            return {}
        for profile, few in least.items():
            arrivals = self._arrivals.get(profile)
            rate = arrivals.rate(now) if arrivals else 0.0
            wanted[profile] = policy.spares_for(rate, self._spawn_seconds, few, most)
        return wanted

    # -- spares

    def spares(self) -> tuple[policy.Spare, ...]:
        """The spares as the policy sees them."""
        return tuple(spare.seen() for spare in self._spares.values())

    def spawn(self, profile: str) -> None:
        """Begin to have one more spare."""
        number = next(self._ids)
        spare = self._spares[number] = Spare(self, number, profile, self._folder / str(number))
        self._tasks.begin(spare.start(), "start a spare")

    def take(self, number: int) -> Spare:
        """The spare is adopted: from now on its process and its folder are somebody else's."""
        self.adopted_at = monotonic()
        return self._spares.pop(number)

    def ready_after(self, seconds: float) -> None:
        """A spare is up, and took so long."""
        self.failed = 0
        share = SHARE if self._spawn_seconds else 1.0
        self._spawn_seconds += share * (seconds - self._spawn_seconds)

    def kill(self, number: int) -> None:
        """Remove a spare."""
        self.discard(self._spares.pop(number))

    def discard(self, spare: Spare) -> None:
        """End a spare that was taken and then not wanted."""
        self._tasks.begin(spare.end(), "end a spare")

    async def stop(self) -> None:
        """End all spares."""
        spares, self._spares = list(self._spares.values()), {}
        await asyncio.gather(*(spare.end() for spare in spares))


class Spare:
    """A process that was started before its session is known. It hears for itself until it is adopted."""

    def __init__(self, supply: Supply, number: int, profile: str, folder: Path) -> None:
        self.folder = folder
        self.ready = False
        self._supply = supply
        self._dialect = supply.recipe.dialect()
        self._number = number
        self._profile = profile
        self._since = monotonic()
        self._ended = False
        self._process: asyncio.Future[CliProcess] = asyncio.get_running_loop().create_future()
        self._on_lines: OnLines = self._hear
        self._on_exit: OnExit = self._exited

    def seen(self) -> policy.Spare:
        """As the policy sees it; whether it still runs is looked up now, not remembered."""
        ended = self._ended or (self.started is not None and _has_ended(self.started.pid))
        return policy.Spare(self._number, self._profile, self._since, self.ready, ended)

    @property
    def started(self) -> CliProcess | None:
        """Its process, once it has one."""
        future = self._process
        failed = not future.done() or future.cancelled() or future.exception() is not None
        return None if failed else future.result()

    async def start(self) -> None:
        """Start it."""
        recipe = self._supply.recipe
        profile = recipe.profiles[self._profile]
        plan = recipe.plan(
            self._dialect, Spawning(folder=self.folder, environment=os.environ, profile=profile)
        )
        try:
            process = await self._supply.start(plan, self._lines, self._exit)
        except CliError as error:
            self._fail(str(error))
            self._process.set_exception(error)
            self._process.exception()  # seen: nobody may be waiting for it
        except asyncio.CancelledError:
            self._process.cancel()
            raise
        else:
            self._process.set_result(process)

    async def adopt(self, on_lines: OnLines, on_exit: OnExit) -> CliProcess:
        """Its process, whose new owner hears it from now on. Raises CliError."""
        self._on_lines, self._on_exit = on_lines, on_exit
        process = await asyncio.shield(self._process)
        if self.ready:  # else its first word is still awaited, by its start
            process.tell(on_lines)
        return process

    async def end(self) -> None:
        """End it and remove what it has written."""
        self._on_exit = _ignore
        if not self._process.done():
            await asyncio.wait([self._process])
        if self.started is not None:
            self.started.kill()  # it has nothing to lose
            await self.started.wait()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    def _lines(self, lines: list[bytes]) -> None:
        self._on_lines(lines)

    def _exit(self, exit_: Exit) -> None:
        self._on_exit(exit_)

    def _hear(self, lines: list[bytes]) -> None:
        heard = (line for each in lines for line in self._dialect.read(each))
        if not self.ready and any(isinstance(line, said.ControlReply) for line in heard):
            self.ready = True
            took = monotonic() - self._since
            self._supply.ready_after(took)
            log.info("spare ready", spare=self._number, ms=round(took * 1000))

    def _exited(self, exit_: Exit) -> None:
        self._fail(f"exit code {exit_.returncode}: {exit_.stderr[-500:]}")

    def _fail(self, why: str) -> None:
        self._ended = True
        self._supply.failed += 1
        self._supply.failed_at = monotonic()
        log.warning("spare ended", spare=self._number, why=why)


class _Start:
    """A process on its way to its first word."""

    def __init__(self, supply: Supply, on_lines: OnLines, on_exit: OnExit) -> None:
        self.has_slot = False
        self.process: CliProcess | None = None
        self._supply: Supply | None = supply
        self._on_lines = on_lines
        self._on_exit = on_exit

    def lines(self, lines: list[bytes]) -> None:
        self.end()
        if self.process is not None:
            self.process.tell(self._on_lines)  # not by this way any more: it is that of every delta
        self._on_lines(lines)

    def exited(self, exit_: Exit) -> None:
        self.end()
        self._on_exit(exit_)

    def end(self) -> None:
        """Once; what comes later finds nothing to do."""
        supply, self._supply = self._supply, None
        if supply is not None:
            supply.started(had_slot=self.has_slot)


def _how(need: policy.Need, service: policy.Service) -> str:
    """A hit: the session's own process, or a spare. A miss: one has to be started, or started anew."""
    match service:
        case policy.Use():
            return "own"
        case policy.Adopt():
            return "adopted"
        case policy.Spawn():
            return "spawned" if need.new else "resumed"


def _has_ended(pid: int) -> bool:
    """By the kernel's word: the event loop may not have heard of it yet. Leaves the exit code to the loop."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _ignore(_: Exit) -> None:
    """It was killed on purpose."""
