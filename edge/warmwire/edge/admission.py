"""Who is let in how often and with how much at a time: the clock and the questions around ``limits``.

Everything here is refused before anything is published.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import ceil
from time import monotonic

from warmwire.broker.liveness import Liveness
from warmwire.producer.request import Request
from warmwire.producer.submit import Sessions

from .caller import Caller
from .errors import Kind, Problem
from .limits import Buckets, Held, PoolRoom, TurnCount
from .settings import EdgeSettings

TENANTS = 10_000
"""Tenants whose turns are counted; past it the one that sent longest ago is counted anew."""


@dataclass(slots=True)
class _Tenant:
    count: TurnCount = field(default_factory=TurnCount)
    sending: int = 0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Admission:
    """The limits of one edge. ``edges`` counts those that live: they share the rates."""

    def __init__(
        self, settings: EdgeSettings, sessions: Sessions, workers: Liveness, edges: Callable[[], int]
    ) -> None:
        burst = settings.rate_burst
        self._settings = settings
        self._sessions = sessions
        self._workers = workers
        self._edges = edges
        self._subjects = Buckets(settings.subject_rate, settings.subject_rate * burst)
        self._tenant_rates = Buckets(settings.tenant_rate, settings.tenant_rate * burst)
        self._streams = Held(settings.subject_streams)
        self._room = PoolRoom()
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()

    def request(self, caller: Caller) -> None:
        """The caller asks for something, whatever it is. Raises Problem."""
        now, edges = monotonic(), self._edges()
        subject = (caller.tenant, caller.subject)
        of_subject = self._subjects.wait(subject, now, edges)
        of_tenant = self._tenant_rates.wait(caller.tenant, now, edges)
        if of_tenant > of_subject:
            raise _too_often("tenant", self._settings.tenant_rate, of_tenant)
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
        tenant = await self._counted(request.key.tenant)
        full = self._turns_full(tenant) or self._pool_full()
        if full is not None and not await self._is_repetition(request):
            raise full
        self._room.admitted(monotonic())
        tenant.sending += 1
        try:
            yield
            tenant.count.known += 1
        finally:
            tenant.sending -= 1

    def _turns_full(self, tenant: _Tenant) -> Problem | None:
        most = self._settings.tenant_turns
        if not most or tenant.count.known + tenant.sending < most:
            return None
        return Problem(Kind.TOO_MANY_TURNS, f"{most} turns wait or run already", "tenant", most)

    def _pool_full(self) -> Problem | None:
        now = monotonic()
        if self._settings.admission == "queue" or self._room.left(self._workers.seen(now), now) > 0:
            return None
        return Problem(Kind.POOL_FULL, "no worker has a free slot")

    async def _is_repetition(self, request: Request) -> bool:
        """Whether it would begin nothing: it has been accepted before, by its idempotency key."""
        return request.keyed and await self._sessions.knows(request.key, request.turn)

    async def _counted(self, name: str) -> _Tenant:
        tenant = self._tenants.setdefault(name, _Tenant())
        self._tenants.move_to_end(name)
        if len(self._tenants) > TENANTS:
            self._tenants.popitem(last=False)
        if self._settings.tenant_turns:
            async with tenant.asking:
                if not tenant.count.is_good(monotonic()):
                    tenant.count.told(await self._sessions.turns_of(name), monotonic())
        return tenant


def _too_often(field: str, rate: float, wait: float) -> Problem:
    detail = f"more than {rate:g} requests per second of the {field}"
    return Problem(Kind.RATE_LIMITED, detail, field, rate, retry_after=ceil(wait))
