"""Chaos: real processes under load, one fault at a time, and the history checker's verdict.

    python -m tests.system.chaos [--scenario NAME ...] [--seed N] [--sessions N] [--keep FOLDER]

docs/reference/chaos.md says what each scenario does and promises.
Long, as each of the scenarios is a function of its own, and they are read side by side.
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
from random import Random
from statistics import median
from time import monotonic

import structlog

from warmwire.broker import envelope
from warmwire.broker.bus import Arrived
from warmwire.broker.messages import OwnerRecord, decode

from tests.proxies import NGINX, proxy
from tests.system import history as h
from tests.system.checker import TERMINAL, Violation, check
from tests.system.cluster import MEMBERS, Cluster, Process, Worker, let_time_pass, until
from tests.system.edge_load import EdgeLoad
from tests.system.load import Load, pauses

DELTAS, RATE = 60, 25
"""Deltas of an answer and deltas per second: a turn takes 2.4 s, so that most faults hit it in the middle."""
SLOW_RATE = 10
"""Deltas per second where there are hundreds of turns at once: the machine is shared by all roles."""
PAUSE = 6.0
"""Seconds for which a process is stopped: longer than the 3 s after which it is held dead."""
USUAL = 60
SESSIONS = {"kill-leader": 200, "kill-edge-proxy": 200}
"""Sessions at a time, where nothing else is asked for."""
STORM = 6
"""Faults of a storm."""
IDLE, RUNNING = 50, 10
"""Sessions of the drained worker."""


@dataclass(frozen=True)
class Plan:
    """What a scenario has to do with: a folder, the seed, how many sessions, how long the answers are."""

    folder: Path
    seed: int
    sessions: int
    deltas: int = DELTAS


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

    all_complete: bool = True

    @property
    def violations(self) -> list[Violation]:
        """The checker's verdict; where turns are retried, none may end in any other way than completed."""
        violations = check(self.history)
        for line, record in enumerate(self.history, 1):
            if self.all_complete and isinstance(record, h.Recorded) and record.ending != "turn_completed":
                what = f"ended with {record.ending}"
                violations.append(Violation("completed", record.turn, what, (line,)))
        return violations

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
async def stage(
    plan: Plan, workers: int = 2, members: int = 1, rate: int = RATE, loss: str = "retry"
) -> AsyncIterator[tuple[Cluster, Load]]:
    """A cluster with workers and a load that is not started yet."""
    emulator = {"DELTAS": str(plan.deltas), "RATE": str(rate)}
    async with Cluster(plan.folder, members, emulator) as cluster:
        await cluster.start_workers(workers)
        yield cluster, Load(cluster.url, plan.seed, deltas=plan.deltas, loss=loss)


async def under_way(load: Load, count: int) -> None:
    """Wait until the text of so many turns flows."""
    await until(lambda: len(load.notes.flowing) >= count, f"{count} turns under way", 60)


async def busy(load: Load, worker: Worker, count: int) -> None:
    """Wait until the text of so many of a worker's turns flows."""
    workers = load.notes.flowing.values()
    await until(lambda: list(workers).count(worker.id) >= count, f"{count} turns of {worker.name}", 60)


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
        stale = await stale_events(load)
        await let_time_pass(PAUSE)
        load.fault(f"SIGCONT {victim.name}")
        victim.signal(signal.SIGCONT)
        outcome = await concluded(load, paused)
        outcome.notes += [f"stale events on the wire: {stale.total()}", f"sessions lost: {lost(victim)}"]
        return outcome


async def stale_events(load: Load) -> Counter[str]:
    """Counts, per session and from now on, the events of owners that have lost it."""
    newest: dict[str, int] = {}
    stale = Counter[str]()

    def heard(message: Arrived) -> None:
        session, epoch = message.subject.rsplit(".", 1)[1], envelope.decode(message.data).epoch
        stale[session] += epoch < newest.get(session, 0)
        newest[session] = max(epoch, newest.get(session, 0))

    await load.mine.bus.subscribe("ww.evt.*.*", heard)
    await load.mine.bus.flush()
    return stale


def lost(worker: Worker) -> int:
    """How many sessions a worker has found to be another's, by a refused write or by reading the record."""
    return worker.said.count("session lost to another worker")


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
    async with stage(plan, members=MEMBERS, rate=SLOW_RATE) as (cluster, load):
        await load.start(plan.sessions)
        await under_way(load, plan.sessions * 9 // 10)
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


@scenario
async def upgrade(plan: Plan) -> Outcome:
    """Every worker, edge and server is told to leave and replaced, in an order of the seed's."""
    async with stage(plan, members=MEMBERS) as (cluster, _):
        load = await over_http(plan, cluster)
        began = hit(load, "upgrade")
        steps = [(replace, number) for replace in (_new_worker, _new_edge) for number in range(2)]
        steps += [(_new_server, number) for number in range(MEMBERS)]
        Random(plan.seed).shuffle(steps)
        for replace, number in steps:
            await replace(cluster, load, number)
        return await concluded(load, began, " ".join(f"{what.__name__[5:]}-{n}" for what, n in steps))


async def _new_worker(cluster: Cluster, load: EdgeLoad, number: int) -> None:
    old = [worker for worker in cluster.workers if worker.id][number]  # others came too early, and ended
    await cluster.start_workers(1)
    await _leaves(load, old)


async def _new_edge(cluster: Cluster, load: EdgeLoad, number: int) -> None:
    (load.edges[number],) = await cluster.start_edges(1)
    await _leaves(load, cluster.edges[number])


async def _new_server(cluster: Cluster, load: EdgeLoad, number: int) -> None:
    await _leaves(load, cluster.servers[number], code=1)  # nats-server's, when it was told to end
    cluster.restart_server(number)
    await cluster.servers_ready()


async def _leaves(load: EdgeLoad, old: Process, code: int = 0) -> None:
    load.fault(f"SIGTERM {old.name}")
    old.signal(signal.SIGTERM)
    assert await old.ended() in (0, code), f"{old.name}: {old.said[-2000:]}"


async def _cut(plan: Plan, seconds: float) -> Outcome:
    async with stage(plan, workers=1) as (cluster, load):
        proxy = await cluster.proxy()
        (far,) = await cluster.start_workers(1, proxy.url)
        await load.start(plan.sessions)
        await busy(load, far, plan.sessions // 6)
        cut = hit(load, f"network of {far.name} cut", [far])
        proxy.cut()
        stale = await stale_events(load)
        await let_time_pass(seconds)
        load.fault("network mended")
        proxy.mend()
        outcome = await concluded(load, cut)
        outcome.notes += [f"stale events on the wire: {stale.total()}", f"sessions lost: {lost(far)}"]
        return outcome


@scenario
async def cut_2s(plan: Plan) -> Outcome:
    """No network between one of two workers and NATS for 2 s."""
    return await _cut(plan, 2)


@scenario
async def cut_10s(plan: Plan) -> Outcome:
    """No network between one of two workers and NATS for 10 s."""
    return await _cut(plan, 10)


@scenario
async def kill_worker_fail(plan: Plan) -> Outcome:
    """kill -9 of one of two workers, where turns ask not to be begun again."""
    async with stage(plan, loss="fail") as (cluster, load):
        await load.start(plan.sessions)
        await under_way(load, plan.sessions // 2)
        victim = busiest(cluster, load)
        killed = hit(load, f"kill -9 {victim.name}", [victim])
        victim.kill()
        outcome = await concluded(load, killed)
        outcome.all_complete = False
        outcome.notes.append(f"turns begun again: {resets(load.history)}")
        return outcome


@scenario
async def kill_edge(plan: Plan) -> Outcome:
    """kill -9 of one of two edges; its viewers go on at the other with `Last-Event-ID`."""
    async with stage(plan) as (cluster, _):
        load = await over_http(plan, cluster)

        def seen_there() -> set[str]:
            return {turn for turn in load.notes.flowing if load.edge_of.get(turn) == load.edges[0]}

        await until(seen_there, "a turn that flows through the edge that is killed")
        killed = Hit(load.fault(f"kill -9 {cluster.edges[0].name}"), frozenset(seen_there()))
        cluster.edges[0].kill()
        outcome = await concluded(load, killed)
        broken = sum(isinstance(record, h.Broke) for record in load.history)
        outcome.notes.append(f"connections broken: {broken}")
        return outcome


async def over_http(plan: Plan, cluster: Cluster) -> EdgeLoad:
    """Two edges and a load over them that is under way."""
    load = EdgeLoad(cluster.url, plan.seed, deltas=plan.deltas, edges=await cluster.start_edges(2))
    await load.start(plan.sessions)
    await under_way(load, plan.sessions // 2)
    return load


@scenario
async def kill_edge_proxy(plan: Plan) -> Outcome:
    """kill -9 of one of two edges behind nginx, to which its viewers come back with `Last-Event-ID`."""
    if NGINX is None:
        raise LeftOutError("nginx is not installed (apt-get install nginx)")
    async with stage(plan, rate=SLOW_RATE if plan.sessions > USUAL else RATE) as (cluster, _):
        ports = [int(url.rpartition(":")[2]) for url in await cluster.start_edges(2)]
        async with proxy("nginx", plan.folder / "nginx", ports) as front:
            load = EdgeLoad(cluster.url, plan.seed, deltas=plan.deltas, edges=[front.http])
            await load.start(plan.sessions)
            await under_way(load, plan.sessions * 9 // 10)
            killed = hit(load, f"kill -9 {cluster.edges[0].name}")
            cluster.edges[0].kill()
            outcome = await concluded(load, killed)
        broken = {record.viewer for record in load.history if isinstance(record, h.Broke)}
        outcome.notes.append(f"connections broken: {len(broken)}")
        outcome.hit = Hit(killed.at, frozenset(turn for turn in killed.turns if f"{turn}@one" in broken))
        return outcome


@scenario
async def kill_worker_http(plan: Plan) -> Outcome:
    """kill -9 of one of two workers, watched over HTTP."""
    async with stage(plan) as (cluster, _):
        load = await over_http(plan, cluster)
        victim = busiest(cluster, load)
        killed = hit(load, f"kill -9 {victim.name}", [victim])
        victim.kill()
        return await concluded(load, killed)


@scenario
async def restart_nats_http(plan: Plan) -> Outcome:
    """kill -9 of the only NATS server, and the same server again from its files, watched over HTTP."""
    async with stage(plan) as (cluster, _):
        load = await over_http(plan, cluster)
        killed = hit(load, "kill -9 nats-0")
        await _kill_a_server(cluster, cluster.workers[0], Random(plan.seed))
        outcome = await concluded(load, killed)
        outcome.notes.append(f"turns begun again: {resets(load.history)}")
        return outcome


@scenario
async def drain(plan: Plan) -> Outcome:
    """SIGTERM of a worker with idle and running sessions, while another is there."""
    async with stage(plan, workers=1) as (cluster, load):
        (leaving,) = cluster.workers
        resting = Load(cluster.url, plan.seed, deltas=plan.deltas, name="idle")
        await resting.start(IDLE, times=1)
        await until(lambda: resting.resting == IDLE, "idle sessions", 60)
        await load.start(RUNNING)
        await under_way(load, RUNNING)
        await cluster.start_workers(1)
        released = await releases(load)
        told = hit(load, f"SIGTERM {leaving.name}", [leaving])
        leaving.signal(signal.SIGTERM)
        code = await leaving.ended()
        left = monotonic() - told.at
        outcome = await concluded(load, told)
        await resting.finish()
        outcome.history += resting.history
        idle = sorted(at - told.at for session, at in released.items() if session.startswith("idle"))
        whole, each = idle[-1] * 1000, idle[-1] * 1000 / len(idle)
        outcome.notes.append(f"exit code {code} after {left:.1f} s")
        outcome.notes.append(f"{len(idle)} idle sessions handed over in {whole:.0f} ms, {each:.1f} ms each")
        return outcome


async def releases(load: Load) -> dict[str, float]:
    """When each session is given up, from now on; filled in as it happens."""
    found: dict[str, float] = {}

    def heard(message: Arrived) -> None:
        if decode(OwnerRecord, message.data).worker is None:
            found.setdefault(message.subject.rsplit(".", 1)[1], monotonic())

    await load.mine.bus.subscribe("ww.own.*.*", heard)
    await load.mine.bus.flush()
    return found


@scenario
async def clock_jump(plan: Plan) -> Outcome:
    """The wall clock of one of two workers jumps by an hour forward, then by two back."""
    clock = plan.folder / "clock"
    clock.write_text("+0")
    environment = clock_of_its_own(clock)
    async with stage(plan, workers=1) as (cluster, load):
        (victim,) = await cluster.start_workers(1, environment=environment)
        await load.start(plan.sessions)
        await busy(load, victim, plan.sessions // 6)
        jumped = hit(load, f"clock of {victim.name} + 1 h", [victim])
        clock.write_text("+3600")
        await over(load, jumped)
        await busy(load, victim, plan.sessions // 6)
        load.fault(f"clock of {victim.name} - 1 h")
        clock.write_text("-3600")
        outcome = await concluded(load, jumped)
        outcome.notes.append(f"turns begun again: {resets(load.history)}")
        return outcome


def clock_of_its_own(clock: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is ahead by what stands in a file at any moment."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        raise LeftOutError("libfaketime is not installed (apt-get install faketime)")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


async def _storm(plan: Plan, members: int) -> Outcome:
    """Faults that follow each other before all is well again."""
    random = Random(plan.seed)
    async with stage(plan, workers=3, members=members) as (cluster, load):
        await load.start(plan.sessions)
        await under_way(load, plan.sessions // 2)
        first = hit(load, "storm")
        for _ in range(STORM):
            worker = random.choice([worker for worker in cluster.workers if worker.running])
            fault = random.choice((_kill_and_replace, _pause, _leave_and_replace, _kill_a_server))
            load.fault(f"{fault.__name__} ({worker.name})")
            await fault(cluster, worker, random)
            await under_way(load, plan.sessions // 6)
        outcome = await concluded(load, first)
        outcome.all_complete = False  # a turn that is hit three times fails: too_many_attempts
        outcome.notes.append(f"turns begun again: {resets(load.history)}")
        return outcome


async def _kill_and_replace(cluster: Cluster, worker: Worker, _: Random) -> None:
    worker.kill()
    await cluster.start_workers(1)


async def _pause(_: Cluster, worker: Worker, random: Random) -> None:
    worker.signal(signal.SIGSTOP)
    await let_time_pass(random.uniform(0.5, PAUSE))
    worker.signal(signal.SIGCONT)


async def _leave_and_replace(cluster: Cluster, worker: Worker, _: Random) -> None:
    worker.signal(signal.SIGTERM)
    await cluster.start_workers(1)


async def _kill_a_server(cluster: Cluster, _: Worker, random: Random) -> None:
    number = random.randrange(cluster.members)
    cluster.servers[number].kill()
    await let_time_pass(random.uniform(0, 2))  # the server is away: that is the fault
    cluster.restart_server(number)
    await cluster.servers_ready()


@scenario
async def storm(plan: Plan) -> Outcome:
    """Six faults of workers and of the only NATS server, chosen by the seed, before all is well again."""
    return await _storm(plan, 1)


@scenario
async def storm_in_cluster(plan: Plan) -> Outcome:
    """The same with a NATS cluster of three."""
    return await _storm(plan, MEMBERS)


class LeftOutError(Exception):
    """A scenario that this machine cannot play; says why."""


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
        name,
        outcome.accepted,
        total,
        endings,
        len(outcome.violations),
        len(outcome.hit.turns),
        worst,
        middle,
        notes,
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
        plan = Plan(folder / name, seed, sessions or SESSIONS.get(name, USUAL))
        try:
            violations += len((await play(name, plan)).violations)
        except LeftOutError as error:
            print(f"{name}: left out: {error}")
        except TimeoutError as error:
            violations += 1
            print(f"{name}: not played to its end: {error}")
    return violations


def main(arguments: Sequence[str]) -> int:
    """The command line; the exit code is 1 when a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--scenario", action="append", choices=sorted(SCENARIOS), help="only this one; repeatable")
    option("--seed", type=int, default=1, help="chooses the messages (default: 1)")
    option("--sessions", type=int, default=0, help=f"sessions at a time (default: {USUAL}, some more)")
    option("--keep", type=Path, help="folder for histories and logs (default: removed afterwards)")
    given = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="warmwire-chaos-") as temporary:
        folder = (given.keep or Path(temporary)).absolute()
        names = given.scenario or list(SCENARIOS)
        return 1 if asyncio.run(play_all(names, folder, given.seed, given.sessions)) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
