"""How a role that starts gets its connection and its streams: what may pass is waited for.

A cluster that has just come up, or a machine with too much to do, answers late. A role that ended for it
would be started again, but who waits for it to become healthy may give up: Docker calls it unhealthy then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic, time_ns
from typing import TypeVar

from nats.js.errors import APIError

from warmwire.broker.errors import Unavailable
from warmwire.broker.logs import logger
from warmwire.broker.nats import streams
from warmwire.broker.nats.bus import Bus, connect
from warmwire.broker.settings import BrokerSettings
from warmwire.broker.wire.names import Subjects

log = logger(__name__)
T = TypeVar("T")

READY_WITHIN = 30.0
"""Seconds in which NATS is asked again."""
ASK_AGAIN = 0.5
"""Seconds between two questions."""


def never() -> bool:
    """Nobody wants the role to leave."""
    return False


async def join(
    settings: BrokerSettings, role: str, name: str, leaving: Callable[[], bool] = never, *, consumer: bool
) -> Bus:
    """A connection by this name, with the streams there; ``consumer``: the workers' one, too.

    Raises:
        Misconfigured: the server cannot give them, or a stream of that name is different.
        Unavailable: nobody listens there, or lets us in; or no answer for ``READY_WITHIN`` seconds.
        BadInput: not a NATS URL, or a file of the login cannot be used.
    """
    bus = await _patiently(lambda: connect(settings.nats, name, settings.login(role)), leaving)

    async def ensure() -> None:
        now_ms = time_ns() // 1_000_000
        await streams.ensure(bus, Subjects(settings.prefix), settings.replicas, now_ms, consumer=consumer)

    try:
        await _patiently(ensure, leaving)
    except BaseException:
        await bus.close()
        raise
    return bus


async def _patiently(ask: Callable[[], Awaitable[T]], leaving: Callable[[], bool]) -> T:
    """Until it answers; a refusal is an answer."""
    end = monotonic() + READY_WITHIN
    while True:
        try:
            return await ask()
        except Unavailable as error:
            late = isinstance(error.__cause__, APIError | TimeoutError)
            if not late or leaving() or monotonic() > end:
                raise
            log.info("NATS is not ready, asking again", error=str(error))
        await asyncio.sleep(ASK_AGAIN)
