"""Chaos: real processes under load, one fault at a time, and the history checker's verdict.

    python -m tests.system.chaos [--scenario NAME ...] [--seed N] [--sessions N] [--keep FOLDER]

docs/reference/chaos.md says what each scenario does and promises.
"""

import argparse
import asyncio
import logging
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic

import structlog

from tests.system import history as h
from tests.system.checker import TERMINAL, Violation, check
from tests.system.cluster import MEMBERS, Cluster, Worker, let_time_pass, until
from tests.system.load import Load, pauses

DELTAS, RATE = 60, 25
"""Deltas of an answer and deltas per second: a turn takes 2.4 s, so that most faults hit it in the middle."""
EMULATOR = {"DELTAS": str(DELTAS), "RATE": str(RATE)}
PAUSE = 6.0
"""Seconds for which a process is stopped: longer than the 3 s after which it is held dead."""
IDLE, RUNNING = 50, 10
"""Sessions of the drained worker."""


@dataclass(frozen=True)
class Plan:
    """What a scenario is to do with: a folder of its own, the seed, how many sessions."""

    folder: Path
    seed: int
    sessions: int


@dataclass(frozen=True)
class Hit:
    """A fault and the turns that it hit."""

    at: float
    turns: frozenset[str]


@dataclass
class Outcome:
    """What came of a scenario."""

    history: list[h.Any]
    hit: Hit
    notes: list[str] = field(default_factory=list)

    @property
    def violations(self) -> list[Violation]:
        """The checker's verdict."""
        return check(self.history)

    @property
    def accepted(self) -> int:
        """Accepted turns."""
        return sum(isinstance(record, h.Accepted) for record in self.history)

    @property
    def endings(self) -> Counter[str]:
        """How the turns ended for whoever sent them."""
        return Counter(
            record.type.removeprefix("turn_")
            for record in self.history
            if isinstance(record, h.Seen) and record.type in TERMINAL and record.viewer.endswith("@one")
        )

    @property
    def waits(self) -> list[float]:
        """For each turn that was hit, the longest wait for text after the fault, in seconds."""
        return sorted(pauses(self.history, self.hit.at, set(self.hit.turns)).values())


Scenario = Callable[[Plan], Awaitable[Outcome]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    """Register a scenario under its function's name."""
    SCENARIOS[function.__name__.replace("_", "-")] = function
    return function


# -- parts of scenarios


@asynccontextmanager
async def stage(plan: Plan, workers: int = 2, members: int = 1) -> AsyncIterator[tuple[Cluster, Load]]:
    """A cluster with workers and a load that is not started yet."""
    async with Cluster(plan.folder, members, EMULATOR) as cluster:
        await cluster.start_workers(workers)
        yield cluster, Load(cluster.url, plan.seed, deltas=DELTAS)


async def under_way(load: Load, count: int) -> None:
    """Wait until the text of so many turns flows."""
    await until(lambda: len(load.notes.flowing) >= count, f"{count} turns under way", 60)


def busiest(cluster: Cluster, load: Load) -> Worker:
    """The worker with the most turns under way."""
    counts = Counter(load.notes.flowing.values())
    return max((worker for worker in cluster.workers if worker.running), key=lambda worker: counts[worker.id])


def hit(load: Load, what: str, victims: Iterable[Worker] | None = None) -> Hit:
    """Note a fault that hits the turns of these workers; without workers, all turns under way."""
    ids = None if victims is None else {worker.id for worker in victims}
    turns = {turn for turn, worker in load.notes.flowing.items() if ids is None or worker in ids}
    return Hit(load.fault(what), frozenset(turns))


async def over(load: Load, hit_: Hit) -> None:
    """Wait until the turns that were hit have ended; the checker says it if they do not."""
    try:
        await until(
            lambda: not hit_.turns & load.notes.flowing.keys(), "the end of the turns that were hit", 60
        )
    except TimeoutError as error:
        print(error, file=sys.stderr)


async def concluded(load: Load, hit_: Hit, *notes: str) -> Outcome:
    """Let the load come to its end."""
    await over(load, hit_)
    await load.finish()
    return Outcome(load.history, hit_, list(notes))


# -- scenarios


@scenario
async def kill_worker(plan: Plan) -> Outcome:
    """kill -9 of one of two workers."""
    async with stage(plan) as (cluster, load):
        await load.start(plan.sessions)
        await under_way(load, plan.sessions // 2)
        victim = busiest(cluster, load)
        killed = hit(load, f"kill -9 {victim.name}", [victim])
        victim.kill()
        return await concluded(load, killed)


@scenario
async def pause_worker(plan: Plan) -> Outcome:
    """SIGSTOP of a worker until others have taken over, then SIGCONT."""
    async with stage(plan) as (cluster, load):
        await load.start(plan.sessions)
        await under_way(load, plan.sessions // 2)
        victim = busiest(cluster, load)
        paused = hit(load, f"SIGSTOP {victim.name}", [victim])
        victim.signal(signal.SIGSTOP)
        await let_time_pass(PAUSE)
        load.fault(f"SIGCONT {victim.name}")
        victim.signal(signal.SIGCONT)
        await over(load, paused)
        return await concluded(load, paused)


@scenario
async def kill_all_workers(plan: Plan) -> Outcome:
    """kill -9 of all workers at once, then one new."""
    async with stage(plan) as (cluster, load):
        await load.start(plan.sessions)
        await under_way(load, plan.sessions // 2)
        killed = hit(load, "kill -9 of all workers")
        for victim in cluster.workers:
            victim.kill()
        await cluster.start_workers(1)
        return await concluded(load, killed)


@scenario
async def kill_leader(plan: Plan) -> Outcome:
    """kill -9 of the stream leader of a cluster of three."""
    async with stage(plan, members=MEMBERS) as (cluster, load):
        await load.start(plan.sessions)
        await under_way(load, plan.sessions // 2)
        leader = await cluster.leader_of("WW_STATE")
        killed = hit(load, f"kill -9 nats-{leader}")
        cluster.servers[leader].kill()
        await over(load, killed)
        cluster.restart_server(leader)
        outcome = await concluded(load, killed)
        outcome.notes.append(f"turns begun again: {resets(load.history)}")
        return outcome


@scenario
async def restart_nats(plan: Plan) -> Outcome:
    """kill -9 of the only NATS server, and the same server again from its files."""
    async with stage(plan) as (cluster, load):
        await load.start(plan.sessions)
        await under_way(load, plan.sessions // 2)
        killed = hit(load, "kill -9 nats-0")
        cluster.servers[0].kill()
        await let_time_pass(1)  # the server is away: that is the fault
        cluster.restart_server()
        await cluster.servers_ready()
        outcome = await concluded(load, killed)
        outcome.notes.append(f"turns begun again: {resets(load.history)}")
        return outcome


@scenario
async def rolling_restart(plan: Plan) -> Outcome:
    """A new worker for each old one, which is told to leave by SIGTERM."""
    async with stage(plan) as (cluster, load):
        await load.start(plan.sessions)
        await under_way(load, plan.sessions // 2)
        began = hit(load, "rolling restart")
        for old in list(cluster.workers):
            await cluster.start_workers(1)
            load.fault(f"SIGTERM {old.name}")
            old.signal(signal.SIGTERM)
            code = await old.ended()
            assert code == 0, f"{old.name} ended with {code}: {old.said[-2000:]}"
        return await concluded(load, began)


async def _cut(plan: Plan, seconds: float) -> Outcome:
    async with stage(plan, workers=1) as (cluster, load):
        proxy = await cluster.proxy()
        (far,) = await cluster.start_workers(1, proxy.url)
        await load.start(plan.sessions)
        await under_way(load, plan.sessions // 2)
        cut = hit(load, f"network of {far.name} cut", [far])
        proxy.cut()
        await let_time_pass(seconds)
        load.fault("network mended")
        proxy.mend()
        return await concluded(load, cut)


@scenario
async def cut_2s(plan: Plan) -> Outcome:
    """No network between one of two workers and NATS for 2 s."""
    return await _cut(plan, 2)


@scenario
async def cut_10s(plan: Plan) -> Outcome:
    """No network between one of two workers and NATS for 10 s."""
    return await _cut(plan, 10)


def resets(history: Iterable[h.Any]) -> int:
    """How many turns were begun again, as far as a viewer of the turn was told."""
    return len(
        {record.turn for record in history if isinstance(record, h.Seen) and record.type == "turn_reset"}
    )


# -- the table

COLUMNS = "{:<18} {:>6} {:>6}  {:<34} {:>10} {:>5} {:>9} {:>9}  {}"


def row(name: str, outcome: Outcome, seconds: float) -> str:
    """One line of the table."""
    waits = outcome.waits
    endings = ", ".join(f"{count} {ending}" for ending, count in sorted(outcome.endings.items()))
    worst, middle = (f"{max(waits):.2f} s", f"{median(waits):.2f} s") if waits else ("-", "-")
    notes = "; ".join([*outcome.notes, f"took {seconds:.0f} s"])
    total = sum(outcome.endings.values())
    return COLUMNS.format(
        name, outcome.accepted, total, endings, len(outcome.violations), len(waits), worst, middle, notes
    )


async def play(name: str, plan: Plan) -> Outcome:
    """Run one scenario and print its line; the history and all logs stay in the plan's folder."""
    began = monotonic()
    plan.folder.mkdir(parents=True, exist_ok=True)
    outcome = await SCENARIOS[name](plan)
    h.write(plan.folder / "history.jsonl", outcome.history)
    print(row(name, outcome, monotonic() - began), flush=True)
    for violation in outcome.violations:
        print(f"    {violation}", flush=True)
    return outcome


async def play_all(names: Sequence[str], folder: Path, seed: int, sessions: int) -> int:
    """Run scenarios one after the other; returns the number of violations."""
    print(COLUMNS.format("scenario", "turns", "ends", "of which", "violations", "hit", "worst", "median", ""))
    violations = 0
    for name in names:
        outcome = await play(name, Plan(folder / name, seed, sessions))
        violations += len(outcome.violations)
    return violations


def main(arguments: Sequence[str]) -> int:
    """The command line; the exit code is 1 when a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--scenario", action="append", choices=sorted(SCENARIOS), help="only this one; repeatable")
    option("--seed", type=int, default=1, help="chooses the messages (default: 1)")
    option("--sessions", type=int, default=60, help="sessions at a time (default: 60)")
    option("--keep", type=Path, help="folder for histories and logs (default: removed afterwards)")
    given = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="warmwire-chaos-") as temporary:
        folder = (given.keep or Path(temporary)).absolute()
        names = given.scenario or list(SCENARIOS)
        return 1 if asyncio.run(play_all(names, folder, given.seed, given.sessions)) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
