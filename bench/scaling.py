"""How many workers, and when? A day, a burst and a lost node against the pool's own policy, in virtual time.

    python -m bench.scaling [--seed 1] [--quick] [--json FILE] [--svg docs/images]

Four ways to choose the number of workers are compared on each trace, then the pool's defaults are varied.
docs/scaling.md shows the last run, and says what is measured and what is assumed.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bench import measure
from bench.plot import timeline
from bench.scaling_autoscale import KUBERNETES, Fixed, Policy, QueueLength, manifest
from bench.scaling_model import Cluster
from bench.scaling_parts import Outcome, Pod, Trace

HOUR = 3600.0
MESSAGES_EACH = 10
"""Waiting messages for which the policy by the queue's length has a worker; KEDA's own default for NATS."""


def pod() -> Pod:
    """What a worker of our manifests has."""
    budget, deployment = yaml.safe_load_all((KUBERNETES / "base" / "worker.yaml").read_text())
    assert "Deployment" == deployment["kind"] != budget["kind"]
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    variables = {each["name"]: each.get("value") for each in container["env"]}
    resources = container["resources"]
    return Pod(
        turns=int(variables["WARMWIRE_MAX_TURNS"]),
        sessions=int(variables["WARMWIRE_MAX_SESSIONS"]),
        drain=float(variables["WARMWIRE_DRAIN_TIMEOUT"]),
        memory_mb=1024 * int(resources["limits"]["memory"].removesuffix("Gi")),
        cores=int(resources["requests"]["cpu"]),
        tolerated=max(each["tolerationSeconds"] for each in spec["tolerations"]),
    )


def daily(now: float) -> float:
    """Sessions a second: least at 4 in the morning, a top before noon, a higher one in the evening."""
    hour = now / HOUR
    bumps = ((10.5, 2.5, 0.42), (15.0, 2.0, 0.30), (20.5, 2.0, 0.50))
    return 0.03 + sum(top * math.exp(-(((hour - at) / wide) ** 2)) for at, wide, top in bumps)


def burst(now: float) -> float:
    """Ten times as many for ten minutes, from one moment to the next."""
    return 1.0 if 0.5 * HOUR <= now < 0.5 * HOUR + 600 else 0.1


def steady(now: float) -> float:  # noqa: ARG001 - that is the point
    """Always as many."""
    return 0.6


TRACES = {
    "day": Trace("day", 24 * HOUR, daily, 0.6, workers=4, every=300),
    "burst": Trace("burst", 2 * HOUR, burst, 1.0, workers=2, every=30),
    "steady": Trace("steady", HOUR, steady, 0.6, workers=5),
    "node": Trace("node", 1.5 * HOUR, steady, 0.6, workers=5, lost=((0.5 * HOUR, 2),), every=30),
}
SAYS = {
    "day": "A day of 24 hours",
    "burst": "Ten times as many sessions for ten minutes",
    "node": "Two of the workers are lost with their node",
}
COMPARED = tuple(SAYS)
POLICIES = ("fixed", "queue", "slots", "slots, no guard")


@dataclass(frozen=True)
class Case:
    """One run. ``threshold``: turns for which the trigger has a worker, where it is not as written."""

    trace: str
    policy: str
    seed: int
    pod: Pod = field(default_factory=pod)
    threshold: float | None = None
    stabilized: float | None = None


def played(case: Case) -> Outcome:
    """Run it."""
    trace, made = TRACES[case.trace], manifest()
    if case.stabilized is not None:
        made = replace(made, down=replace(made.down, stabilized=case.stabilized))
    if case.threshold is not None:
        made = replace(made, queries=made.queries | {"turns": (made.queries["turns"][0], case.threshold)})
    policies: Mapping[str, Callable[[], Policy]] = {
        "fixed": lambda: Fixed(trace.workers),
        "queue": lambda: QueueLength(MESSAGES_EACH),
        "slots": lambda: made.policy("turns", "guard"),
        "slots, no guard": lambda: made.policy("turns"),
    }
    scaler = None if case.policy == "fixed" else made.scaler()
    return Cluster(trace, policies[case.policy](), scaler, case.pod, case.seed).run()


def figures(outcome: Outcome) -> dict[str, Any]:
    """What is shown of it."""
    times = sorted(seconds for _, seconds in outcome.first)
    turns = sum(outcome.how.values())
    cold = outcome.how.get("spawned", 0) + outcome.how.get("resumed", 0)
    return {
        "turns": turns,
        **{f"p{part}_ms": round(1000 * at(times, part / 100)) for part in (50, 95, 99)},
        "cold_percent": round(100 * cold / turns, 1),
        "spawned": outcome.how.get("spawned", 0),
        "resumed": outcome.how.get("resumed", 0),
        "queued_percent": round(100 * outcome.queued / turns, 2),
        "longest_wait_s": round(outcome.longest_wait, 1),
        "spare_hours": round(outcome.spare_seconds / HOUR, 1),
        "moved": outcome.moved,
        "again": outcome.again,
        "over": outcome.over,
        "worker_hours": round(outcome.worker_seconds / HOUR, 1),
    }


def at(ordered: Sequence[float], part: float) -> float:
    """That part of them is at most as large."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


# --- what is shown ---------------------------------------------------------------------------------------

COLUMNS = {
    "turns": "turns",
    "p50_ms": "p50",
    "p95_ms": "p95",
    "p99_ms": "p99 ms",
    "cold_percent": "cold %",
    "queued_percent": "queued %",
    "longest_wait_s": "longest s",
    "spare_hours": "spares unused h",
    "moved": "moved",
    "again": "begun again",
    "worker_hours": "worker-hours",
}


def shown(name: str, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """A table, a row for each."""
    lines = [[label, *(row[column] for column in COLUMNS)] for label, row in rows]
    return measure.table([name, *COLUMNS.values()], lines)


def percentile(outcome: Outcome, trace: Trace) -> list[tuple[float, float]]:
    """The 95th of the first deltas, in ms, of turns sent in each stretch of time; hours."""
    wide = trace.every * 2
    stretches: dict[int, list[float]] = {}
    for sent, seconds in outcome.first:
        stretches.setdefault(int(sent // wide), []).append(seconds)
    return [
        ((number + 0.5) * wide / HOUR, 1000 * at(sorted(times), 0.95))
        for number, times in sorted(stretches.items())
    ]


def charts(trace: Trace, outcomes: Mapping[str, Outcome], folder: Path) -> None:
    """Slots against load, and the first delta, by time. Where the guard is makes no visible difference."""
    outcomes = {name: outcomes[name] for name in ("fixed", "queue", "slots")}
    slots = {name: _hours(outcome.slots) for name, outcome in outcomes.items()}
    slots["load"] = _hours(outcomes["slots"].load)
    first = {name: percentile(outcome, trace) for name, outcome in outcomes.items()}
    drawn = {
        "slots": timeline(SAYS[trace.name], "hours", "slots; turns that wait or run (policy: slots)", slots),
        "ttft": timeline(
            SAYS[trace.name],
            "hours",
            "first delta, 95th percentile, ms, logarithmic",
            first,
            logarithmic=True,
        ),
    }
    for name, svg in drawn.items():
        (folder / f"scaling-{trace.name}-{name}.svg").write_text(svg)


def _hours(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(seconds / HOUR, number) for seconds, number in points]


# --- the defaults ----------------------------------------------------------------------------------------


def variations(seed: int) -> dict[str, list[tuple[str, Case]]]:
    """What else might have been the default, each on the trace that says most about it."""
    written = pod()

    def cases(trace: str, **pods: Pod) -> list[tuple[str, Case]]:
        return [(name.replace("_", " "), Case(trace, "slots", seed, each)) for name, each in pods.items()]

    spares = {f"{few} to {most}": replace(written, spares=few, max_spares=most) for few, most in SPARES}
    memory = {f"{gb} GB": replace(written, memory_mb=1024 * gb, sessions=None) for gb in (6, 8, 12, 16)}
    sessions = {f"{many}": replace(written, sessions=many) for many in (20, 34, 45, 55)}
    tolerated = {f"{seconds} s": replace(written, tolerated=seconds) for seconds in (300, 120, 30, 0)}
    starts = {f"{seconds} s": replace(written, starts_in=seconds) for seconds in (10, 30, 60, 120)}
    return {
        "spares, burst": cases("burst", **spares),
        "a worker's memory, steady": cases("steady", **memory),
        "sessions with a process in 8 GB, steady": cases("steady", **sessions),
        "a lost node is tolerated for, node, fixed": [
            (name, replace(case, policy="fixed")) for name, case in cases("node", **tolerated)
        ],
        "start of a pod, burst": cases("burst", **starts),
        "turns a worker, burst": [
            (f"{each}", Case("burst", "slots", seed, threshold=each)) for each in (12, 14, 16, 18, 20)
        ],
        "turns a worker, day": [(f"{each}", Case("day", "slots", seed, threshold=each)) for each in (12, 14)],
        "scale-in after, day": [
            (f"{seconds} s", Case("day", "slots", seed, stabilized=seconds)) for seconds in (60, 1800)
        ],
    }


SPARES = ((0, 0), (1, 1), (1, 8), (2, 8), (4, 8), (8, 8))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="without the variations of the defaults")
    parser.add_argument("--json", type=Path, help="file to write the figures to, too")
    parser.add_argument("--svg", type=Path, help="folder for the charts")
    options = parser.parse_args()
    cases = [Case(trace, policy, options.seed) for trace in COMPARED for policy in POLICIES]
    varied = {} if options.quick else variations(options.seed)
    cases += [case for rows in varied.values() for _, case in rows]
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        outcomes = dict(zip(cases, processes.map(played, cases), strict=True))
    for name in COMPARED:
        found = {policy: outcomes[Case(name, policy, options.seed)] for policy in POLICIES}
        print(shown(name, ((policy, figures(outcome)) for policy, outcome in found.items())), end="\n\n")
        if options.svg:
            charts(TRACES[name], found, options.svg)
    for name, rows in varied.items():
        print(shown(name, ((label, figures(outcomes[case])) for label, case in rows)), end="\n\n")
    rows_ = [{"case": repr(case), **figures(outcome)} for case, outcome in outcomes.items()]
    measure.report(options.json, "scaling", {"seed": options.seed}, rows_)
    return 0


if __name__ == "__main__":
    sys.exit(main())
