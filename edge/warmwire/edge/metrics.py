"""What an edge sees of the whole product, and shows at ``/metrics``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic

from warmwire.broker import telemetry
from warmwire.broker.errors import Unavailable
from warmwire.broker.exposition import Exposed, begin, text, watch_lag
from warmwire.broker.liveness import Liveness
from warmwire.broker.logs import logger
from warmwire.broker.nats.bus import Bus
from warmwire.broker.nats.store import Backlog, Store
from warmwire.broker.tasks import Tasks
from warmwire.broker.telemetry import Reading
from warmwire.broker.wire.messages import Heartbeat
from warmwire.edge.settings import EdgeSettings

log = logger(__name__)

BACKLOG_IS_GOOD = 1.0
"""Seconds for which what waits is not asked for again, however often metrics are."""


class Metrics:
    """``start`` it, and ``stop`` it. There is one edge in a process; in tests the last one is shown."""

    def __init__(self, settings: EdgeSettings, bus: Bus, store: Store, workers: Liveness) -> None:
        begin("warmwire-edge")
        self._bus = bus
        self._store = store
        self._workers = workers
        self._backlog: Backlog | None = None
        self._asked_at = -BACKLOG_IS_GOOD
        self._tasks = Tasks()
        self._exposed: Exposed | None = None
        if settings.metrics_port is not None:
            port, host = settings.metrics_port, settings.metrics_host
            self._exposed = Exposed(host, port, "warmwire-edge", self._refresh)

    async def start(self, viewers: Callable[[], int], ready: Callable[[], bool]) -> None:
        """Begin. Raises Misconfigured."""
        telemetry.viewers.source = lambda: [(viewers(), {})]
        telemetry.ready.source = lambda: [(ready(), {})]
        telemetry.nats_connected.source = lambda: [(self._bus.connected, {})]
        telemetry.workers.source = self._worker_states
        telemetry.free_slots.source = lambda: self._sum(lambda beat: 0 if beat.draining else beat.free)
        telemetry.running_turns.source = lambda: self._sum(lambda beat: beat.running)
        telemetry.sessions.source = lambda: self._sum(lambda beat: beat.sessions)
        telemetry.queue_messages.source = self._waiting
        telemetry.queue_age.source = self._age
        self._tasks.begin(watch_lag(), "measure the loop's lag")
        if self._exposed is not None:
            await self._exposed.start()

    async def stop(self) -> None:
        """Show nothing more."""
        await self._tasks.stop()
        if self._exposed is not None:
            await self._exposed.stop()

    @property
    def port(self) -> int | None:
        """The port that is for metrics alone, if there is one."""
        return self._exposed.port if self._exposed is not None else None

    async def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        await self._refresh()
        return text()

    async def _refresh(self) -> None:
        now = monotonic()
        if now - self._asked_at < BACKLOG_IS_GOOD:
            return
        self._asked_at = now
        try:
            self._backlog = await self._store.backlog()
        except Unavailable as error:
            self._backlog = None
            log.warning("what waits is not known; it is left out of the metrics", error=str(error))

    def _sum(self, of: Callable[[Heartbeat], int]) -> Reading:
        return [(sum(map(of, self._workers.alive(monotonic()))), {})]

    def _worker_states(self) -> Reading:
        workers = self._workers.alive(monotonic())
        draining = sum(worker.draining for worker in workers)
        return [(len(workers) - draining, {"state": "serving"}), (draining, {"state": "draining"})]

    def _waiting(self) -> Reading:
        return [] if self._backlog is None else [(self._backlog.waiting, {})]

    def _age(self) -> Reading:
        if self._backlog is None:
            return []
        since = self._backlog.since
        return [(0.0 if since is None else max(0.0, (datetime.now(UTC) - since).total_seconds()), {})]
