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
from collections.abc import Coroutine
from importlib.metadata import version
from time import monotonic, time_ns
from typing import Any

import structlog
import uvloop

from warmwire.broker import heartbeat, role, streams, telemetry
from warmwire.broker.bus import Bus, connect
from warmwire.broker.discovery import announce
from warmwire.broker.errors import BadInput, Conflict, Contended, NoResponder, Unavailable
from warmwire.broker.liveness import Liveness
from warmwire.broker.messages import Forward as ForwardMessage
from warmwire.broker.messages import ForwardReply, Heartbeat, OwnerRecord, Tiers, decode
from warmwire.broker.names import SessionKey, Subjects
from warmwire.broker.pull import Pulled, Puller
from warmwire.broker.sender import Sender
from warmwire.broker.store import Owned, Store
from warmwire.broker.tasks import Tasks
from warmwire.worker import fence, metrics, pool, sandbox
from warmwire.worker.abilities import abilities, doubt, probe
from warmwire.worker.capacity import Gauge, machine_limits, tell
from warmwire.worker.credentials import Keys
from warmwire.worker.dialect import DIALECTS
from warmwire.worker.fence import Fence
from warmwire.worker.folder import claimed_folder
from warmwire.worker.host import IN_PROGRESS, NAK, TERMINATE, Host, Lost, Services
from warmwire.worker.launch import cli_command
from warmwire.worker.operators import as_service, obey
from warmwire.worker.ownership import Claim, place
from warmwire.worker.processes import Processes
from warmwire.worker.profiles import load
from warmwire.worker.recent import Recent
from warmwire.worker.settings import WorkerSettings
from warmwire.worker.supply import Supply
from warmwire.worker.turn import Ended, Held

log = structlog.get_logger(__name__)

TICK = 0.5
"""Seconds between two looks at the time."""
IN_PROGRESS_EVERY = 1.0
"""Seconds between two in-progress acks of a held message; a third of the queue's patience."""
PLACE_AGAIN = 0.25
"""Seconds after which an owner that did not answer is asked again."""
FORWARD_WITHIN = 1.0
"""Seconds that an owner may take to accept a forwarded message."""
AWAY = 5.0
"""Seconds in which a session that was given away is left to others."""
RELEASES_AT_ONCE = 32
"""Sessions released at a time when draining."""
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
        self._profiles = load(settings.profiles, settings.dialect)
        self._spares = self._profiles.spares(settings.spares)
        self._sandbox: sandbox.Sandbox | None = None
        if self._profiles.sandboxed(settings.sandbox):
            self._sandbox = sandbox.found(settings.data, settings.hidden)
        self._limits = machine_limits(settings)
        self._gauge = Gauge(lambda: self._processes.running)
        self._hosts: dict[SessionKey, Host] = {}
        self._opening: dict[SessionKey, asyncio.Future[None]] = {}
        self._placing: dict[int, Held] = {}
        self._away: dict[SessionKey, float] = {}  # sessions given away, and until when others may claim them
        self._tasks = Tasks()
        self._fence = Fence(monotonic())
        self._draining = False
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
        settings, subjects = self._settings, self._subjects
        self._folder = claimed_folder(settings.data, self.id)
        self._processes = Processes(
            self._folder.path,
            alone=self._alone,
            group=settings.control_group,
            memory_mb=settings.cli_memory_mb,
            window=settings.send_window_ms / 1000,
        )
        self._bus: Bus = await connect(settings.nats, self.id, settings.login("worker"))
        await streams.ensure(self._bus, subjects, settings.replicas, time_ns() // 1_000_000)
        self._store = Store(self._bus, subjects)
        self._liveness: Liveness = await heartbeat.listen(self._bus, subjects, self._heard)
        # The first thing that a worker does after a pause is to send what its CLIs have said meanwhile.
        self._sender = Sender(self._bus, lambda: self._fence.open(monotonic()))
        self._sender.start()
        self._supply = await self._open_supply()
        self._services = Services(
            self.id,
            settings,
            self._supply,
            self._folder.path,
            self._bus,
            self._store,
            subjects,
            self._sender,
            self._ended,
            self._leave,
            self._keys,
        )
        self._beats = heartbeat.HeartbeatThread(
            settings.nats, subjects, self._beat, login=settings.login("worker")
        )
        self._beats.start()
        self._fence = Fence(monotonic())
        self._puller = Puller(self._bus, subjects, self._room, self._pulled)
        await self._puller.start()
        control = subjects.worker_control(self.id)
        await obey(self._bus, control, self.leave, self._beat, self._adopt)
        await announce(self._bus, subjects, as_service(self.id, subjects, self._recent), self._tasks)
        self._tasks.begin(self._keep_time(), "keep time")
        self._tasks.begin(self._keep_held(), "keep held messages")
        self._tasks.begin(self._gauge.run(), "measure memory")
        self.metrics = await metrics.shown(settings, self._bus, self._tasks)
        log.info("worker ready", worker=self.id, cli=self._command[0], turns=self._limits.turns)

    async def _open_supply(self) -> Supply:
        can = await self._abilities() if self._settings.dialect == "claude" else pool.Abilities()
        self._processes.open()
        return Supply(
            self._command,
            self._folder.path,
            can,
            self._limits.starting,
            self._tasks,
            self._processes,
            DIALECTS[self._settings.dialect],
            self._profiles,
            self._sandbox,
            enclosed=self._settings.sandbox == "bwrap",
            traces=self._settings.cli_traces,
        )

    async def _abilities(self) -> pool.Abilities:
        said = await probe(self._command)
        log.info("CLI version", version=said)
        if (why := doubt(said)) is not None:
            log.warning(why, version=said)
        return abilities(said)

    async def stop(self) -> None:
        """Leave without losing anything; see the module's text for the order."""
        self._draining = self.stopped = True
        await self._puller.stop()
        if self.metrics is not None:
            await self.metrics.stop()
        for host in self._hosts.values():
            host.drain()
        await self._supply.stop()
        deadline = monotonic() + self._settings.drain_timeout
        while self._hosts and monotonic() < deadline:
            await self._release([host for host in self._hosts.values() if not host.active], RELEASE_WITHIN)
            if self._hosts:
                await asyncio.sleep(TICK / 5)
        await self._release(list(self._hosts.values()), RELEASE_WITHIN)
        await self._tasks.stop()
        await self._beats.stop()
        await self._sender.stop()
        await self._bus.close()
        await self._processes.close()
        self._folder.remove()

    # -- messages

    def _room(self) -> int:
        if not self._fence.open(monotonic()):
            return 0
        active = idle = 0
        for host in self._hosts.values():  # once per turn, over all of them
            if host.active:
                active += 1
            elif host.has_process:
                idle += 1
        load = pool.Load(active, len(self._placing), idle, self._gauge.left_mb)
        return pool.room(load, pool.fitted(self._limits, self._gauge.process_mb))

    def _pulled(self, pulled: Pulled) -> None:
        try:
            key = self._subjects.session_of(pulled.subject)
            trace = pulled.headers.get("traceparent")
            held = Held.read(pulled.data, pulled.sequence, pulled.ack, pulled.deliveries, trace)
        except BadInput as error:
            telemetry.alien.add(1)
            log.warning("alien user message terminated", subject=pulled.subject, error=str(error))
            self._tasks.begin(self._bus.publish(pulled.ack, TERMINATE), "terminate")
            return
        if held.unreadable:
            telemetry.alien.add(1)
            log.warning("unreadable user message: its turn fails", session=str(key), error=held.unreadable)
        self._placing[held.sequence] = held  # from here on it counts, and is kept from being redelivered
        self._tasks.begin(self._take(key, held, pulled), "place a message")

    async def _take(self, key: SessionKey, held: Held, pulled: Pulled) -> None:
        try:
            await self._place(key, held, pulled)
        finally:
            self._placing.pop(held.sequence, None)

    async def _place(self, key: SessionKey, held: Held, pulled: Pulled) -> None:
        """Until somebody answers for the message: we, or the owner that it is forwarded to."""
        while not self._draining:
            if not self._fence.open(monotonic()):
                await asyncio.sleep(PLACE_AGAIN)
                continue
            try:
                host = await self._host(key, pulled)
                if host is None:
                    return
                if not host.closing:
                    host.offer(held)
                    return
                await host.closed.wait()
            except (Conflict, Contended, Unavailable, Lost) as error:
                log.info(
                    "placing the message again", session=str(key), error=str(error) or type(error).__name__
                )
                await asyncio.sleep(PLACE_AGAIN)
        await self._bus.publish(pulled.ack, NAK)

    async def _adopt(self, key: SessionKey) -> bool:
        """An operator wants the session to be here; whether it is."""
        self._away.pop(key, None)
        try:
            host = None if self._draining else await self._host(key, None)
        except (Conflict, Contended, Unavailable, Lost) as error:
            log.warning("session not claimed", session=str(key), error=str(error) or type(error).__name__)
            return False
        return host is not None and not host.closing

    async def _host(self, key: SessionKey, pulled: Pulled | None) -> Host | None:
        """The session's host here; None when another worker owns it, and has taken the message, if any."""
        while key in self._opening:
            await asyncio.shield(self._opening[key])
        host = self._hosts.get(key)
        if host is not None and not host.closed.is_set():
            return host
        opening = self._opening[key] = asyncio.get_running_loop().create_future()
        try:
            return await self._claim_or_forward(key, pulled)
        finally:
            del self._opening[key]
            opening.set_result(None)

    async def _claim_or_forward(self, key: SessionKey, pulled: Pulled | None) -> Host | None:
        owned = await self._store.owner(key)
        holder = owned.record.worker if owned else None
        dead = holder is not None and self._liveness.dead(holder, monotonic())
        decision = place(owned, self.id, owner_dead=dead)
        if isinstance(decision, Claim):
            if self._away.get(key, 0.0) > monotonic():
                raise Contended("the session was given away")
            return await self._claim(key, decision.expected, owned)
        if pulled is not None:
            await self._forward(key, pulled)
        return None

    async def _claim(self, key: SessionKey, expected: int, owned: Owned | None) -> Host:
        nonce = secrets.token_hex(8)
        epoch = await self._store.claim(key, OwnerRecord(worker=self.id, nonce=nonce), expected)
        if owned is not None and owned.record.worker is not None:
            telemetry.takeovers.add(1)
            log.warning("session taken over", session=str(key), of=owned.record.worker)
        host = Host(self._services, key, epoch, nonce)
        try:
            await host.open(had_owner=owned is not None)
        except (Lost, Unavailable):
            await host.abandon()
            raise
        self._hosts[key] = host
        return host

    async def _forward(self, key: SessionKey, pulled: Pulled) -> None:
        """Raises NoResponder or Unavailable: ask again, it is no proof of death."""
        forward = ForwardMessage(
            data=pulled.data.decode(),
            headers=pulled.headers,
            ack=pulled.ack,
            sequence=pulled.sequence,
            deliveries=pulled.deliveries,
        )
        answer = await self._bus.request(self._subjects.forwards(key), forward.encode(), FORWARD_WITHIN)
        try:
            taken = decode(ForwardReply, answer).mine
        except BadInput as error:
            raise Unavailable(f"the owner answered nonsense: {error}") from error
        if not taken:
            raise NoResponder("the owner is leaving")

    # -- keeping

    async def _keep_held(self) -> None:
        while True:
            await asyncio.sleep(IN_PROGRESS_EVERY)
            if not self._fence.open(monotonic()):
                continue
            held = [*self._placing.values(), *(held for host in self._hosts.values() for held in host.held())]
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
            for host in tuple(self._hosts.values()):
                host.tick(now)
            if not self._draining:
                self._keep_pool(now)

    def _keep_pool(self, now: float) -> None:
        parked: list[Host] = []
        view = self._pool(now)
        self._tiers = tell(view)
        for work in pool.upkeep(view, pool.fitted(self._limits, self._gauge.process_mb)):
            match work:
                case pool.Park(key):
                    parked.append(self._hosts[key])
                case pool.Freeze(key):
                    self._hosts[key].freeze()
                case pool.KillSpare(number):
                    self._supply.kill(number)
                case pool.SpawnSpare(profile):
                    self._supply.spawn(profile)
        if parked:
            self._tasks.begin(self._release(parked), "park")

    def _pool(self, now: float) -> pool.View[SessionKey]:
        supply = self._supply
        return pool.View(
            now,
            [host.seen() for host in self._hosts.values() if not host.closing],
            supply.spares(),
            wanted=supply.wanted(self._spares, self._settings.max_spares),
            claiming=len(self._opening),
            starting=supply.starting,
            adopted_at=supply.adopted_at,
            failed=supply.failed,
            failed_at=supply.failed_at,
            memory_left_mb=self._gauge.left_mb,
        )

    def _leave(self, host: Host, ending: Coroutine[Any, Any, None]) -> None:
        async def leave() -> None:
            await ending
            if host.given_away:  # before whoever waits for its end claims it again
                now = monotonic()
                self._away = {key: until for key, until in self._away.items() if until > now}
                self._away[host.key] = now + AWAY
            if self._hosts.get(host.key) is host:
                del self._hosts[host.key]

        self._tasks.begin(leave(), "leave a session")

    async def _release(self, hosts: list[Host], within: float | None = None) -> None:
        gate = asyncio.Semaphore(RELEASES_AT_ONCE)

        async def release(host: Host) -> None:
            async with gate:
                if not host.closed.is_set():
                    await host.close(within)
                if self._hosts.get(host.key) is host:  # not one that has been claimed since
                    del self._hosts[host.key]

        await asyncio.gather(*(release(host) for host in hosts))

    # -- the fence

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
                    for host in self._hosts.values():
                        host.hold()
                case fence.ReadOwners(number):
                    self._tasks.begin(self._read_owners(number), "read owner records")
                case fence.Thaw():
                    log.info("heard by ourselves again: going on")
                    self._liveness.reconnected(monotonic())
                    for host in self._hosts.values():
                        host.go_on()
                    self._sender.go_on()
                    self._puller.more_room()

    async def _read_owners(self, number: int) -> None:
        gate = asyncio.Semaphore(RELEASES_AT_ONCE)

        async def check(host: Host) -> None:
            async with gate:
                await host.check()

        await asyncio.gather(*(check(host) for host in tuple(self._hosts.values())))
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
        hosts = tuple(self._hosts.values())
        running = sum(host.active for host in hosts)
        return Heartbeat(
            worker=self.id,
            version=self._version,
            sent=monotonic(),
            free=max(0, self._limits.turns - running),
            running=running,
            sessions=len(hosts),
            draining=self._draining,
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
