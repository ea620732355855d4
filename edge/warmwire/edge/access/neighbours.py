"""The edges that live, as each of them says twice a second. Limits are shared by them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from warmwire.broker.errors import BadInput, Unavailable
from warmwire.broker.liveness import DEAD_AFTER, HEARTBEAT_EVERY, Liveness
from warmwire.broker.logs import logger
from warmwire.broker.nats.bus import Arrived, Bus, Subscription
from warmwire.broker.nats.discovery import Handled, Service, announce
from warmwire.broker.tasks import Tasks
from warmwire.broker.telemetry import alien
from warmwire.broker.wire.messages import Heartbeat, Message, decode
from warmwire.broker.wire.names import Subjects

log = logger(__name__)


def _as_service(edge: str) -> Service:
    """The edge as NATS's discovery finds it: what it handles does not come over NATS."""
    return Service("warmwire-edge", edge, "HTTP in front of sessions", {}, lambda _: Handled(0, 0, 0))


class EdgeHeartbeat(Message):
    """An edge lives. ``left``: it says so for the last time."""

    edge: str
    viewers: int
    left: bool = False


class Neighbours:
    """Announces this edge and hears the others. ``start`` it, and ``stop`` it.

    ``on_gone`` is called by one of the edges that live when another has died or left; and by an edge that has
    begun alone, for what there was before it. Where a judgement is wrong it is called in vain, or by two.
    """

    def __init__(
        self, bus: Bus, subjects: Subjects, edge: str, viewers: Callable[[], int], on_gone: Callable[[], None]
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._edge = edge
        self._viewers = viewers
        self._on_gone = on_gone
        self._liveness = Liveness(monotonic())
        self._known: set[str] = set()
        self._subscription: Subscription | None = None
        self._tasks = Tasks()

    async def start(self) -> None:
        """Begin. Raises Unavailable."""
        self._subscription = await self._bus.subscribe(self._subjects.edge_heartbeats, self._heard)
        self._bus.on_reconnect(self._reconnected)
        await announce(self._bus, self._subjects, _as_service(self._edge), self._tasks)
        self._tasks.begin(self._run(), "edge heartbeat")

    async def stop(self) -> None:
        """Say good-bye, so that nobody waits for this edge to be dead."""
        await self._tasks.stop()
        if self._subscription is not None:
            self._bus.forget_reconnect(self._reconnected)
            await self._subscription.unsubscribe()
            self._subscription = None
            await self._announce(left=True)

    @property
    def count(self) -> int:
        """Edges that live, this one included."""
        others = {beat.worker for beat in self._liveness.alive(monotonic())} & self._known
        return len(others | {self._edge})

    async def _run(self) -> None:
        begun = monotonic()
        alone_at_first = False
        while True:
            await self._announce()
            await asyncio.sleep(HEARTBEAT_EVERY)
            now = monotonic()
            self._look(now)
            if not alone_at_first and now - begun > DEAD_AFTER:
                alone_at_first = True
                if self.count == 1:
                    self._on_gone()

    def _look(self, now: float) -> None:
        for edge in [edge for edge in self._known if self._liveness.dead(edge, now)]:
            log.info("an edge is silent", edge=edge)
            self._gone(edge)

    def _gone(self, edge: str) -> None:
        self._known.discard(edge)
        if edge != self._edge and self._edge == min(self._known | {self._edge}):
            self._on_gone()

    def _heard(self, message: Arrived) -> None:
        try:
            beat = decode(EdgeHeartbeat, message.data)
        except BadInput as error:
            alien.add(1)
            log.warning("alien message on a heartbeat subject", subject=message.subject, error=str(error))
            return
        known = Heartbeat(worker=beat.edge, version="", free=0, running=beat.viewers, sessions=0)
        self._liveness.heard(known, monotonic())
        if not beat.left:
            self._known.add(beat.edge)
        elif beat.edge in self._known:
            self._gone(beat.edge)

    def _reconnected(self) -> None:
        self._liveness.reconnected(monotonic())

    async def _announce(self, *, left: bool = False) -> None:
        beat = EdgeHeartbeat(edge=self._edge, viewers=self._viewers(), left=left)
        try:
            if self._bus.connected:  # later it would not be true any more
                await self._bus.publish(self._subjects.edge_heartbeat(self._edge), beat.encode())
        except Unavailable as error:
            log.warning("no heartbeat this time", error=str(error))
