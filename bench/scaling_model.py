"""A pool of workers in virtual time: discrete events, a seed, and the worker's own decisions. Pure.

Who gets which process, how many messages are pulled, who is frozen, parked, evicted, how many spares there
are: that is asked of `worker/pool/policy.py`; who runs a message, of `worker/sessions/ownership.py`. Made up
is only what they decide about: times (`Costs`, as measured in docs/benchmarks.md), arrivals and turns
(`Habits`, assumed).
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from bench.scaling_autoscale import Policy, Scaler, Seen
from bench.scaling_parts import Costs, Habits, Outcome, Pod, Session, Span, Spare, Trace, Turn, Worker
from warmwire.broker.liveness import DEAD_AFTER
from warmwire.broker.nats.store import Owned
from warmwire.broker.wire.messages import OwnerRecord
from warmwire.worker.cli.dialect import Abilities
from warmwire.worker.pool import policy
from warmwire.worker.pool.supply import SHARE
from warmwire.worker.sessions.ownership import Claim, place

CAN = Abilities(adopt=True, set_model=True)
PROFILE = "default"
NOTICED = 40.0
"""Seconds until Kubernetes calls a silent node lost; its default."""


class Cluster:
    """The simulation: ``run`` plays a trace."""

    HEARD_EVERY = 10.0
    """Seconds between two readings of the metrics by Prometheus."""
    DECIDES_EVERY = 15.0
    """Seconds between two decisions of a HorizontalPodAutoscaler."""
    UPKEEP_EVERY = 30.0
    """Seconds between two looks at processes where nothing happens; the real worker looks each 0.5 s."""

    def __init__(self, trace: Trace, policy: Policy, scaler: Scaler | None, pod: Pod, seed: int) -> None:
        self.trace, self.policy, self.scaler, self.pod = trace, policy, scaler, pod
        self.costs, self.habits = Costs(), Habits()
        self.now = 0.0
        self.outcome = Outcome()
        self.workers: list[Worker] = []
        self._random = random.Random(seed)
        self._people = random.Random(seed + 1)  # the same arrivals for each policy
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._queue: deque[Turn] = deque()
        self._next = 0  # which worker is served next
        self._unnoticed = 0  # pods of a lost node that Kubernetes still counts
        self._heard = Seen(0, 0, 0, 0)
        self._least, self._full = pod.limits(None), pod.limits(self.costs.process_mb)

    def run(self) -> Outcome:
        """Play it to its end."""
        for _ in range(self.trace.workers):
            self._serve(self._wish())
        self._after(0.0, self._arrive)
        for each, every in ((self._hear, self.HEARD_EVERY), (self._note, self.trace.every)):
            self._each(each, every)
        self._each(self._decide, self.DECIDES_EVERY)
        self._each(self._tick, self.UPKEEP_EVERY)
        for at, many in self.trace.lost:
            self._after(at, lambda many=many: self._lose(many))  # type: ignore[misc]
        while self._events and self._events[0][0] <= self.trace.seconds:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = self.trace.seconds
        for worker in self.workers:
            self._retire(worker)
        return self.outcome

    def _after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._count), event))

    def _each(self, event: Callable[[], None], every: float) -> None:
        def again() -> None:
            event()
            self._after(every, again)

        self._after(0.0, again)

    def _draw(self, span: Span) -> float:
        least, median, most = span
        return self._random.triangular(least, most, median)

    # -- people

    def _arrive(self) -> None:
        """The next session, thinned out of the highest rate."""
        people, trace = self._people, self.trace
        if people.random() * trace.most < trace.rate(self.now):
            more = math.log(1 - people.random()) / math.log(1 - 1 / self.habits.turns)
            habits = random.Random(people.getrandbits(32))
            self._send(Session(next(self._count), int(more) + 1, habits))
        self._after(people.expovariate(trace.most), self._arrive)

    def _send(self, session: Session) -> None:
        session.left -= 1
        self._queue.append(Turn(session, self.now, _lognormal(session, self.habits.length)))
        self._dispatch()

    # -- the queue

    def _dispatch(self) -> None:
        while self._queue and (worker := self._puller()) is not None:
            turn = self._queue.popleft()
            waited = self.now - turn.sent
            if waited > 0.05 and not turn.begun:
                self.outcome.queued += 1
                self.outcome.longest_wait = max(self.outcome.longest_wait, waited)
            self._place(worker, turn)

    def _puller(self) -> Worker | None:
        """The next of those that have room, in turn."""
        for step in range(len(self.workers)):
            worker = self.workers[(self._next + step) % len(self.workers)]
            if worker.serving and not worker.draining and self._room(worker):
                self._next = (self._next + step + 1) % len(self.workers)
                return worker
        return None

    def _room(self, worker: Worker) -> int:
        active = len(worker.running)
        load = policy.Load(active, worker.placing, len(worker.held) - active, self._left_mb(worker))
        return policy.room(load, self._limits(worker))

    def _limits(self, worker: Worker) -> policy.Limits:
        return self._least if worker.process_mb is None else self._full

    def _left_mb(self, worker: Worker) -> int:
        taken = (len(worker.held) + len(worker.spares)) * self.costs.process_mb
        return self.pod.memory_mb - self.costs.worker_mb - taken

    def _place(self, worker: Worker, turn: Turn) -> None:
        session, owner = turn.session, turn.session.owner
        lost = owner is not None and owner.gone <= self.now
        dead = owner is not None and owner.gone + DEAD_AFTER <= self.now
        if isinstance(place(session.owned, worker.id, owner_dead=dead), Claim):
            self._claim(worker, session)
            self._begin(worker, turn)
        elif lost and owner is not None:  # nobody answers there: asked again until it counts as dead
            worker.placing += 1
            self._after(owner.gone + DEAD_AFTER - self.now, lambda: self._placed(worker, turn))
        elif owner is not None:
            self.outcome.over += len(owner.running) >= self._limits(owner).turns
            self._begin(owner, turn)

    def _placed(self, worker: Worker, turn: Turn) -> None:
        worker.placing -= 1
        if worker.gone <= self.now or worker.draining:
            self._queue.appendleft(turn)
            self._dispatch()
        else:
            self._place(worker, turn)

    def _claim(self, worker: Worker, session: Session) -> None:
        if session.displaced:
            self.outcome.moved += 1
            session.displaced = False
        session.owner = worker
        session.owned = Owned(OwnerRecord(worker=worker.id, nonce=""), next(self._count))
        worker.sessions[session.key] = session

    # -- a turn

    def _begin(self, worker: Worker, turn: Turn) -> None:
        session = turn.session
        turn.begun = True
        worker.running[session.key] = turn
        own = policy.Own(None) if session.key in worker.held else None
        need = policy.Need(PROFILE, None, session.new)
        service = policy.serve(need, own, [spare.seen for spare in worker.spares.values()], CAN)
        tier = worker.held[session.key].tier if own else policy.Tier.WARM
        worker.held[session.key] = policy.Session(session.key, policy.Tier.WARM, self.now, True)
        self._provide(worker, turn, service, tier)
        session.new = False

    def _provide(self, worker: Worker, turn: Turn, service: policy.Service, tier: policy.Tier) -> None:
        new = turn.session.new
        if new and not isinstance(service, policy.Use):
            worker.arrivals.add(self.now)
        match service:
            case policy.Use():
                frozen = tier is policy.Tier.FROZEN
                self._answer(
                    worker,
                    turn,
                    "frozen" if frozen else "own",
                    self._draw(self.costs.frozen if frozen else self.costs.pinned),
                )
            case policy.Adopt(number):
                self._adopt(worker, turn, number)
            case policy.Spawn():
                how, span = ("spawned", self.costs.cold) if new else ("resumed", self.costs.parked)
                self._start(worker, lambda: self._answer(worker, turn, how, self._draw(span)))
        if new or len(worker.held) > self._limits(worker).sessions:
            self._look_soon(worker)

    def _adopt(self, worker: Worker, turn: Turn, number: int) -> None:
        spare = worker.spares.pop(number)
        worker.adopted_at = self.now
        self._unused(spare)
        wait = max(0.0, spare.ready - self.now)
        if math.isinf(spare.ready):  # it waits for its own start
            wait = self._draw(self.costs.start)
        self._answer(
            worker, turn, "adopted" if not wait else "adopted early", wait + self._draw(self.costs.adopted)
        )

    def _answer(self, worker: Worker, turn: Turn, how: str, seconds: float) -> None:
        """The first delta comes in so many seconds; then the rest."""
        self.outcome.how[how] = self.outcome.how.get(how, 0) + 1
        if not turn.seen:
            self._after(seconds, lambda: self._first(worker, turn))
        self._after(seconds + turn.length, lambda: self._end(worker, turn))

    def _first(self, worker: Worker, turn: Turn) -> None:
        if worker.gone > self.now and not turn.seen:
            turn.seen = True
            self.outcome.first.append((turn.sent, self.now - turn.sent))

    def _end(self, worker: Worker, turn: Turn) -> None:
        session = turn.session
        if worker.gone <= self.now or worker.running.get(session.key) is not turn:
            return
        del worker.running[session.key]
        worker.held[session.key] = policy.Session(session.key, policy.Tier.WARM, self.now, False)
        if session.left > 0:
            self._after(_lognormal(session, self.habits.thinking), lambda: self._send(session))
        if worker.draining:
            self._release(worker, session.key, displaced=True)
            if not worker.running:
                self._retire(worker)
        elif len(worker.held) > self._limits(worker).sessions:
            self._look_soon(worker)
        self._dispatch()

    def _release(self, worker: Worker, key: int, *, displaced: bool) -> None:
        session = worker.sessions.pop(key)
        worker.held.pop(key, None)
        session.owner = session.owned = None
        session.displaced = displaced

    # -- processes

    def _start(self, worker: Worker, started: Callable[[], None]) -> None:
        """When it is its turn; so many start at a time."""
        if worker.starting >= self._least.starting:
            worker.gate.append(started)
            return
        worker.starting += 1
        started()
        self._after(self._draw(self.costs.start), lambda: self._up(worker))

    def _up(self, worker: Worker) -> None:
        worker.starting -= 1
        if worker.process_mb is None:
            worker.process_mb = self.costs.process_mb
        if worker.gate:
            self._start(worker, worker.gate.popleft())
        self._look_soon(worker)

    def _spare(self, worker: Worker) -> None:
        number, since = next(self._count), self.now
        spare = worker.spares[number] = Spare(policy.Spare(number, PROFILE, since))

        def begin() -> None:
            took = self._draw(self.costs.start)
            spare.ready = self.now + took
            self._after(took, lambda: ready(spare.ready - since))

        def ready(took: float) -> None:
            spare.seen = replace(spare.seen, ready=True)
            share = SHARE if worker.spawn_seconds else 1.0
            worker.spawn_seconds += share * (took - worker.spawn_seconds)

        self._start(worker, begin)

    def _unused(self, spare: Spare) -> None:
        self.outcome.spare_seconds += self.now - spare.seen.since

    def _tick(self) -> None:
        for worker in self.workers:
            self._upkeep(worker)

    def _look_soon(self, worker: Worker) -> None:
        """At the worker's next look at its processes."""
        if not worker.looks:
            worker.looks = True
            self._after(policy.SETTLE + 0.25, lambda: self._looked(worker))

    def _looked(self, worker: Worker) -> None:
        worker.looks = False
        self._upkeep(worker)

    def _upkeep(self, worker: Worker) -> None:
        if not worker.serving or worker.draining or worker.gone <= self.now:
            return
        for work in policy.upkeep(self._view(worker), self._limits(worker)):
            match work:
                case policy.Park(key):
                    self._release(worker, key, displaced=False)
                case policy.Freeze(key):
                    worker.held[key] = replace(worker.held[key], tier=policy.Tier.FROZEN)
                case policy.KillSpare(number):
                    self._unused(worker.spares.pop(number))
                case policy.SpawnSpare():
                    self._spare(worker)

    def _view(self, worker: Worker) -> policy.View[int]:
        pod = self.pod
        rate = worker.arrivals.rate(self.now)
        wanted = policy.spares_for(rate, worker.spawn_seconds, pod.spares, pod.max_spares)
        return policy.View(
            self.now,
            list(worker.held.values()),
            [spare.seen for spare in worker.spares.values()],
            wanted={PROFILE: wanted},
            starting=worker.starting,
            adopted_at=worker.adopted_at,
            memory_left_mb=self._left_mb(worker),
        )

    # -- workers come and go

    def _wish(self) -> Worker:
        worker = Worker(f"w-{next(self._count)}", self.now)
        self.workers.append(worker)
        return worker

    def _serve(self, worker: Worker) -> None:
        if worker.gone > self.now:
            worker.serving = True
            self._upkeep(worker)
            self._dispatch()

    def _leave(self, worker: Worker) -> None:
        """Drain: idle sessions go at once, running turns end first."""
        if not worker.serving:
            self._retire(worker)
            return
        worker.draining = True
        for spare in worker.spares.values():
            self._unused(spare)
        worker.spares.clear()
        for key in [key for key, held in worker.held.items() if not held.in_flight]:
            self._release(worker, key, displaced=True)
        if not worker.running:
            self._retire(worker)
        self._after(self.pod.drain, lambda: self._die(worker))

    def _lose(self, many: int) -> None:
        for worker in [each for each in self.workers if each.serving and not each.draining][:many]:
            self._unnoticed += 1
            self._after(NOTICED + self.pod.tolerated, self._notice)
            self._die(worker)

    def _notice(self) -> None:
        self._unnoticed -= 1
        if self.scaler is None:
            self._grow(1)

    def _die(self, worker: Worker) -> None:
        """It is no more; what it ran is redelivered."""
        if worker.gone <= self.now:
            return
        running = list(worker.running.values())
        for key in list(worker.sessions):
            session = worker.sessions[key]
            session.displaced = True
        self._retire(worker)
        self.outcome.again += len(running)
        for turn in running:
            self._after(self.costs.redelivered, lambda turn=turn: self._redeliver(turn))  # type: ignore[misc]

    def _redeliver(self, turn: Turn) -> None:
        self._queue.appendleft(turn)
        self._dispatch()

    def _retire(self, worker: Worker) -> None:
        worker.gone = self.now
        self.outcome.worker_seconds += self.now - worker.wished
        for spare in worker.spares.values():
            self._unused(spare)
        self.workers = [each for each in self.workers if each is not worker]

    # -- the autoscaler

    def _hear(self) -> None:
        there = [worker for worker in self.workers if worker.serving]
        serving = [worker for worker in there if not worker.draining]
        running = sum(len(worker.running) for worker in there)
        free = sum(max(0, self.pod.turns - len(worker.running)) for worker in serving)
        self._heard = Seen(len(self._queue), running, free, len(serving))

    def _decide(self) -> None:
        pods = [worker for worker in self.workers if not worker.draining]
        replicas = len(pods) + self._unnoticed
        wanted = self.policy.wanted(self._heard, replicas)
        if self.scaler is not None:
            wanted = self.scaler.replicas(self.now, replicas, wanted)
            self._grow(wanted - replicas)
            for worker in sorted(pods, key=lambda each: (each.serving, -each.wished))[
                : max(0, replicas - wanted)
            ]:
                self._leave(worker)

    def _grow(self, many: int) -> None:
        for _ in range(many):
            worker = self._wish()
            self._after(self.pod.starts_in, lambda worker=worker: self._serve(worker))  # type: ignore[misc]

    def _note(self) -> None:
        running = sum(len(worker.running) for worker in self.workers)
        serving = sum(worker.serving and not worker.draining for worker in self.workers)
        self.outcome.load.append((self.now, running + len(self._queue)))
        self.outcome.slots.append((self.now, serving * self.pod.turns))


def _lognormal(session: Session, of: tuple[float, float]) -> float:
    return of[0] * math.exp(of[1] * session.habits.gauss(0, 1))
