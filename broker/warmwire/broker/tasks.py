"""Background tasks that do not fail unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from warmwire.broker.logs import logger

CANCEL_AGAIN = 0.5
"""Seconds after which a task that goes on is cancelled again."""

log = logger(__name__)


class Tasks:
    """The background tasks of one object, until it stops."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Do ``work`` beside the rest; if it fails, which is a fault of ours, the log says so."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def stop(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        while self._running:  # nats-py swallows a cancellation now and then: say it again
            for task in self._running:
                task.cancel()
            await asyncio.wait(self._running, timeout=CANCEL_AGAIN)

    async def finish(self) -> None:
        """Wait until what runs has ended by itself."""
        while self._running:
            await asyncio.wait(self._running)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("background task failed", task=task.get_name(), exc_info=error)
