"""Sends events: what one pass of the event loop brings travels together, in one write.

One wake-up per delta at every hop is what a delta costs most. A worker reads its CLIs in rounds, so the
deltas of a round share their way to NATS and from there to the edges.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from warmwire.broker.errors import BadInput, Unavailable
from warmwire.broker.logs import logger
from warmwire.broker.nats.bus import Bus
from warmwire.broker.tasks import Tasks
from warmwire.broker.telemetry import deltas_dropped, deltas_sent

log = logger(__name__)

WAITING_LIMIT = 16 * 1024 * 1024
"""Bytes that may wait to be sent. Past it events are dropped: readers see the hole and ask the owner."""


class Sender:
    """Publishes events in the order given. ``start`` before use, ``stop`` sends what waits.

    Once ``may_send`` says no it holds them, as after ``hold``, until ``go_on``.
    """

    def __init__(
        self, bus: Bus, may_send: Callable[[], bool] = lambda: True, limit: int = WAITING_LIMIT
    ) -> None:
        self._bus = bus
        self._limit = limit
        self._may_send = may_send
        self._waiting: list[tuple[str, bytes]] = []
        self._bytes = 0
        self._due = False
        self._wake = asyncio.Event()
        self._sending = asyncio.Lock()
        self._allowed = asyncio.Event()
        self._allowed.set()
        self._tasks = Tasks()
        self._dropping = False
        self.dropped = 0

    def start(self) -> None:
        """Begin to send."""
        self._loop = asyncio.get_running_loop()
        self._tasks.begin(self._pump(), "sender")

    def send(self, subject: str, data: bytes) -> None:
        """Hand over one event; never blocks."""
        if self._bytes + len(data) > self._limit:
            self._drop(1, "too much waits to be sent")
            return
        self._bytes += len(data)
        self._waiting.append((subject, data))
        if not self._due:
            self._due = True
            self._loop.call_soon(self._pass_over)

    def hold(self) -> None:
        """Send nothing until ``go_on``."""
        self._allowed.clear()

    def go_on(self) -> None:
        """Send again."""
        self._allowed.set()

    def forget(self, subject: str) -> None:
        """What waits for this subject is not to be sent any more."""
        self._waiting = [event for event in self._waiting if event[0] != subject]
        self._bytes = sum(len(data) for _, data in self._waiting)

    async def stop(self) -> None:
        """Send what waits and end."""
        self._may_send = lambda: True
        self.go_on()
        await self._tasks.stop()
        await self.flush()

    async def flush(self) -> None:
        """Give all that waits to the connection now."""
        async with self._sending:  # one at a time, or a later event could overtake
            while self._waiting and not self._sent_at_once():
                if not self._may_send():
                    self.hold()
                if not self._allowed.is_set():
                    await self._allowed.wait()
                else:
                    await self._send_one()

    def _pass_over(self) -> None:
        """The pass of the loop is over in which the first of these came."""
        self._due = False
        if self._waiting and (self._sending.locked() or not self._sent_at_once()):
            self._wake.set()

    def _sent_at_once(self) -> bool:
        """As nearly always: nothing is in the way."""
        if not self._allowed.is_set() or not self._may_send() or not self._bus.publish_now(self._waiting):
            return False
        deltas_sent.value += len(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        self._dropping = False
        return True

    async def _send_one(self) -> None:
        """The connection is slow or gone, or one of those that wait is too large."""
        event = self._waiting[0]
        try:
            await self._bus.publish(*event)
            deltas_sent.value += 1
            self._dropping = False
        except BadInput as error:  # this one cannot be sent, the next can
            self._drop(1, str(error))
        except Unavailable as error:
            self._drop(len(self._waiting), str(error))
            self._waiting.clear()
            self._bytes = 0
        if self._waiting and self._waiting[0] is event:  # else it was to be forgotten meanwhile
            del self._waiting[0]  # only now: who is cancelled in between leaves it to `stop`
            self._bytes -= len(event[1])

    def _drop(self, events: int, why: str) -> None:
        if not self._dropping:  # one line for each spell of it
            log.warning("events not sent; readers will ask for them", why=why, dropped_before=self.dropped)
        self._dropping = True
        self.dropped += events
        deltas_dropped.value += events

    async def _pump(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()
