"""A session's CLI process, in whatever tier: adopted, spawned, frozen, thawed, ended, as `policy` decides."""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from warmwire.broker.logs import logger
from warmwire.broker.wire.names import SessionKey
from warmwire.broker.wire.sealed import Token
from warmwire.worker.cli.dialect import Dialect
from warmwire.worker.cli.launch import CREDENTIAL, Spawning, prompt_or_default, transcript_path
from warmwire.worker.credentials import hidden
from warmwire.worker.errors import CliError, CliGone, ErrorCode
from warmwire.worker.machine.process import CliProcess, Exit
from warmwire.worker.pool.policy import Adopt, Need, Own, Spare, Spawn, Tier, Use, serve
from warmwire.worker.pool.supply import Supply
from warmwire.worker.profiles import Profile, Setup

log = logger(__name__)


class Warm:
    """What one session has of a process. ``heard`` gets its lines, ``failed`` why it is gone."""

    def __init__(
        self,
        supply: Supply,
        folder: Path,
        heard: Callable[[list[bytes]], None],
        failed: Callable[[ErrorCode], None],
        dialect: Dialect | None = None,
        key: SessionKey | None = None,
    ) -> None:
        self._supply = supply
        self._key = key
        self._dialect = dialect or supply.recipe.dialect()
        self._own_folder = self._folder = folder
        self._heard = heard
        self._failed = failed
        self._process: CliProcess | None = None
        self._killed: CliProcess | None = None  # not waited for yet
        self._number = 0  # of the process: what an earlier one still says is nobody's business
        self._setup = Setup()  # that it has been told
        self._token: Token | None = None  # the user's, that it has been told
        self._pooled = True  # it was started with the pool's credential
        self._has_spoken = False
        self._frozen = False
        self._held = False

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.running

    @property
    def tier(self) -> Tier:
        """What there is of a process."""
        if not self.running:
            return Tier.PARKED
        return Tier.FROZEN if self._frozen else Tier.WARM

    # -- for a turn

    async def provide(
        self,
        setup: Setup,
        conversation: Callable[[], Awaitable[bytes]],
        token: Token | None = None,
        traceparent: str | None = None,
    ) -> str:
        """Have a process with the conversation so far, set up like this; says how it got it. Raises CliError.

        It works with the user's token, or with the pool's credential and never with another user's. If it is
        started for this turn it is told the turn's trace.
        """
        own = Own(self._setup.model) if self.running and self._suits(token) else None
        past = b"" if own else await conversation()
        need = Need(setup.profile, setup.model, new=not past)
        service = serve(need, own, self._spares(token), self._supply.recipe.can)
        how = self._supply.served(need, service)
        match service:
            case Use():
                self._use(service, setup, token)
            case Adopt():
                try:
                    await self._adopt(service.spare, setup, token)
                except CliError:  # it has died this very moment, and is no longer among the spares
                    self.kill()
                    return await self.provide(setup, conversation, token, traceparent)
            case Spawn():
                past = past or await conversation()
                await self.end()
                await self._spawn(setup, past, token, traceparent)
        self._tell_settings(setup)
        return how

    def _spares(self, token: Token | None) -> tuple[Spare, ...]:
        """A spare has the pool's credential, if there is one, and that would win over a user's token."""
        return self._supply.spares() if token is None or not _pool_has_credential() else ()

    def _use(self, service: Use, setup: Setup, token: Token | None) -> None:
        self._thaw()
        self._tell_token(token)
        if service.set_model:
            self._tell_model(setup.model)

    def _suits(self, token: Token | None) -> bool:
        """A process cannot forget a token, and the pool's credential would win over one."""
        if token is None or self._token == token:
            return self._token == token
        return not self._pooled and self._dialect.credential_line(token.value) is not None

    async def _adopt(self, number: int, setup: Setup, token: Token | None) -> None:
        spare = self._supply.take(number)  # before anything else may run: nobody else gets it
        try:
            await self.end()
            self._number += 1
            process = await spare.adopt(*self._ears())
        except BaseException:
            self._supply.discard(spare)
            raise
        self._folder, self._has_spoken = spare.folder, spare.ready
        self._pooled = _pool_has_credential()
        self._take(process)
        self._tell_token(token)
        self._tell(self._dialect.adopt_line(prompt_or_default(setup.system_prompt)))
        if setup.model is not None:
            self._tell_model(setup.model)

    async def _spawn(self, setup: Setup, past: bytes, token: Token | None, traceparent: str | None) -> None:
        recipe = self._supply.recipe
        profile = recipe.profiles[setup.profile]
        session, resume = str(uuid.uuid4()), None
        if past:
            resume = transcript_path(self._folder, self._dialect.named_in(past) or session)
        spawn = Spawning(
            folder=self._folder,
            environment=os.environ,
            session=session,
            model=setup.model,
            system_prompt=setup.system_prompt,
            resume=resume,
            token=token.value if token is not None else None,
            profile=profile,
            cwd=self._kept(profile),
        )
        plan = recipe.plan(self._dialect, spawn, traceparent)
        if resume is not None:
            plan = replace(plan, files=(*plan.files, (resume, past)))
        self._number += 1
        self._has_spoken = False
        self._pooled = token is None and _pool_has_credential()
        self._take(await self._supply.start(plan, *self._ears()))
        self._tell_token(token)

    def _kept(self, profile: Profile) -> Path | None:
        """Where the session's working directory outlives its process, if it does."""
        if profile.keep_in is None or self._key is None:
            return None
        return profile.keep_in / self._key.tenant / self._key.session

    def _take(self, process: CliProcess) -> None:
        self._setup = Setup()
        self._process = process
        self._stop_or_go()

    def _tell_model(self, model: str | None) -> None:
        self._tell(self._dialect.model_line(model))

    def _tell_settings(self, setup: Setup) -> None:
        """What a process can be told at any time, where it is another than before."""
        before, self._setup = self._setup, setup
        if setup.permission_mode != before.permission_mode:
            self._tell(self._dialect.mode_line(setup.permission_mode))
        if setup.thinking_tokens != before.thinking_tokens:
            self._tell(self._dialect.thinking_line(setup.thinking_tokens))

    def _tell(self, line: bytes | None) -> None:
        if line is not None:  # else nobody could have asked for it: see `profiles.load`, `pool.serve`
            self.write(line)

    def _tell_token(self, token: Token | None) -> None:
        if token is None or token == self._token:
            return
        line = self._dialect.credential_line(token.value)
        if line is not None:  # else it was started with it
            self.write(line)
        self._token = token

    # -- what it says, what it is told

    def write(self, line: bytes) -> None:
        """Raises CliError."""
        if self._process is None:
            raise CliGone("there is no CLI process")
        self._process.write(line)

    def _ears(self) -> tuple[Callable[[list[bytes]], None], Callable[[Exit], None]]:
        return partial(self._lines, self._number), partial(self._exited, self._number)

    def _lines(self, number: int, lines: list[bytes]) -> None:
        if number == self._number:
            self._has_spoken = True
            self._heard(lines if self._token is None else [hidden(line, self._token) for line in lines])

    def _exited(self, number: int, exit_: Exit) -> None:
        if number != self._number:
            return
        self._process = None
        stderr = hidden(exit_.stderr.encode(), self._token).decode()
        log.info("CLI ended", code=exit_.returncode, stderr=stderr[-500:])
        self._failed(self.loss)

    @property
    def loss(self) -> ErrorCode:
        """What it means that the process is gone."""
        return ErrorCode.CLI_CRASHED if self._has_spoken else ErrorCode.CLI_START_FAILED

    # -- stop and go

    def freeze(self) -> None:
        """Between turns: stop it until it is needed."""
        self._frozen = True
        self._stop_or_go()

    def _thaw(self) -> None:
        if self._frozen:
            self._frozen = False
            self._stop_or_go()

    def hold(self) -> None:
        """The worker must hold still, and with it its processes, those that are being started too."""
        self._held = True
        self._stop_or_go()

    def go_on(self) -> None:
        """The worker goes on; a process that was frozen before stays frozen."""
        self._held = False
        self._stop_or_go()

    def _stop_or_go(self) -> None:
        if self._process is None:
            return
        if self._frozen or self._held:
            self._process.freeze()
        else:
            self._process.thaw()

    # -- the end

    def interrupt(self) -> None:
        """Stop its turn by SIGINT; it may end by that."""
        if self._process is not None:
            self._process.interrupt()

    def terminate(self) -> None:
        """Ask it to end, by SIGTERM."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once; nobody hears of it."""
        process = self._let_go()
        if process is not None:
            process.kill()
            self._killed = process

    async def end(self) -> None:
        """End it in its own time and remove what it has written; what was killed may be writing still."""
        process = self._let_go() or self._killed
        if process is not None:
            process.thaw()  # a stopped process hears nothing
            await process.stop()
        self._killed = None
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        self._folder = self._own_folder

    def _let_go(self) -> CliProcess | None:
        process, self._process = self._process, None
        self._number += 1
        self._frozen = False
        self._token = None
        return process


def _pool_has_credential() -> bool:
    return bool(os.environ.get(CREDENTIAL))
