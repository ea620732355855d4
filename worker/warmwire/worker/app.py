"""A worker: pulls user messages, owns sessions, runs their CLIs.

Start: connect, streams, hear heartbeats, send heartbeats, pull.
Stop, in this order: pull no more (others take what comes), release idle sessions at once (others may claim
them), let running turns end until the deadline, hand the rest back, then stop beating (from now on silence is
death), send what waits, leave NATS.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from importlib.metadata import version
from time import monotonic

import uvloop

from warmwire.broker import role, telemetry
from warmwire.broker.errors import Unavailable
from warmwire.broker.liveness import Liveness
from warmwire.broker.logs import logger
from warmwire.broker.nats import heartbeat
from warmwire.broker.nats.bus import Bus
from warmwire.broker.nats.discovery import announce
from warmwire.broker.nats.joining import join
from warmwire.broker.nats.pull import IN_PROGRESS, Puller
from warmwire.broker.nats.sender import Sender
from warmwire.broker.nats.store import Store
from warmwire.broker.tasks import Tasks
from warmwire.broker.wire.messages import Heartbeat, Tiers
from warmwire.broker.wire.names import SessionKey, Subjects
from warmwire.worker import fence, metrics
from warmwire.worker.cli.dialect import Abilities
from warmwire.worker.cli.dialects import DIALECTS
from warmwire.worker.cli.program import cli_command, probe
from warmwire.worker.credentials import Keys
from warmwire.worker.fence import Fence
from warmwire.worker.machine import sandbox
from warmwire.worker.machine.folder import claimed_folder
from warmwire.worker.machine.processes import Processes
from warmwire.worker.operators import as_service, obey
from warmwire.worker.pool import policy
from warmwire.worker.pool.capacity import Gauge, machine_limits, tell
from warmwire.worker.pool.recipe import Recipe
from warmwire.worker.pool.supply import Supply
from warmwire.worker.profiles import load
from warmwire.worker.sessions.host import Host, Services
from warmwire.worker.sessions.placing import Placing
from warmwire.worker.sessions.recent import Recent
from warmwire.worker.sessions.turn import Ended
from warmwire.worker.settings import WorkerSettings

log = logger(__name__)

TICK = 0.5
"""Seconds between two looks at the time."""
IN_PROGRESS_EVERY = 1.0
"""Seconds between two in-progress acks of a held message; a third of the queue's patience."""
RELEASE_WITHIN = 5.0
"""Seconds in which a worker that leaves must have released a session."""


class Worker:
    """One worker process. ``start``, then ``stop``."""

    def __init__(self, settings: WorkerSettings, *, alone: bool = False) -> None:
        self.id = f"w-{secrets.token_hex(8)}"
        self._alone = alone  # nothing else is in this process
        self._settings = settings
        self._subjects = Subjects(settings.prefix)
        self._command = cli_command(settings.cli, settings.dialect)
        self._keys = Keys.load(settings.pool_key_file)
        self._dialect = DIALECTS[settings.dialect]
        self._profiles = load(settings.profiles, settings.dialect, self._dialect.profile_fields)
        self._spares = self._profiles.spares(settings.spares)
        self._sandbox: sandbox.Sandbox | None = None
        if self._profiles.sandboxed(settings.sandbox):
            self._sandbox = sandbox.found(settings.data, settings.hidden)
        self._limits = machine_limits(settings)
        self._gauge = Gauge(lambda: self._processes.running)
        self._tasks = Tasks()
        self._fence = Fence(monotonic())
        self._recent = Recent()
        self._tiers: Tiers | None = None
        self.leave = asyncio.Event()  # an operator wants it to
        self._version = version("warmwire")
        self.stopped = False

    async def start(self) -> None:
        """Come into service.

        Raises:
            WarmwireError: NATS or its streams are not as needed.
        """
        self._folder = claimed_folder(self._settings.data, self.id)
        self._processes = Processes(
            self._folder.path,
            alone=self._alone,
            group=self._settings.control_group,
            memory_mb=self._settings.cli_memory_mb,
            window=self._settings.send_window_ms / 1000,
        )
        await self._connect()
        self._supply = await self._open_supply()
        self._placing = Placing(self._services(), self._liveness, self._tasks, self._may_work)
        await self._serve()
        log.info("worker ready", worker=self.id, cli=self._command[0], turns=self._limits.turns)

    async def _connect(self) -> None:
        settings = self._settings
        self._bus: Bus = await join(settings, "worker", self.id, self.leave.is_set, consumer=True)
        self._liveness: Liveness = await heartbeat.listen(self._bus, self._subjects, self._heard)
        # The first thing that a worker does after a pause is to send what its CLIs have said meanwhile.
        self._sender = Sender(self._bus, self._may_work)
        self._sender.start()

    def _services(self) -> Services:
        return Services(
            self.id,
            self._settings,
            self._supply,
            self._folder.path,
            self._bus,
            Store(self._bus, self._subjects),
            self._subjects,
            self._sender,
            self._ended,
            self._keys,
        )

    async def _serve(self) -> None:
        """Be heard, take messages, do as operators say."""
        settings, subjects = self._settings, self._subjects
        self._beats = heartbeat.HeartbeatThread(
            settings.nats, subjects, self._beat, login=settings.login("worker")
        )
        self._beats.start()
        self._fence = Fence(monotonic())
        self._puller = Puller(self._bus, subjects, self._room, self._placing.pulled)
        await self._puller.start()
        control = subjects.worker_control(self.id)
        await obey(self._bus, control, self.leave, self._beat, self._placing.claim)
        await announce(self._bus, subjects, as_service(self.id, subjects, self._recent), self._tasks)
        self._tasks.begin(self._keep_time(), "keep time")
        self._tasks.begin(self._keep_held(), "keep held messages")
        self._tasks.begin(self._gauge.run(), "measure memory")
        self.metrics = await metrics.shown(settings, self._bus, self._tasks)

    async def _open_supply(self) -> Supply:
        recipe = Recipe(
            command=self._command,
            can=await self._abilities(),
            dialect=self._dialect,
            profiles=self._profiles,
            sandbox=self._sandbox,
            enclosed=self._settings.sandbox == "bwrap",
            traces=self._settings.cli_traces,
        )
        self._processes.open()
        return Supply(recipe, self._folder.path, self._limits.starting, self._tasks, self._processes)

    async def _abilities(self) -> Abilities:
        dialect = self._dialect()
        said = await probe(self._command) if dialect.asks_version else ""
        if dialect.asks_version:
            log.info("CLI version", version=said)
        if (why := dialect.doubt(said)) is not None:
            log.warning(why, version=said)
        return dialect.abilities(said)

    async def stop(self) -> None:
        """Leave without losing anything; see the module's text for the order."""
        self.stopped = self._placing.draining = True
        await self._puller.stop()
        if self.metrics is not None:
            await self.metrics.stop()
        hosts = self._placing.hosts
        for host in hosts.values():
            host.drain()
        await self._supply.stop()
        deadline = monotonic() + self._settings.drain_timeout
        while hosts and monotonic() < deadline:
            idle = [host for host in hosts.values() if not host.active]
            await self._placing.release(idle, RELEASE_WITHIN)
            if hosts:
                await asyncio.sleep(TICK / 5)
        await self._placing.release(list(hosts.values()), RELEASE_WITHIN)
        await self._tasks.stop()
        await self._beats.stop()
        await self._sender.stop()
        await self._bus.close()
        await self._processes.close()
        self._folder.remove()

    # -- keeping

    def _room(self) -> int:
        if not self._may_work():
            return 0
        active = idle = 0
        for host in self._placing.hosts.values():  # once per turn, over all of them
            if host.active:
                active += 1
            elif host.has_process:
                idle += 1
        load = policy.Load(active, self._placing.unplaced, idle, self._gauge.left_mb)
        return policy.room(load, policy.fitted(self._limits, self._gauge.process_mb))

    async def _keep_held(self) -> None:
        while True:
            await asyncio.sleep(IN_PROGRESS_EVERY)
            if not self._may_work():
                continue
            held = list(self._placing.held())
            try:
                for message in held:
                    await self._bus.publish(message.ack, IN_PROGRESS)
                telemetry.lease_renewals.value += len(held)
            except Unavailable as error:
                telemetry.lease_failures.value += 1
                log.warning("held messages not confirmed; they may be redelivered", error=str(error))

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            now = monotonic()
            self._obey(self._fence.tick(now))
            if not self._fence.open(now):
                continue
            for host in tuple(self._placing.hosts.values()):
                try:
                    host.tick(now)
                except Exception:  # a fault of ours in one session is none in all
                    log.exception("a session failed", session=str(host.key))
            if not self._placing.draining:
                self._keep_pool(now)

    def _keep_pool(self, now: float) -> None:
        parked: list[Host] = []
        view = self._pool(now)
        self._tiers = tell(view)
        for work in policy.upkeep(view, policy.fitted(self._limits, self._gauge.process_mb)):
            match work:
                case policy.Park(key):
                    parked.append(self._placing.hosts[key])
                case policy.Freeze(key):
                    self._placing.hosts[key].freeze()
                case policy.KillSpare(number):
                    self._supply.kill(number)
                case policy.SpawnSpare(profile):
                    self._supply.spawn(profile)
        if parked:
            self._tasks.begin(self._placing.release(parked), "park")

    def _pool(self, now: float) -> policy.View[SessionKey]:
        supply = self._supply
        return policy.View(
            now,
            [host.seen() for host in self._placing.hosts.values() if not host.closing],
            supply.spares(),
            wanted=supply.wanted(self._spares, self._settings.max_spares),
            claiming=len(self._placing.opening),
            starting=supply.starting,
            adopted_at=supply.adopted_at,
            failed=supply.failed,
            failed_at=supply.failed_at,
            memory_left_mb=self._gauge.left_mb,
        )

    # -- the fence

    def _may_work(self) -> bool:
        return self._fence.open(monotonic())

    def _heard(self, beat: Heartbeat) -> None:
        if beat.worker == self.id:
            self._obey(self._fence.heard(beat.sent, monotonic()))

    def _obey(self, commands: list[fence.Command]) -> None:
        for command in commands:
            match command:
                case fence.Freeze():
                    telemetry.fenced.add(1)
                    log.warning("not heard by ourselves: holding still")
                    self._sender.hold()
                    for host in self._placing.hosts.values():
                        host.hold()
                case fence.ReadOwners(number):
                    self._tasks.begin(self._read_owners(number), "read owner records")
                case fence.Thaw():
                    log.info("heard by ourselves again: going on")
                    self._liveness.reconnected(monotonic())
                    for host in self._placing.hosts.values():
                        host.go_on()
                    self._sender.go_on()
                    self._puller.more_room()

    async def _read_owners(self, number: int) -> None:
        await self._placing.check()
        self._obey(self._fence.read(number, monotonic()))

    # -- what others are told

    def _ended(self, key: SessionKey, ended: Ended) -> None:
        end = ended.end
        self._recent.ended(key, end, monotonic())
        telemetry.turns.add(1, {"ending": end.type.removeprefix("turn_")})
        log.info(
            "turn ended",
            session=str(key),
            turn=end.turn,
            ending=end.type,
            ms=end.duration_ms,
            ttft_ms=end.ttft_ms,
            trace_id=end.traceparent and end.traceparent.split("-")[1],
        )
        self._puller.more_room()

    def _beat(self) -> Heartbeat:
        hosts = tuple(self._placing.hosts.values())
        running = sum(host.active for host in hosts)
        return Heartbeat(
            worker=self.id,
            version=self._version,
            sent=monotonic(),
            free=max(0, self._limits.turns - running),
            running=running,
            sessions=len(hosts),
            draining=self._placing.draining,
            recently=self._recent.told,
            tiers=self._tiers,
        )


async def _run(settings: WorkerSettings) -> int:
    worker = Worker(settings, alone=True)
    signalled = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if signalled.is_set():
            os._exit(1)  # the second one forces; the CLIs die with us
        signalled.set()
        worker.leave.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGUSR1, worker.leave.set)  # never forces: for what comes before a SIGTERM
    await worker.start()
    await worker.leave.wait()
    log.info("worker drains", worker=worker.id)
    await worker.stop()
    return 0


def main(settings: WorkerSettings) -> int:
    """Run a worker until SIGTERM; returns the exit code."""
    return role.run("worker", lambda: uvloop.run(_run(settings)))
