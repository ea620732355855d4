"""Sends events: a short send window for deltas, at once for everything else.

One wake-up per delta at every hop is what a delta costs most. Deltas that fall within the window share one;
the first delta of a turn and whatever is not a delta go at once and take with them what waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from warmwire.broker.bus import Bus
from warmwire.broker.errors import BadInput, Unavailable
from warmwire.broker.tasks import Tasks
from warmwire.broker.telemetry import delta_delay, deltas_dropped, deltas_sent

log = structlog.get_logger(__name__)

WAITING_LIMIT = 16 * 1024 * 1024
"""Bytes that may wait to be sent. Past it events are dropped: readers see the hole and ask the owner."""
SAMPLE = 64
"""Of so many batches the delay of one is measured."""


class Sender:
    """Publishes events in the order given. ``start`` before use, ``stop`` sends what waits.

    Once ``may_send`` says no it holds them, as after ``hold``, until ``go_on``.
    """

    def __init__(
        self,
        bus: Bus,
        window: float,
        may_send: Callable[[], bool] = lambda: True,
        limit: int = WAITING_LIMIT,
    ) -> None:
        self._bus = bus
        self._window = window
        self._limit = limit
        self._may_send = may_send
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._sending = asyncio.Lock()
        self._allowed = asyncio.Event()
        self._allowed.set()
        self._tasks = Tasks()
        self._dropping = False
        self._since = 0.0  # of the delta that opened the window
        self._batches = 0
        self.dropped = 0

    def start(self) -> None:
        """Begin to send."""
        self._tasks.begin(self._pump(), "sender")

    def send(self, subject: str, data: bytes, *, at_once: bool) -> None:
        """Hand over one event; never blocks. Without ``at_once`` it may wait for the window, in seconds."""
        if self._bytes + len(data) > self._limit:
            self._drop(1, "too much waits to be sent")
            return
        self._bytes += len(data)
        self._waiting.append((subject, data))
        if at_once:
            self._wake.set()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._since = loop.time()
            self._timer = loop.call_later(self._window, self._wake.set)

    def hold(self) -> None:
        """Send nothing until ``go_on``."""
        self._allowed.clear()

    def go_on(self) -> None:
        """Send again."""
        self._allowed.set()

    def forget(self, subject: str) -> None:
        """What waits for this subject is not to be sent any more."""
        self._waiting = deque(event for event in self._waiting if event[0] != subject)
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
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
                self._sample()
            while self._waiting:
                if not self._may_send():
                    self.hold()
                if not self._allowed.is_set():  # asked first: each `await` of something done costs, too
                    await self._allowed.wait()
                    if not self._waiting:  # it was to be forgotten meanwhile
                        return
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
                    return
                if self._waiting and self._waiting[0] is event:  # else it was to be forgotten meanwhile
                    self._waiting.popleft()  # only now: who is cancelled in between leaves it to `stop`
                    self._bytes -= len(event[1])

    def _drop(self, events: int, why: str) -> None:
        if not self._dropping:  # one line for each spell of it
            log.warning("events not sent; readers will ask for them", why=why, dropped_before=self.dropped)
        self._dropping = True
        self.dropped += events
        deltas_dropped.value += events

    def _sample(self) -> None:
        self._batches += 1
        if self._batches % SAMPLE == 1:
            delta_delay.record(asyncio.get_running_loop().time() - self._since)

    async def _pump(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()
