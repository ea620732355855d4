"""Pulls user messages for as many turns as there is room for, and no more.

Pull requests are made by hand, a few lines, because a message must be handed over the moment it arrives while the
rest of the batch stays open: https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import structlog

from warmwire.broker.bus import Arrived, Bus
from warmwire.broker.errors import Unavailable
from warmwire.broker.names import Subjects
from warmwire.broker.streams import CONSUMER

log = structlog.get_logger(__name__)

OPEN_FOR = 20.0
"""Seconds that one pull request stays open at the server."""
GRACE = 2.0
"""Seconds after that in which the server may still say that it has expired."""
EVERY = 0.5
"""Seconds between two looks at whether there is more room."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """A user message as pulled; ``ack`` is where to acknowledge it, ``sequence`` its place in the queue."""

    subject: str
    data: bytes
    headers: dict[str, str]
    ack: str
    sequence: int
    deliveries: int


@dataclass(slots=True)
class _Request:
    left: int
    until: float


class Puller:
    """Keeps pull requests open for ``room()`` messages and calls ``deliver`` for each that comes."""

    def __init__(
        self, bus: Bus, subjects: Subjects, room: Callable[[], int], deliver: Callable[[Pulled], None]
    ) -> None:
        self._bus = bus
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.request_stream}.{CONSUMER}"
        self._room = room
        self._deliver = deliver
        self._inbox = bus.new_inbox()
        self._requests: dict[str, _Request] = {}
        self._count = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to pull. Raises Unavailable."""
        await self._bus.subscribe(f"{self._inbox}.*", self._arrived)
        self._bus.on_reconnect(self._reconnected)
        self._task = asyncio.create_task(self._run(), name="puller")

    async def stop(self) -> None:
        """Pull no more. What the server has already sent still arrives."""
        self._bus.forget_reconnect(self._reconnected)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._requests.clear()

    def more_room(self) -> None:
        """Something has ended: look again."""
        self._wake.set()

    def _arrived(self, message: Arrived) -> None:
        token = message.subject.rsplit(".", 1)[1]
        if not message.reply.startswith("$JS.ACK."):
            if message.headers.get("Status", "100") != "100":
                self._requests.pop(
                    token, None
                )  # expired, or refused for the moment: the next look asks again
            return
        request = self._requests.get(token)
        if request is not None:
            request.left -= 1
            if request.left == 0:
                del self._requests[token]
                self._wake.set()
        self._deliver(_pulled(message))

    def _reconnected(self) -> None:
        self._requests.clear()
        self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._pull()
            except Unavailable as error:
                log.warning("cannot pull at the moment", error=str(error))
            try:
                async with asyncio.timeout(EVERY):
                    await self._wake.wait()
            except TimeoutError:
                pass  # look again
            self._wake.clear()

    async def _pull(self) -> None:
        now = monotonic()
        self._requests = {token: request for token, request in self._requests.items() if request.until > now}
        wanted = self._room() - sum(request.left for request in self._requests.values())
        if wanted <= 0 or not self._bus.connected:
            return
        self._count += 1
        token = str(self._count)
        self._requests[token] = _Request(wanted, now + OPEN_FOR + GRACE)
        request = json.dumps({"batch": wanted, "expires": int(OPEN_FOR * 1e9)}).encode()
        await self._bus.publish(self._subject, request, reply=f"{self._inbox}.{token}")


def _pulled(message: Arrived) -> Pulled:
    # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>[.<random>]
    tokens = message.reply.split(".")
    first = 4 if len(tokens) == 9 else 6
    return Pulled(
        message.subject,
        message.data,
        message.headers,
        message.reply,
        int(tokens[first + 1]),
        int(tokens[first]),
    )
