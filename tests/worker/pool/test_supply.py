"""Processes that are started a few at a time and ahead of their sessions, with the emulator as the CLI."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from warmwire.broker.tasks import Tasks
from warmwire.worker.cli import claude, claude_stdin, said
from warmwire.worker.cli.abilities import ALL
from warmwire.worker.cli.claude_code import Claude
from warmwire.worker.cli.dialect import Abilities
from warmwire.worker.cli.launch import Spawning, launch
from warmwire.worker.cli.program import cli_command
from warmwire.worker.errors import CliError, ErrorCode
from warmwire.worker.machine.process import CliProcess, Exit
from warmwire.worker.machine.processes import Processes
from warmwire.worker.pool.policy import Adopt, Need, Service, Spawn, Tier, Use
from warmwire.worker.pool.recipe import Recipe
from warmwire.worker.pool.supply import Supply, _how
from warmwire.worker.pool.warm import Warm
from warmwire.worker.profiles import Setup

from tests.client import eventually

Make = Callable[..., Supply]


@pytest.fixture
async def supply(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes supplies; what they have started is ended with the test."""
    tasks, processes = Tasks(), Processes(tmp_path, alone=False)
    processes.open()
    made: list[Supply] = []

    def make(*command: str, at_once: int = 4, can: Abilities = ALL) -> Supply:
        recipe = Recipe(command=command or cli_command("emulator"), can=can, dialect=Claude)
        made.append(Supply(recipe, tmp_path, at_once, tasks, processes))
        return made[-1]

    yield make
    for one in made:
        await one.stop()
    await tasks.finish()
    await processes.close()


class Session:
    """A session's process, and what was heard of it."""

    def __init__(self, supply: Supply, folder: Path) -> None:
        self.said: list[said.Line] = []
        self.lost: list[ErrorCode] = []
        self.warm = Warm(supply, folder, self._heard, self.lost.append)

    def _heard(self, lines: list[bytes]) -> None:
        self.said += map(claude.parse, lines)

    async def provide(self, model: str | None = None) -> None:
        await self.warm.provide(Setup(model=model), nothing)

    async def ask(self) -> said.Result:
        """One turn."""
        before = len(self.results)
        self.warm.write(claude_stdin.user_line("Hello", str(uuid.uuid4())))
        await eventually(lambda: len(self.results) > before, "a result")
        return self.results[-1]

    @property
    def results(self) -> list[said.Result]:
        return [line for line in self.said if isinstance(line, said.Result)]


async def nothing() -> bytes:
    """There is no conversation yet."""
    return b""


@pytest.fixture
async def session(supply: Make, tmp_path: Path) -> AsyncIterator[Session]:
    session = Session(supply(), tmp_path / "s1")
    yield session
    await session.warm.end()


def is_ready(supply: Supply) -> bool:
    return any(spare.ready for spare in supply.spares())


async def ready_spare(supply: Supply) -> CliProcess:
    supply.spawn("default")
    await eventually(lambda: is_ready(supply), "the spare is ready")
    (spare,) = supply._spares.values()
    assert spare.started is not None
    return spare.started


class TestSpares:
    async def test_a_spare_becomes_a_sessions_process(self, session: Session) -> None:
        spare = await ready_spare(session.warm._supply)
        await session.provide()
        assert () == session.warm._supply.spares()
        assert spare is session.warm._process
        assert "completed" == (await session.ask()).ending

    async def test_its_folder_goes_with_it_and_is_removed_at_the_end(self, session: Session) -> None:
        await ready_spare(session.warm._supply)
        await session.provide()
        folder = session.warm._folder
        assert folder.is_dir()
        await session.warm.end()
        assert not folder.exists()

    async def test_one_that_is_only_starting_is_waited_for(self, session: Session) -> None:
        session.warm._supply.spawn("default")
        await session.provide()
        assert () == session.warm._supply.spares()
        assert "completed" == (await session.ask()).ending

    async def test_one_that_has_just_died_is_not_taken(self, session: Session) -> None:
        spare = await ready_spare(session.warm._supply)
        os.kill(spare.pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # its end was noticed in the meantime
            await asyncio.to_thread(os.waitid, os.P_PID, spare.pid, os.WEXITED | os.WNOWAIT)
        await session.provide()
        assert "completed" == (await session.ask()).ending

    async def test_one_that_dies_as_it_is_taken_is_followed_by_another(self, session: Session) -> None:
        spare = await ready_spare(session.warm._supply)
        spare.close_stdin()  # from now on it cannot be told anything
        await session.provide()
        assert spare is not session.warm._process
        assert "completed" == (await session.ask()).ending

    async def test_one_whose_session_goes_while_it_is_taken_is_ended(
        self, supply: Make, tmp_path: Path
    ) -> None:
        busy = supply(at_once=1)
        await busy._gate.acquire()  # somebody else is starting
        busy.spawn("default")
        (spare,) = busy._spares.values()
        taking = asyncio.create_task(Session(busy, tmp_path / "s1").provide())
        await eventually(lambda: not busy.spares(), "it is taken")
        taking.cancel()
        await asyncio.wait([taking])
        busy._gate.release()
        await busy._tasks.finish()
        assert spare.started is not None
        assert not spare.started.running
        assert not spare.folder.exists()

    async def test_a_cli_that_cannot_start_is_counted(self, supply: Make) -> None:
        broken = supply("/bin/false")
        broken.spawn("default")
        await eventually(lambda: broken.failed, "it has failed")
        assert [True] == [spare.ended for spare in broken.spares()]

    async def test_a_cli_that_is_not_there_is_counted(self, supply: Make, tmp_path: Path) -> None:
        broken = supply(str(tmp_path / "nowhere"))
        broken.spawn("default")
        await eventually(lambda: broken.failed, "it has failed")
        with pytest.raises(CliError):
            await Session(broken, tmp_path / "s1").provide()

    async def test_a_success_ends_the_count(self, session: Session) -> None:
        session.warm._supply.failed = 3
        await ready_spare(session.warm._supply)
        assert 0 == session.warm._supply.failed


class TestHowMany:
    async def test_as_many_as_conversations_begin_while_one_becomes_ready(self, supply: Make) -> None:
        some = supply()
        assert {"p": 1} == some.wanted({"p": 1}, most=8)
        some.ready_after(30.0)  # seconds, which no emulator takes: the rate is what is left of the product
        for _ in range(4):
            some.served(Need("p", None, new=True), Adopt(1))
        assert {"p": 4, "q": 1} == some.wanted({"p": 1, "q": 1}, most=8)
        assert {"p": 2} == some.wanted({"p": 1}, most=2)

    async def test_who_goes_on_or_is_resumed_asks_for_none(self, supply: Make) -> None:
        some = supply()
        some.ready_after(30.0)
        for _ in range(4):
            some.served(Need("p", None, new=False), Use())
            some.served(Need("p", None, new=False), Spawn())
        assert {"p": 1} == some.wanted({"p": 1}, most=8)

    async def test_none_where_the_cli_cannot_be_told_late(self, supply: Make) -> None:
        some = supply(can=Abilities())
        assert {} == some.wanted({"p": 1}, most=8)

    @pytest.mark.parametrize(
        ("need", "service", "how"),
        [
            (Need("p", None, new=False), Use(), "own"),
            (Need("p", None, new=True), Adopt(1), "adopted"),
            (Need("p", None, new=True), Spawn(), "spawned"),
            (Need("p", None, new=False), Spawn(), "resumed"),
        ],
    )
    def test_hits_and_misses_have_names(self, need: Need, service: Service, how: str) -> None:
        assert how == _how(need, service)

    async def test_how_long_they_take_is_known(self, session: Session) -> None:
        assert 0.0 == session.warm._supply._spawn_seconds
        await ready_spare(session.warm._supply)
        assert 0.0 < session.warm._supply._spawn_seconds


class TestStarts:
    async def test_only_so_many_start_at_a_time(self, supply: Make, tmp_path: Path) -> None:
        mute = supply("/bin/sleep", at_once=1)  # it complains of our flags on stderr, and ends
        heard: list[Exit] = []
        plans = [
            launch(["/bin/cat", "/dev/null"], Spawning(folder=tmp_path / str(n), environment={}))
            for n in range(3)
        ]
        started = [asyncio.create_task(mute.start(plan, ignore, heard.append)) for plan in plans]
        await asyncio.wait(started)
        await eventually(lambda: len(heard) == 3, "each has had its turn, one after the other")
        assert 0 == mute.starting

    async def test_the_next_waits_until_one_is_up(
        self, supply: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WARMWIRE_EMULATOR_STARTUP_MS", "60000")
        slow = supply(at_once=1, can=Abilities())  # nobody adopts the spare
        slow.spawn("default")
        (spare,) = slow._spares.values()
        await eventually(lambda: spare.started, "the first has been started")
        monkeypatch.setenv("WARMWIRE_EMULATOR_STARTUP_MS", "0")
        session = Session(slow, tmp_path / "s1")
        waiting = asyncio.create_task(session.provide())
        await eventually(lambda: slow.starting == 2, "the second waits")
        assert not waiting.done()
        slow.kill(1)
        await waiting
        assert "completed" == (await session.ask()).ending
        await session.warm.end()
        assert 0 == slow.starting


def ignore(_: list[bytes]) -> None:
    """Whatever it says."""


class TestTiers:
    async def test_from_nothing_to_nothing(self, session: Session) -> None:
        warm, tiers = session.warm, []
        for step in (None, session.provide, warm.freeze, session.provide, warm.end):
            if step is not None and (waiting := step()) is not None:
                await waiting
            tiers.append(warm.tier)
        assert [Tier.PARKED, Tier.WARM, Tier.FROZEN, Tier.WARM, Tier.PARKED] == tiers

    async def test_a_crash_is_told_once(self, session: Session) -> None:
        await session.provide()
        await session.ask()
        assert session.warm._process is not None
        session.warm._process.kill()
        await eventually(lambda: session.lost, "the crash")
        assert [ErrorCode.CLI_CRASHED] == session.lost
        assert Tier.PARKED is session.warm.tier

    async def test_a_kill_on_purpose_is_not_told(self, session: Session) -> None:
        await session.provide()
        process = session.warm._process
        assert process is not None
        session.warm.kill()
        await process.wait()
        assert [] == session.lost

    async def test_what_was_killed_is_gone_before_its_folder_is(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await session.provide()
        process = session.warm._process
        assert process is not None
        ran: list[bool] = []
        monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: ran.append(process.running))
        session.warm.kill()
        await session.warm.end()
        assert [False] == ran

    async def test_a_turn_without_a_model_goes_back_to_the_default(self, session: Session) -> None:
        for model in ("one", None):
            await session.provide(model)
            await session.ask()
        models = [line.model for line in session.said if isinstance(line, said.Init)]
        assert ["one", "warmwire-emulator"] == models
