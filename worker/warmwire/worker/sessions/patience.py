"""How long a CLI is waited for: one that is silent, one that does not obey an interrupt. Pure."""

from __future__ import annotations

from enum import Enum, auto

from warmwire.worker.budget import Breach
from warmwire.worker.errors import ErrorCode

INTERRUPT_WITHIN = 5.0
"""Seconds that the CLI may take to obey an interrupt; then it gets SIGTERM."""
TERM_WITHIN = 2.0
"""Seconds that it may take to obey that; then it is killed, and all that it has started."""
STALLED = Breach(ErrorCode.CLI_STALLED, "")


class Step(Enum):
    """What is next for a CLI that has been interrupted."""

    WAIT = auto()
    TERMINATE = auto()
    KILL = auto()


def next_step(waited: float, stall_timeout: float, *, terminated: bool) -> Step:
    """So many seconds after the interrupt; nobody waits longer for a step than for a silent CLI."""
    obey, leave = min(INTERRUPT_WITHIN, stall_timeout), min(TERM_WITHIN, stall_timeout)
    if waited > obey + leave:
        return Step.KILL
    return Step.TERMINATE if waited > obey and not terminated else Step.WAIT
