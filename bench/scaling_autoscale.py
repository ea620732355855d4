"""Autoscalers for the simulation: what each wants, and what a HorizontalPodAutoscaler makes of that."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any, Protocol

import yaml

KUBERNETES = Path(__file__).parents[1] / "compose" / "kubernetes"
TOLERANCE = 0.1
"""Part of the target by which a metric may be off before anything is done; Kubernetes' own default."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What Prometheus says of the pool, by the edges' metrics."""

    waiting: int
    running: int
    free: int
    serving: int


class Policy(Protocol):
    """How many workers there should be, by what is seen."""

    def wanted(self, seen: Seen, replicas: int) -> int: ...


@dataclass(frozen=True)
class Fixed:
    """Always as many."""

    workers: int

    def wanted(self, seen: Seen, replicas: int) -> int:  # noqa: ARG002 - that is the point
        return self.workers


@dataclass(frozen=True)
class QueueLength:
    """One worker for so many messages that wait."""

    each: float

    def wanted(self, seen: Seen, replicas: int) -> int:
        return averaged(seen.waiting, self.each, replicas)


@dataclass(frozen=True)
class Triggers:
    """The triggers of a ScaledObject, as written: queries with their thresholds; the largest wins."""

    queries: tuple[tuple[str, float], ...]

    def wanted(self, seen: Seen, replicas: int) -> int:
        return max(averaged(value(query, seen), each, replicas) for query, each in self.queries)


def averaged(metric: float, each: float, replicas: int) -> int:
    """How many workers share the metric at ``each``; those that there are, where that is nearly so."""
    if replicas and abs(metric / (each * replicas) - 1) <= TOLERANCE:
        return replicas
    return math.ceil(metric / each)


METRICS = {
    "warmwire_queue_messages": "waiting",
    "warmwire_running_turns": "running",
    "warmwire_free_slots": "free",
    'warmwire_workers{state="serving"}': "serving",
}


def value(query: str, seen: Seen) -> float:
    """A query of ours in PromQL. Raises NameError for what is more than arithmetic with our metrics."""
    return float(eval(_compiled(query), {"seen": seen}))  # noqa: S307 - of our own manifest, and looked at


@cache
def _compiled(query: str) -> CodeType:
    text, rest = query.replace("< bool", "<"), query.replace("< bool", "<")
    for metric, name in METRICS.items():
        text, rest = text.replace(f"max({metric})", f"seen.{name}"), rest.replace(f"max({metric})", "")
    if re.search(r"[A-Za-z]", rest):
        raise NameError(f"the simulation does not know all of {query!r}")
    return compile(text, "<query>", "eval")


# --- what is made of it ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limit:
    """Of a direction: how long to wait, and by how much at a time. Seconds; parts of a hundred and pods."""

    stabilized: float
    steps: tuple[tuple[str, int, float], ...]

    def most(self, replicas: int, changed: Sequence[tuple[float, int]], now: float, sign: int) -> int:
        """The farthest that the number may go; of several steps the largest counts."""
        return (max if sign > 0 else min)(
            self._after(kind, size, _before(replicas, changed, now - period), sign)
            for kind, size, period in self.steps
        )

    @staticmethod
    def _after(kind: str, size: int, start: int, sign: int) -> int:
        return start + sign * size if kind == "Pods" else math.ceil(start * (1 + sign * size / 100))


def _before(replicas: int, changed: Sequence[tuple[float, int]], since: float) -> int:
    return replicas - sum(by for at, by in changed if at > since)


class Scaler:
    """A HorizontalPodAutoscaler with these limits. Time is an argument."""

    def __init__(self, least: int, most: int, up: Limit, down: Limit) -> None:
        self._least, self._most, self._up, self._down = least, most, up, down
        self._wanted: list[tuple[float, int]] = []
        self._grown: list[tuple[float, int]] = []
        self._shrunk: list[tuple[float, int]] = []

    def replicas(self, now: float, current: int, wanted: int) -> int:
        """How many there are to be now."""
        wanted = min(max(wanted, self._least), self._most)
        self._wanted = [(at, n) for at, n in self._wanted if at > now - self._down.stabilized] or [
            (now, current)
        ]
        self._wanted.append((now, wanted))
        if wanted > current:
            wanted = min(wanted, max(current, self._up.most(current, self._grown, now, +1)))
            self._grown = [*self._grown[-99:], (now, wanted - current)]
        else:
            wanted = min(current, max(n for _, n in self._wanted))
            wanted = max(wanted, min(current, self._down.most(current, self._shrunk, now, -1)))
            self._shrunk = [*self._shrunk[-99:], (now, wanted - current)]
        return wanted


@dataclass(frozen=True)
class Manifest:
    """What our ScaledObject says."""

    queries: dict[str, tuple[str, float]]
    least: int
    most: int
    up: Limit
    down: Limit

    def scaler(self) -> Scaler:
        """One that goes by it."""
        return Scaler(self.least, self.most, self.up, self.down)

    def policy(self, *names: str) -> Triggers:
        """Those of its triggers."""
        return Triggers(tuple(self.queries[name] for name in names))


def manifest() -> Manifest:
    """Read it."""
    path = KUBERNETES / "overlays" / "keda" / "scaledobject.yaml"
    spec: dict[str, Any] = yaml.safe_load(path.read_text())["spec"]
    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    queries = {
        trigger["name"]: (trigger["metadata"]["query"], float(trigger["metadata"]["threshold"]))
        for trigger in spec["triggers"]
    }
    up, down = (_limit(behaviour[way]) for way in ("scaleUp", "scaleDown"))
    return Manifest(queries, spec["minReplicaCount"], spec["maxReplicaCount"], up, down)


def _limit(way: Mapping[str, Any]) -> Limit:
    steps = tuple((step["type"], step["value"], step["periodSeconds"]) for step in way["policies"])
    return Limit(way["stabilizationWindowSeconds"], steps)
