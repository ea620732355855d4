"""What the simulated pool consists of: what was measured and assumed, what is played, what comes of it."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from warmwire.broker.nats.store import Owned
from warmwire.worker.pool import policy
from warmwire.worker.settings import WorkerSettings

Span = tuple[float, float, float]
"""Least, median, most; seconds."""


@dataclass(frozen=True)
class Costs:
    """What was measured: docs/benchmarks.md, docs/reference/chaos.md (a worker's death)."""

    cold: Span = (0.427, 0.484, 0.584)
    adopted: Span = (0.087, 0.133, 0.271)
    pinned: Span = (0.033, 0.053, 0.078)
    frozen: Span = (0.024, 0.040, 0.070)
    parked: Span = (0.445, 0.511, 0.565)
    start: Span = (0.340, 0.351, 0.400)
    """A process, to its first word: cold without the first turn of one that is there."""
    process_mb: int = 120
    worker_mb: int = 60
    redelivered: float = 3.1
    """Seconds after a worker's death at which its messages are with another."""


@dataclass(frozen=True)
class Habits:
    """What was assumed: people and models. Seconds; medians and shapes of log-normal distributions."""

    turns: float = 5.0
    """Of a session, on average; geometric."""
    length: tuple[float, float] = (12.0, 1.0)
    """Of an answer: mean 19.8, one in a hundred over 120."""
    thinking: tuple[float, float] = (25.0, 1.0)
    """Between an answer and the next message: mean 41."""


@dataclass(frozen=True)
class Pod:
    """What a worker has, and its settings. Seconds, MB."""

    turns: int
    memory_mb: int
    cores: int
    sessions: int | None
    drain: float
    tolerated: float
    """That Kubernetes waits for a lost node before it replaces its pods."""
    spares: int = WorkerSettings.model_fields["spares"].default
    max_spares: int = WorkerSettings.model_fields["max_spares"].default
    freeze_after: float = WorkerSettings.model_fields["freeze_after"].default
    park_after: float = WorkerSettings.model_fields["park_after"].default
    starts_in: float = 30.0
    """From the wish for a pod until it takes messages; assumed: its image is on the node."""

    def limits(self, process_mb: int | None) -> policy.Limits:
        """As a worker reckons them."""
        found = policy.limits(
            self.turns, self.sessions, emulated=False, cores=self.cores, memory_mb=self.memory_mb
        )
        found = replace(found, freeze_after=self.freeze_after, park_after=self.park_after)
        return policy.fitted(found, process_mb)


@dataclass(frozen=True)
class Trace:
    """How many sessions begin a second, at each time; when how many workers are lost with their node."""

    name: str
    seconds: float
    rate: Callable[[float], float]
    most: float
    """That the rate ever is."""
    workers: int
    """At the beginning; what a fixed number would be."""
    lost: tuple[tuple[float, int], ...] = ()
    every: float = 60.0
    """Seconds between two points of its plots."""


@dataclass
class Outcome:
    """What came of it. ``first``: when a turn was sent, and seconds to its first delta."""

    first: list[tuple[float, float]] = field(default_factory=list)
    how: dict[str, int] = field(default_factory=dict)
    queued: int = 0
    longest_wait: float = 0.0
    moved: int = 0
    again: int = 0
    over: int = 0
    """Turns that an owner began past its limit: its sessions' messages come to it whatever it runs."""
    spare_seconds: float = 0.0
    worker_seconds: float = 0.0
    load: list[tuple[float, int]] = field(default_factory=list)
    slots: list[tuple[float, int]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Session:
    """A session."""

    key: int
    left: int
    habits: random.Random
    """Its own, so that it is the same session under each policy."""
    owner: Worker | None = None
    owned: Owned | None = None
    new: bool = True
    displaced: bool = False
    """Its worker has gone while it was there."""


@dataclass(eq=False, slots=True)
class Turn:
    """A message and its answer. ``length``: from its first delta to its end."""

    session: Session
    sent: float
    length: float
    begun: bool = False
    seen: bool = False
    """Its first delta has been counted."""


@dataclass(eq=False, slots=True)
class Spare:
    """A process ahead of its session; ``ready``: when it will be."""

    seen: policy.Spare
    ready: float = math.inf


@dataclass(eq=False, slots=True)
class Worker:
    """What a worker holds."""

    id: str
    wished: float
    serving: bool = False
    draining: bool = False
    gone: float = math.inf
    process_mb: int | None = None
    held: dict[int, policy.Session[int]] = field(default_factory=dict)
    sessions: dict[int, Session] = field(default_factory=dict)
    running: dict[int, Turn] = field(default_factory=dict)
    placing: int = 0
    starting: int = 0
    gate: deque[Callable[[], None]] = field(default_factory=deque)
    spares: dict[int, Spare] = field(default_factory=dict)
    arrivals: policy.Arrivals = field(default_factory=policy.Arrivals)
    spawn_seconds: float = 0.0
    adopted_at: float = -math.inf
    looks: bool = False
    """An upkeep is due soon."""
