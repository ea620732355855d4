"""Pulls user messages for as many turns as there is room for, and no more.

Pull requests are made by hand, a few lines, because a message must be handed over the moment it arrives while
the rest of the batch stays open: https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from warmwire.broker.errors import Unavailable
from warmwire.broker.logs import logger
from warmwire.broker.nats.bus import Arrived, Bus, Subscription
from warmwire.broker.nats.streams import CONSUMER
from warmwire.broker.tasks import Tasks
from warmwire.broker.wire.names import Subjects

log = logger(__name__)

OPEN_FOR = 2.0
"""Seconds that one pull request stays open at the server. Less than ``ACK_WAIT``: as long as a request of a
worker that is stopped or cut off is open, the server gives it messages, each for ``ACK_WAIT`` in vain."""
GRACE = 2.0
"""Seconds after that in which the server may still say that it has expired."""
EVERY = 0.5
"""Seconds between two looks at whether there is more room."""
ENOUGH = 16
"""Messages that may still come on open requests. With more there is no hurry to ask for others: each small
request costs the server and us as much as a large one, and again each time it expires."""

ACK = b"+ACK"
NAK = b"-NAK"
IN_PROGRESS = b"+WPI"
TERMINATE = b"+TERM"
"""What is told to a message's ``ack``: done, give it to others, it is worked on, nobody can use it."""

_EXPIRED = ("404", "408")  # no messages; the request's time is over
_UNSERVED = "Nats-Pending-Messages"  # how many of a request's messages will not come


@dataclass(frozen=True, slots=True)
class Pulled:
    """A user message as pulled; ``ack`` is where to acknowledge it, ``sequence`` its place in the queue."""

    subject: str
    data: bytes
    headers: dict[str, str]
    ack: str
    sequence: int
    deliveries: int


@dataclass(frozen=True, slots=True)
class _Request:
    asked: int
    until: float


class Puller:
    """Keeps pull requests open for ``room()`` messages and calls ``deliver`` for each that comes.

    ``room`` counts a message from its delivery on; what is asked for and not yet here is counted here: in one
    sum, because the server serves open requests in turn and a delivery does not say which of them it is for.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        room: Callable[[], int],
        deliver: Callable[[Pulled], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._bus = bus
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.request_stream}.{CONSUMER}"
        self._room = room
        self._deliver = deliver
        self._clock = clock
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._requests: dict[str, _Request] = {}  # those that may be open, the oldest first
        self._coming = 0
        self._count = 0
        self._wake = asyncio.Event()
        self._tasks = Tasks()

    async def start(self) -> None:
        """Begin to pull. Raises Unavailable."""
        await self._listen()
        self._bus.on_reconnect(self._reconnected)
        self._tasks.begin(self._run(), "puller")

    async def stop(self) -> None:
        """Withdraw what is asked for; what the server has already sent still comes. Raises Unavailable."""
        self._bus.forget_reconnect(self._reconnected)
        await self._tasks.stop()
        self._requests.clear()
        self._coming = 0
        if self._subscription is not None:
            await (self._subscription.drain() if self._bus.connected else self._subscription.unsubscribe())

    def more_room(self) -> None:
        """Something has ended: look again, at once if little is asked for."""
        if self._coming < ENOUGH:
            self._wake.set()

    async def _listen(self) -> None:
        """A new inbox: the server forgets requests whose inbox nobody listens to."""
        before, inbox = self._subscription, self._bus.new_inbox()
        self._subscription = await self._bus.subscribe(f"{inbox}.*", self._arrived)
        self._inbox = inbox
        if before is not None:
            await before.unsubscribe()

    def _arrived(self, message: Arrived) -> None:
        if message.reply.startswith("$JS.ACK."):
            self._fewer(1)
            self._deliver(_pulled(message))
            self.more_room()
        elif message.headers.get("Status", "100") != "100":
            request = self._requests.pop(message.subject.rsplit(".", 1)[1], None)
            if request is not None:
                self._fewer(int(message.headers.get(_UNSERVED, request.asked)))
            if message.headers["Status"] in _EXPIRED:
                self.more_room()
            else:  # the next look asks again
                log.warning("cannot pull at the moment", answer=message.headers)

    def _fewer(self, count: int) -> None:
        self._coming = max(0, self._coming - count)

    def _reconnected(self) -> None:
        self._inbox = ""
        self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._pull()
            except Unavailable as error:
                log.warning("cannot pull at the moment", error=str(error))
            except Exception:  # a fault of ours; who ceased to pull would still look alive
                log.exception("pulling failed")
            with suppress(TimeoutError):  # then it is time to look again
                async with asyncio.timeout(EVERY):
                    await self._wake.wait()
            self._wake.clear()

    async def _pull(self) -> None:
        if not self._inbox:
            self._requests.clear()
            self._coming = 0
            await self._listen()
        now = self._clock()
        self._requests = {token: request for token, request in self._requests.items() if request.until > now}
        if not self._requests:
            self._coming = 0  # whatever was lost on the way, nothing can be open any more
        wanted = self._room() - self._coming
        if wanted <= 0 or not self._bus.connected:
            return
        self._count += 1
        token = str(self._count)
        self._requests[token] = _Request(wanted, now + OPEN_FOR + GRACE)
        self._coming += wanted
        request = json.dumps({"batch": wanted, "expires": int(OPEN_FOR * 1e9)}).encode()
        try:
            await self._bus.publish(self._subject, request, reply=f"{self._inbox}.{token}")
        except Unavailable:
            if self._requests.pop(token, None):
                self._fewer(wanted)
            raise


def _pulled(message: Arrived) -> Pulled:
    # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<deliveries>.<sequence>.<consumer's>.<time>.<pending>
    tokens = message.reply.split(".")
    first = 4 if len(tokens) == 9 else 6
    deliveries, sequence = int(tokens[first]), int(tokens[first + 1])
    return Pulled(message.subject, message.data, message.headers, message.reply, sequence, deliveries)
