"""The sessions that this worker owns, and how a message gets to its session: here, or at its owner's.

`ownership` decides who runs a message; this carries it out and keeps the hosts.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from time import monotonic

from warmwire.broker import telemetry
from warmwire.broker.errors import BadInput, Conflict, Contended, NoResponder, Unavailable
from warmwire.broker.liveness import Liveness
from warmwire.broker.logs import logger
from warmwire.broker.nats.asking import ask
from warmwire.broker.nats.pull import NAK, TERMINATE, Pulled
from warmwire.broker.nats.store import Owned
from warmwire.broker.tasks import Tasks
from warmwire.broker.wire.messages import Forward as ForwardMessage
from warmwire.broker.wire.messages import ForwardReply, OwnerRecord, decode
from warmwire.broker.wire.names import SessionKey
from warmwire.worker.sessions.host import Ending, Host, Services
from warmwire.worker.sessions.owner_store import Lost
from warmwire.worker.sessions.ownership import Claim, place
from warmwire.worker.sessions.turn import Held

log = logger(__name__)

PLACE_AGAIN = 0.25
"""Seconds after which an owner that did not answer is asked again."""
AWAY = 5.0
"""Seconds in which a session that was given away is left to others."""
AT_ONCE = 32
"""Sessions that are released, or whose owner records are read, at a time."""


class Placing:
    """Finds for each message who runs it. ``hosts`` are the sessions that are owned here.

    ``may_work`` says whether the worker may do anything at this moment: see `fence`.
    """

    def __init__(
        self, services: Services, liveness: Liveness, tasks: Tasks, may_work: Callable[[], bool]
    ) -> None:
        self.draining = False
        self.hosts: dict[SessionKey, Host] = {}
        self.opening: dict[SessionKey, asyncio.Future[None]] = {}
        self._services = services
        self._liveness = liveness
        self._tasks = tasks
        self._may_work = may_work
        self._unplaced: dict[int, Held] = {}  # pulled, and nobody has taken them yet
        self._away: dict[SessionKey, float] = {}  # sessions given away, and until when others may claim them

    @property
    def unplaced(self) -> int:
        """Messages that were pulled and nobody has taken yet."""
        return len(self._unplaced)

    def held(self) -> Iterator[Held]:
        """The messages that this worker answers for."""
        yield from self._unplaced.values()
        for host in self.hosts.values():
            yield from host.held()

    # -- messages

    def pulled(self, pulled: Pulled) -> None:
        """A message of the work queue has come."""
        try:
            key = self._services.subjects.session_of(pulled.subject)
            trace = pulled.headers.get("traceparent")
            held = Held.read(pulled.data, pulled.sequence, pulled.ack, pulled.deliveries, trace)
        except BadInput as error:
            telemetry.alien.add(1)
            log.warning("alien user message terminated", subject=pulled.subject, error=str(error))
            self._tasks.begin(self._services.tell(pulled.ack, TERMINATE), "terminate")
            return
        if held.unreadable:
            telemetry.alien.add(1)
            log.warning("unreadable user message: its turn fails", session=str(key), error=held.unreadable)
        self._unplaced[held.sequence] = held  # from here on it counts, and is kept from being redelivered
        self._tasks.begin(self._take(key, held, pulled), "place a message")

    async def _take(self, key: SessionKey, held: Held, pulled: Pulled) -> None:
        try:
            await self._place(key, held, pulled)
        finally:
            self._unplaced.pop(held.sequence, None)

    async def _place(self, key: SessionKey, held: Held, pulled: Pulled) -> None:
        """Until somebody answers for the message: we, or the owner that it is forwarded to."""
        while not self.draining:
            if not self._may_work():
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
        await self._services.tell(pulled.ack, NAK)

    async def claim(self, key: SessionKey) -> bool:
        """An operator wants the session to be here; whether it is."""
        self._away.pop(key, None)
        try:
            host = None if self.draining else await self._host(key, None)
        except (Conflict, Contended, Unavailable, Lost) as error:
            log.warning("session not claimed", session=str(key), error=str(error) or type(error).__name__)
            return False
        return host is not None and not host.closing

    async def _host(self, key: SessionKey, pulled: Pulled | None) -> Host | None:
        """The session's host here; None when another worker owns it, and has taken the message, if any."""
        while key in self.opening:
            await asyncio.shield(self.opening[key])
        host = self.hosts.get(key)
        if host is not None and not host.closed.is_set():
            return host
        opening = self.opening[key] = asyncio.get_running_loop().create_future()
        try:
            return await self._claim_or_forward(key, pulled)
        finally:
            del self.opening[key]
            opening.set_result(None)

    async def _claim_or_forward(self, key: SessionKey, pulled: Pulled | None) -> Host | None:
        owned = await self._services.store.owner(key)
        holder = owned.record.worker if owned else None
        dead = holder is not None and self._liveness.dead(holder, monotonic())
        decision = place(owned, self._services.worker, owner_dead=dead)
        if isinstance(decision, Claim):
            if self._away.get(key, 0.0) > monotonic():
                raise Contended("the session was given away")
            return await self._claim(key, decision.expected, owned)
        if pulled is not None:
            await self._forward(key, pulled)
        return None

    async def _claim(self, key: SessionKey, expected: int, owned: Owned | None) -> Host:
        nonce = secrets.token_hex(8)
        record = OwnerRecord(worker=self._services.worker, nonce=nonce)
        epoch = await self._services.store.claim(key, record, expected)
        if owned is not None and owned.record.worker is not None:
            telemetry.takeovers.add(1)
            log.warning("session taken over", session=str(key), of=owned.record.worker)
        host = Host(self._services, key, epoch, nonce, self._leave)
        try:
            await host.open(had_owner=owned is not None)
        except Exception:  # whatever it is, the host listens already
            await host.abandon()
            raise
        self.hosts[key] = host
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
        subject = self._services.subjects.forwards(key)
        answer = await ask(self._services.bus, subject, forward, partial(decode, ForwardReply))
        if not answer.mine:
            raise NoResponder("the owner is leaving")

    # -- letting go

    def _leave(self, host: Host, ending: Ending) -> None:
        """Carry out a host's end, which ends the host's own tasks."""

        async def leave() -> None:
            await ending
            if host.given_away:  # before whoever waits for its end claims it again
                now = monotonic()
                self._away = {key: until for key, until in self._away.items() if until > now}
                self._away[host.key] = now + AWAY
            if self.hosts.get(host.key) is host:
                del self.hosts[host.key]

        self._tasks.begin(leave(), "leave a session")

    async def release(self, hosts: list[Host], within: float | None = None) -> None:
        """Close these, a few at a time; each within so many seconds, or for as long as it takes."""

        async def release(host: Host) -> None:
            if not host.closed.is_set():
                await host.close(within)
            if self.hosts.get(host.key) is host:  # not one that has been claimed since
                del self.hosts[host.key]

        await _a_few_at_a_time(release, hosts)

    async def check(self) -> None:
        """Let go what other workers own by now."""
        await _a_few_at_a_time(Host.check, list(self.hosts.values()))


async def _a_few_at_a_time(work: Callable[[Host], Awaitable[None]], hosts: list[Host]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(host: Host) -> None:
        async with gate:
            await work(host)

    await asyncio.gather(*map(one, hosts))
