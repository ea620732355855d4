"""Heartbeats: sent from a thread and a connection of their own, so that a busy loop delays none of them.

They stop when the main loop has not moved for a second: a worker that cannot work must not look alive.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import monotonic

from warmwire.broker.errors import BadInput, WarmwireError
from warmwire.broker.liveness import HEARTBEAT_EVERY, Liveness
from warmwire.broker.logs import logger
from warmwire.broker.nats.bus import Arrived, Bus, connect
from warmwire.broker.nats.login import NOBODY, Login
from warmwire.broker.tasks import Tasks
from warmwire.broker.telemetry import alien, heartbeats_missed
from warmwire.broker.wire.messages import Heartbeat, decode
from warmwire.broker.wire.names import Subjects

log = logger(__name__)

STUCK_AFTER = 1.0
"""Seconds without movement of the main loop after which no heartbeat is sent."""


class HeartbeatThread:
    """Publishes what ``beat`` returns every ``HEARTBEAT_EVERY`` seconds; ``beat`` is called in the thread."""

    def __init__(
        self,
        url: str,
        subjects: Subjects,
        beat: Callable[[], Heartbeat],
        clock: Callable[[], float] = monotonic,
        login: Login = NOBODY,
    ) -> None:
        self._url = url
        self._login = login
        self._subjects = subjects
        self._beat = beat
        self._clock = clock
        self._moved_at = clock()
        self._tasks = Tasks()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; call it in the main loop."""
        self._tasks.begin(self._move(), "heartbeat")
        self._thread.start()

    async def stop(self) -> None:
        """Send no more."""
        self._stop.set()
        await self._tasks.stop()
        await asyncio.to_thread(self._thread.join)

    async def _move(self) -> None:
        while True:
            self._moved_at = self._clock()
            await asyncio.sleep(HEARTBEAT_EVERY / 2)

    def _run(self) -> None:
        asyncio.run(self._send())

    async def _send(self) -> None:
        bus = None
        while not self._stop.is_set():
            try:
                bus = bus or await connect(self._url, "heartbeat", self._login)
                await self._send_one(bus)
            except WarmwireError as error:
                heartbeats_missed.value += 1
                log.warning("no heartbeat this time", error=str(error))
            except Exception:  # a fault of ours is one heartbeat missing; only all of them would be death
                log.exception("no heartbeat this time")
            await asyncio.sleep(HEARTBEAT_EVERY)
        if bus is not None:
            await bus.close()

    async def _send_one(self, bus: Bus) -> None:
        moving = self._clock() - self._moved_at < STUCK_AFTER
        if moving and bus.connected:  # disconnected it would wait and come too late to be true
            beat = self._beat()
            await bus.publish(self._subjects.heartbeat(beat.worker), beat.encode())


async def listen(
    bus: Bus, subjects: Subjects, also: Callable[[Heartbeat], None] = lambda _: None
) -> Liveness:
    """Hear every worker's heartbeats on this connection; ``also`` is called with each."""
    liveness = Liveness(monotonic())

    def heard(message: Arrived) -> None:
        try:
            beat = decode(Heartbeat, message.data)
            liveness.heard(beat, monotonic())
            also(beat)
        except BadInput as error:
            alien.add(1)
            log.warning("alien message on a heartbeat subject", subject=message.subject, error=str(error))

    await bus.subscribe(subjects.heartbeats, heard)
    bus.on_reconnect(lambda: liveness.reconnected(monotonic()))
    return liveness
