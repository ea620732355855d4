"""Heartbeats: sent from a thread and a connection of their own, so that a busy loop delays none of them.

They stop when the main loop has not moved for a second: a worker that cannot work must not look alive.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import monotonic

import structlog

from warmwire.broker.bus import Arrived, Bus, connect
from warmwire.broker.errors import BadInput, WarmwireError
from warmwire.broker.liveness import HEARTBEAT_EVERY, Liveness
from warmwire.broker.messages import Heartbeat, decode
from warmwire.broker.names import Subjects

log = structlog.get_logger(__name__)

STUCK_AFTER = 1.0
"""Seconds without movement of the main loop after which no heartbeat is sent."""


class HeartbeatThread:
    """Publishes what ``beat`` returns, every ``HEARTBEAT_EVERY`` seconds. ``beat`` is called in the thread."""

    def __init__(self, url: str, subjects: Subjects, beat: Callable[[], Heartbeat]) -> None:
        self._url = url
        self._subjects = subjects
        self._beat = beat
        self._moved_at = monotonic()
        self._mover: asyncio.Task[None] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; call it in the main loop."""
        self._mover = asyncio.create_task(self._move(), name="heartbeat-mover")
        self._thread.start()

    async def stop(self) -> None:
        """Send no more."""
        self._stop.set()
        if self._mover is not None:
            self._mover.cancel()
        await asyncio.to_thread(self._thread.join, 5)

    async def _move(self) -> None:
        while True:
            self._moved_at = monotonic()
            await asyncio.sleep(HEARTBEAT_EVERY / 2)

    def _run(self) -> None:
        try:
            asyncio.run(self._send())
        except WarmwireError as error:
            log.error("no heartbeats: others will hold this worker dead", error=str(error))

    async def _send(self) -> None:
        bus = await connect(self._url, "heartbeat")
        while not self._stop.is_set():
            if monotonic() - self._moved_at < STUCK_AFTER and bus.connected:
                beat = self._beat()
                await bus.publish(self._subjects.heartbeat(beat.worker), beat.encode())
                await bus.flush()
            await asyncio.sleep(HEARTBEAT_EVERY)
        await bus.close()


async def listen(bus: Bus, subjects: Subjects) -> Liveness:
    """Hear every worker's heartbeats on this connection."""
    liveness = Liveness(monotonic())

    def heard(message: Arrived) -> None:
        try:
            liveness.heard(decode(Heartbeat, message.data), monotonic())
        except BadInput as error:
            log.warning(
                "alien message on a heartbeat subject dropped", subject=message.subject, error=str(error)
            )

    await bus.subscribe(subjects.heartbeats, heard)
    bus.on_reconnect(lambda: liveness.reconnected(monotonic()))
    return liveness
