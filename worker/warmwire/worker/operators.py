"""What operators ask of one worker: over its control subject, and by NATS's service discovery."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from warmwire.broker import telemetry
from warmwire.broker.errors import BadInput
from warmwire.broker.logs import logger
from warmwire.broker.nats.bus import Arrived, Bus
from warmwire.broker.nats.discovery import Handled, Service
from warmwire.broker.tasks import Tasks
from warmwire.broker.wire.messages import Claim, Claimed, Drain, Heartbeat, decode_worker_control
from warmwire.broker.wire.names import SessionKey, Subjects
from warmwire.worker.sessions.recent import Recent

log = logger(__name__)


async def obey(
    bus: Bus,
    subject: str,
    leave: asyncio.Event,
    beat: Callable[[], Heartbeat],
    claim: Callable[[SessionKey], Awaitable[bool]],
) -> None:
    """Set ``leave`` when the worker is to drain, ``claim`` what it is to own. Raises Unavailable."""
    tasks = Tasks()

    async def claimed(reply: str, key: SessionKey) -> None:
        await bus.publish(reply, Claimed(mine=await claim(key)).encode())

    def asked(message: Arrived) -> None:
        try:
            match decode_worker_control(message.data):
                case Drain():
                    leave.set()
                    if message.reply:
                        tasks.begin(bus.publish(message.reply, beat().encode()), "reply")
                case Claim(tenant=tenant, session=session):
                    tasks.begin(claimed(message.reply, SessionKey(tenant, session)), "claim a session")
        except BadInput as error:
            telemetry.alien.add(1)
            log.warning("alien request dropped", subject=message.subject, error=str(error))

    await bus.subscribe(subject, asked)
    await bus.flush()  # who is told that we are ready is heard from then on


def as_service(worker: str, subjects: Subjects, recent: Recent) -> Service:
    """The worker as others find it: its requests are turns."""

    def handled(_: str) -> Handled:
        told = recent.told
        return Handled(told.ended, told.failed, recent.busy_ms * 1_000_000, recent.last_failure)

    about = "runs the turns of sessions on warm CLI processes"
    return Service("warmwire-worker", worker, about, {"turns": subjects.all_requests}, handled)
