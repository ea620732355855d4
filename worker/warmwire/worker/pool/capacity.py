"""What this machine carries: the limits, and what they depend on: memory, measured.

It is looked at rarely, and in a thread, for the loop has deltas to carry.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from statistics import fmean

from warmwire.broker import telemetry
from warmwire.broker.wire.messages import Tiers
from warmwire.worker.machine import memory, tree
from warmwire.worker.machine.cores import cores
from warmwire.worker.pool import policy
from warmwire.worker.settings import WorkerSettings

SAMPLE = 8
"""Processes whose memory is taken at a time."""
EVERY = 10.0
"""Seconds between two samples of what processes take."""
LEFT_EVERY = 0.5
"""Seconds between two looks at what memory is left."""


class Gauge:
    """``process_mb``: what a CLI takes, with what it has started; ``left_mb``: what is left. Or None."""

    def __init__(self, processes: Callable[[], Collection[int]]) -> None:
        self.process_mb: int | None = None
        self.left_mb: int | None = None
        self._processes = processes

    async def run(self) -> None:
        """Keep them up to date."""
        while True:
            await self.sample()
            for _ in range(round(EVERY / LEFT_EVERY)):
                self.left_mb = await asyncio.to_thread(memory.memory_left_mb)
                await asyncio.sleep(LEFT_EVERY)

    async def sample(self) -> None:
        """Measure some of the processes; where none can be, what was known before stays."""
        there = list(self._processes())
        found = await asyncio.to_thread(sampled_mb, random.sample(there, min(SAMPLE, len(there))))
        if found is not None:
            self.process_mb = max(1, round(found))
            telemetry.process_memory.set(self.process_mb * memory.MB)


def sampled_mb(pids: Sequence[int]) -> float | None:
    """Mean MB that these processes take, each with its descendants; None if none is there any more."""
    found = [size for size in map(_with_descendants_mb, pids) if size is not None]
    return fmean(found) if found else None


def _with_descendants_mb(pid: int) -> float | None:
    size = memory.pss_mb(pid)
    if size is None:
        return None
    return size + sum(_with_descendants_mb(child) or 0.0 for child in tree.children(pid))


def machine_limits(settings: WorkerSettings) -> policy.Limits:
    """The limits for this machine."""
    found = policy.limits(
        settings.max_turns_at_once,
        settings.max_sessions,
        emulated=settings.cli == "emulator",
        cores=cores(),
        memory_mb=memory.memory_mb(),
    )
    return replace(found, freeze_after=settings.freeze_after, park_after=settings.park_after)


def tell(view: policy.View[policy.K]) -> Tiers:
    """The pool as metrics; what a heartbeat says of it."""
    tiers = Counter(session.tier for session in view.sessions)
    counts = {
        "warm": tiers[policy.Tier.WARM],
        "frozen": tiers[policy.Tier.FROZEN],
        "spare": sum(not spare.ended for spare in view.spares),
        "starting": view.starting,
    }
    for tier, many in counts.items():
        telemetry.processes.set(many, {"tier": tier})
    telemetry.spares_wanted.set(sum(view.wanted.values()))
    return Tiers(warm=counts["warm"], frozen=counts["frozen"], spare=counts["spare"])
