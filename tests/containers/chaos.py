"""Chaos in containers: the stack of compose.yaml under load, one fault at a time, and the checker's verdict.

    python -m tests.containers.chaos [--scenario NAME ...] [--seed N] [--sessions N] [--keep FOLDER]

docs/deployment.md has the last run's table. The scenarios share one stack, and each has sessions of its own.
"""

import asyncio
import logging
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic

import structlog

from tests.containers.stack import SERVERS, FailedError, Stack, docker
from tests.system import history as h
from tests.system.cluster import let_time_pass, until
from tests.system.edge_load import EdgeLoad
from tests.system.load import Load
from tests.system.scenario import (
    HEAD,
    Hit,
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

DELTAS, RATE = 40, 10
"""Deltas of an answer and deltas per second: a turn takes 4 s."""
SESSIONS = 100
CUT = 10.0
"""Seconds for which a worker has no network: longer than the 3 s after which it is held dead."""

Scenario = Callable[[Stack, Plan], Awaitable[Outcome]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    """Register a scenario under its function's name."""
    SCENARIOS[function.__name__.replace("_", "-")] = function
    return function


async def loaded(stack: Stack, plan: Plan, name: str) -> Load:
    """A load of so many sessions, half of which have a turn under way; their names begin with `name`."""
    load = Load(stack.nats, plan.seed, deltas=stack.deltas, name=name, login=stack.producer)
    await load.start(plan.sessions)
    await under_way(load, plan.sessions // 2)
    return load


@scenario
async def stop_nats(stack: Stack, plan: Plan) -> Outcome:
    """`docker stop` of the NATS server that leads the records' stream; it is started again later."""
    return await _without_leader(stack, plan, "stop")


@scenario
async def kill_nats(stack: Stack, plan: Plan) -> Outcome:
    """`docker kill` of that server."""
    return await _without_leader(stack, plan, "kill")


async def _without_leader(stack: Stack, plan: Plan, how: str) -> Outcome:
    load = await loaded(stack, plan, f"{how}-nats-")
    leader = await stack.leader_of("WW_STATE")
    gone = hit(load, f"docker {how} {leader}")
    await stack.compose(how, leader)
    await over(load, gone)
    await stack.up()
    outcome = await concluded(load, gone)
    outcome.notes.append(f"turns begun again: {resets(load.history)}")
    return outcome


@scenario
async def cut_worker(stack: Stack, plan: Plan) -> Outcome:
    """The busiest worker loses the network of NATS, lives on, and comes back: a split brain."""
    network = f"{stack.project}_inner"
    containers = {await stack.worker_in(each): each for each in await stack.containers("worker")}
    load = await loaded(stack, plan, "cut-worker-")
    ((worker, _),) = Counter(filter(None, load.notes.flowing.values())).most_common(1)
    container = containers[worker]
    turns = frozenset(turn for turn, runs_at in load.notes.flowing.items() if runs_at == worker)
    cut = Hit(load.fault(f"network of {worker} cut"), turns)
    await docker("network", "disconnect", network, container)
    stale = await stale_events(load)
    await let_time_pass(CUT)
    load.fault("network mended")
    await docker("network", "connect", network, container)
    outcome = await concluded(load, cut)
    lost = (await docker("logs", container)).count("session lost to another worker")
    outcome.notes += [f"stale events on the wire: {stale.total()}", f"sessions lost: {lost}"]
    return outcome


@scenario
async def scale(stack: Stack, plan: Plan) -> Outcome:
    """Two workers become five, new sessions come to them, then there are two again; every session runs on."""
    await stack.up("--scale", "worker=2")
    load = await loaded(stack, plan, "scale-")
    out = hit(load, "scale 2 -> 5")
    first = set(await stack.containers("worker"))
    await stack.up("--scale", "worker=5")
    added = {await stack.worker_in(each) for each in {*await stack.containers("worker")} - first}
    more = await loaded(stack, replace(plan, sessions=plan.sessions // 2), "more-")
    await until(lambda: added & set(more.notes.flowing.values()), "turns at a new worker", 60)
    load.fault("scale 5 -> 2")
    more_hit = hit(more, "scale 5 -> 2")
    await stack.up("--scale", "worker=2")
    outcome = await concluded(load, out)
    await over(more, more_hit)
    await more.finish()
    outcome.history += more.history
    outcome.hit = Hit(out.at, out.turns | more_hit.turns)
    outcome.notes.append(f"turns begun again: {resets(outcome.history)}")
    await stack.up()
    return outcome


@scenario
async def roll(stack: Stack, plan: Plan) -> Outcome:
    """compose/roll: a new container for each of every role, watched through nginx."""
    load = EdgeLoad(
        stack.nats, plan.seed, deltas=stack.deltas, edges=[stack.front], name="roll-", login=stack.producer
    )
    await load.start(plan.sessions)
    await under_way(load, plan.sessions // 2)
    before = {service: await stack.containers(service) for service in (*SERVERS, "worker", "edge", "nginx")}
    began = hit(load, "compose/roll")
    await stack.script("roll")
    took = monotonic() - began.at
    for service, old in before.items():
        now = await stack.containers(service)
        assert len(now) == len(old), f"{service}: {len(old)} containers before, {len(now)} after"
        assert not {*now} & {*old}, f"{service} has an old container"
    outcome = await concluded(load, began)
    broken = sum(isinstance(record, h.Broke) for record in load.history)
    outcome.notes += [
        f"rolled in {took:.0f} s",
        f"connections broken: {broken}",
        f"turns begun again: {resets(load.history)}",
    ]
    return outcome


@scenario
async def restart_stack(stack: Stack, plan: Plan) -> Outcome:
    """`docker compose down` while sessions run and others rest, then `up`: all are asked for their memory."""
    resting = Load(stack.nats, plan.seed, deltas=stack.deltas, name="resting-", login=stack.producer)
    await resting.start(plan.sessions, times=1)
    await until(lambda: resting.resting == plan.sessions, "all sessions at rest", 60)
    load = Load(stack.nats, plan.seed, deltas=stack.deltas, name="running-", login=stack.producer)
    await load.start(plan.sessions // 4, times=1)
    await under_way(load, plan.sessions // 8)
    down = hit(load, "docker compose down")
    await stack.compose("down")
    await stack.up()
    outcome = await concluded(load, down)
    await resting.finish()
    outcome.history += resting.history
    outcome.notes.append(f"sessions asked for their memory afterwards: {asked_since(outcome)}")
    return outcome


@scenario
async def restore(stack: Stack, plan: Plan) -> Outcome:
    """compose/backup, every volume and secret removed, compose/restore: all are asked for their memory."""
    load = Load(stack.nats, plan.seed, deltas=stack.deltas, name="restore-", login=stack.producer)
    await load.start(plan.sessions, times=1)
    await until(lambda: load.resting == plan.sessions, "all sessions at rest", 60)
    gone = hit(load, "docker compose down --volumes")
    backup = str(plan.folder / "backup")
    await stack.script("backup", backup)
    await stack.compose("down", "--volumes")
    shutil.rmtree(stack.secrets)
    await stack.script("restore", backup)
    outcome = await concluded(load, gone)
    outcome.notes.append(f"sessions asked for their memory afterwards: {asked_since(outcome)}")
    return outcome


def asked_since(outcome: Outcome) -> int:
    """How many sessions had a turn accepted after the fault; the last one of each asks for its memory."""
    at = outcome.hit.at
    return len({each.session for each in outcome.history if isinstance(each, h.Accepted) and each.at > at})


# -- the table


async def play_all(names: Sequence[str], folder: Path, seed: int, sessions: int) -> int:
    """Run scenarios one after the other on one stack; returns the number of violations."""
    began = monotonic()
    violations = 0
    async with Stack(folder, DELTAS, RATE) as stack:
        print(f"built and up in {monotonic() - began:.0f} s")
        print(HEAD)
        for name in names:
            plan = Plan(folder / name, seed, sessions, DELTAS)
            try:
                violations += len((await play(name, plan, partial(SCENARIOS[name], stack))).violations)
            except (TimeoutError, FailedError) as error:
                violations += 1
                print(f"{name}: not played to its end: {error}")
        (folder / "stack.log").write_text(await stack.compose("logs", "--no-color"))
    return violations


def main(arguments: Sequence[str]) -> int:
    """The command line; the exit code is 1 when a promise was broken."""
    given = parser(__doc__, SCENARIOS, SESSIONS).parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    names = given.scenario or list(SCENARIOS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.keep or Path(temporary)).absolute()
        violations = asyncio.run(play_all(names, folder, given.seed, given.sessions or SESSIONS))
    print(f"{violations} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
