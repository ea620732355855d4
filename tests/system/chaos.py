"""Chaos: real processes under load, one fault at a time, and the history checker's verdict.

    python -m tests.system.chaos [--scenario NAME ...] [--seed N] [--sessions N] [--keep FOLDER]

docs/reference/chaos.md says what each scenario does and promises.
"""

import asyncio
import logging
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from time import monotonic

import structlog

from warmwire.broker.nats.bus import Arrived
from warmwire.broker.wire.messages import OwnerRecord, decode

from tests.proxies import NGINX, proxy
from tests.system import history as h
from tests.system.cluster import MEMBERS, Cluster, Process, Worker, let_time_pass, until
from tests.system.edge_load import EdgeLoad
from tests.system.load import Load
from tests.system.scenario import (
    HEAD,
    Hit,
    LeftOutError,
    Outcome,
    Plan,
    concluded,
    hit,
    over,
    parser,
    play,
    resets,
    stale_events,
    under_way,
)

RATE = 25
"""Deltas per second: a turn takes 2.4 s, so that most faults hit it in the middle."""
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


@asynccontextmanager
async def loaded(
    plan: Plan, workers: int = 2, members: int = 1, loss: str = "retry"
) -> AsyncIterator[tuple[Cluster, Load]]:
    """A stage on which half of the sessions have a turn under way."""
    async with stage(plan, workers, members, loss=loss) as (cluster, load):
        await load.start(plan.sessions)
        await under_way(load, plan.sessions // 2)
        yield cluster, load


async def busy(load: Load, worker: Worker, count: int) -> None:
    """Wait until the text of so many of a worker's turns flows."""
    workers = load.notes.flowing.values()
    await until(lambda: list(workers).count(worker.id) >= count, f"{count} turns of {worker.name}", 60)


def busiest(cluster: Cluster, load: Load) -> Worker:
    """The worker with the most turns under way."""
    counts = Counter(load.notes.flowing.values())
    return max((worker for worker in cluster.workers if worker.running), key=lambda worker: counts[worker.id])


def kill_busiest(cluster: Cluster, load: Load) -> Hit:
    """kill -9 of the worker with the most turns under way."""
    victim = busiest(cluster, load)
    killed = hit(load, f"kill -9 {victim.name}", [victim])
    victim.kill()
    return killed


# -- scenarios


@scenario
async def kill_worker(plan: Plan) -> Outcome:
    """kill -9 of one of two workers."""
    async with loaded(plan) as (cluster, load):
        return await concluded(load, kill_busiest(cluster, load))


@scenario
async def pause_worker(plan: Plan) -> Outcome:
    """SIGSTOP of a worker until others have taken over, then SIGCONT."""
    async with loaded(plan) as (cluster, load):
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


def lost(worker: Worker) -> int:
    """How many sessions a worker has found to be another's, by a refused write or by reading the record."""
    return worker.said.count("session lost to another worker")


@scenario
async def kill_all_workers(plan: Plan) -> Outcome:
    """kill -9 of all workers at once, then one new."""
    async with loaded(plan) as (cluster, load):
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
    async with loaded(plan) as (cluster, load):
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
    async with loaded(plan) as (cluster, load):
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
    async with loaded(plan, loss="fail") as (cluster, load):
        outcome = await concluded(load, kill_busiest(cluster, load))
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
        return await concluded(load, kill_busiest(cluster, load))


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
    async with loaded(plan, workers=3, members=members) as (cluster, load):
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


# -- the table


async def play_all(names: Sequence[str], folder: Path, seed: int, sessions: int | None) -> int:
    """Run scenarios one after the other; returns the number of violations."""
    print(HEAD)
    violations = 0
    for name in names:
        plan = Plan(folder / name, seed, sessions or SESSIONS.get(name, USUAL))
        try:
            violations += len((await play(name, plan, SCENARIOS[name])).violations)
        except LeftOutError as error:
            print(f"{name}: left out: {error}")
        except TimeoutError as error:
            violations += 1
            print(f"{name}: not played to its end: {error}")
    return violations


def main(arguments: Sequence[str]) -> int:
    """The command line; the exit code is 1 when a promise was broken."""
    given = parser(__doc__, SCENARIOS, f"{USUAL}, some more").parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="warmwire-chaos-") as temporary:
        folder = (given.keep or Path(temporary)).absolute()
        names = given.scenario or list(SCENARIOS)
        return 1 if asyncio.run(play_all(names, folder, given.seed, given.sessions)) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
