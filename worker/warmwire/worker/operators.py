"""What operators ask of one worker, over its control subject."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from warmwire.broker import telemetry
from warmwire.broker.bus import Arrived, Bus
from warmwire.broker.errors import BadInput
from warmwire.broker.messages import Drain, Heartbeat, decode
from warmwire.broker.tasks import Tasks

log = structlog.get_logger(__name__)


async def obey(bus: Bus, subject: str, leave: asyncio.Event, beat: Callable[[], Heartbeat]) -> None:
    """Set ``leave`` when somebody asks the worker to drain. Raises Unavailable."""
    tasks = Tasks()

    def asked(message: Arrived) -> None:
        try:
            decode(Drain, message.data)
        except BadInput as error:
            telemetry.alien.add(1)
            log.warning("alien request dropped", subject=message.subject, error=str(error))
            return
        leave.set()
        if message.reply:
            tasks.begin(bus.publish(message.reply, beat().encode()), "reply")

    await bus.subscribe(subject, asked)
