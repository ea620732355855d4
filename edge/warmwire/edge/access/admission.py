"""Who is let in how often and with how much at a time: the clock and the questions around ``limits``.

Everything here is refused before anything is published.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from math import ceil
from time import monotonic

from warmwire.broker.liveness import Liveness
from warmwire.edge.access.caller import Caller
from warmwire.edge.access.limits import COUNT_IS_GOOD, SESSIONS_ARE_GOOD, Buckets, Count, Held, PoolRoom
from warmwire.edge.access.tenants import load
from warmwire.edge.errors import Kind, Problem
from warmwire.edge.settings import EdgeSettings
from warmwire.producer.request import Request
from warmwire.producer.submit import Sessions

TENANTS = 10_000
"""Tenants whose turns are counted; past it the one that sent longest ago is counted anew."""


@dataclass(slots=True)
class _Tenant:
    count: Count
    adding: int = 0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """It counts at once, and stays if this ends well."""
        self.adding += 1
        try:
            yield
            self.count.known += 1
        finally:
            self.adding -= 1


class Counts:
    """How many of something each tenant has, over all edges. ``most_of`` is its limit, 0 none."""

    def __init__(
        self,
        ask: Callable[[str], Awaitable[int]],
        most_of: Callable[[str], int],
        good_for: float,
    ) -> None:
        self._ask = ask
        self._most_of = most_of
        self._good_for = good_for
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()

    async def of(self, name: str) -> _Tenant:
        """The tenant, with a count that is good if it has a limit. Raises Unavailable."""
        tenant = self._tenants.setdefault(name, _Tenant(Count(self._good_for)))
        self._tenants.move_to_end(name)
        if len(self._tenants) > TENANTS:
            self._tenants.popitem(last=False)
        if self._most_of(name):
            async with tenant.asking:
                if not tenant.count.is_good(monotonic()):
                    tenant.count.told(await self._ask(name), monotonic())
        return tenant

    def full(self, name: str, tenant: _Tenant) -> int:
        """Its limit, if that is reached; else 0."""
        most = self._most_of(name)
        return most if tenant.count.known + tenant.adding >= most else 0


class Admission:
    """The limits of one edge. ``edges`` counts those that live: they share the rates.

    Raises BadInput where the file of tenants is not good.
    """

    def __init__(
        self, settings: EdgeSettings, sessions: Sessions, workers: Liveness, edges: Callable[[], int]
    ) -> None:
        burst = settings.rate_burst
        self._settings = settings
        self._sessions = sessions
        self._workers = workers
        self._edges = edges
        self._limits = limits = load(settings.tenants, settings.tenant_limits)
        self._subjects = Buckets(lambda _: settings.subject_rate, burst)
        self._tenant_rates = Buckets(lambda name: limits.of(str(name)).rate, burst)
        self._streams = Held(settings.subject_streams)
        self._room = PoolRoom()
        self._turns = Counts(sessions.turns_of, lambda name: limits.of(name).turns, COUNT_IS_GOOD)
        self._kept = Counts(sessions.kept_of, lambda name: limits.of(name).sessions, SESSIONS_ARE_GOOD)

    def request(self, caller: Caller) -> None:
        """The caller asks for something, whatever it is. Raises Problem."""
        now, edges = monotonic(), self._edges()
        subject = (caller.tenant, caller.subject)
        of_subject = self._subjects.wait(subject, now, edges)
        of_tenant = self._tenant_rates.wait(caller.tenant, now, edges)
        if of_tenant > of_subject:
            raise _too_often("tenant", self._limits.of(caller.tenant).rate, of_tenant)
        if of_subject:
            raise _too_often("subject", self._settings.subject_rate, of_subject)
        self._subjects.take(subject, now, edges)
        self._tenant_rates.take(caller.tenant, now, edges)

    def stream(self, caller: Caller) -> Callable[[], None]:
        """The caller opens a stream; call what is returned when it is over. Raises Problem."""
        subject = (caller.tenant, caller.subject)
        if not self._streams.enter(subject):
            most = self._settings.subject_streams
            raise Problem(Kind.TOO_MANY_STREAMS, f"{most} are open already", "subject", most)
        return lambda: self._streams.leave(subject)

    @asynccontextmanager
    async def message(self, request: Request) -> AsyncIterator[None]:
        """Publish the message within this. Raises Problem, Unavailable."""
        name = request.key.tenant
        tenant = await self._turns.of(name)
        full = self._turns_full(name, tenant) or self._pool_full()
        if full is not None and not await self._is_repetition(request):
            raise full
        self._room.admitted(monotonic())
        with tenant.one_more():
            yield

    @asynccontextmanager
    async def session(self, name: str) -> AsyncIterator[None]:
        """Begin a session of that tenant within this. Raises Problem, Unavailable."""
        tenant = await self._kept.of(name)
        if most := self._kept.full(name, tenant):
            raise Problem(Kind.TOO_MANY_SESSIONS, f"{most} sessions are kept already", "tenant", most)
        with tenant.one_more():
            yield

    def _turns_full(self, name: str, tenant: _Tenant) -> Problem | None:
        if most := self._turns.full(name, tenant):
            return Problem(Kind.TOO_MANY_TURNS, f"{most} turns wait or run already", "tenant", most)
        return None

    def _pool_full(self) -> Problem | None:
        now = monotonic()
        if self._settings.admission == "queue" or self._room.left(self._workers.seen(now), now) > 0:
            return None
        return Problem(Kind.POOL_FULL, "no worker has a free slot")

    async def _is_repetition(self, request: Request) -> bool:
        """Whether it would begin nothing: it has been accepted before, by its idempotency key."""
        return request.keyed and await self._sessions.knows(request.key, request.turn)


def _too_often(field: str, rate: float, wait: float) -> Problem:
    detail = f"more than {rate:g} requests per second of the {field}"
    return Problem(Kind.RATE_LIMITED, detail, field, rate, retry_after=ceil(wait))
