"""Several workers, a queue that delivers again, and viewers, through everything that can go wrong.

However the steps fall, once the system heals each accepted message has exactly one visible end. A failure
prints the steps. ``tests/worker/model.py`` says what the records are, ``tests/worker/simulation`` who takes
the steps.

    WARMWIRE_SIMULATIONS=20000 pytest --timeout 0 tests/worker/test_simulation.py     for a long run
"""

from __future__ import annotations

import json
import os
from collections import Counter
from random import Random
from typing import Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from warmwire.broker.nats.streams import QUEUED_PER_SESSION
from warmwire.broker.wire import envelope
from warmwire.broker.wire.messages import TurnOptions, UserMessage
from warmwire.worker.sessions import transcript
from warmwire.worker.sessions.turn import ATTEMPTS

from tests.worker.model import Queued
from tests.worker.simulation.viewer import Viewer
from tests.worker.simulation.worker import STALL, Worker
from tests.worker.simulation.world import World

SESSIONS = ("a", "b")
KINDS = ("plain", "plain", "plain", "retry", "piece", "error", "crash", "hang")
FAULTS = ("answers lost", "acks lost", "events lost", "events repeated", "line lost", "starts fail")
WORKERS = 4
"""Alive at a time, at most."""
VIEWERS = 5
"""At a time, at most."""
HEALED_WITHIN = 20 * STALL
"""Seconds that a healed system may need for all that waits: each turn may hang until its stall."""

sessions = st.sampled_from(SESSIONS)
numbers = st.integers(0, 100)
seeds = st.integers(0, 1000)


class Simulation(RuleBasedStateMachine):
    """One run."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.server = self.world.server
        self.interrupted: set[str] = set()
        self.watchers = {session: Viewer(self.world, session) for session in SESSIONS}

    @initialize(workers=st.integers(1, 3), messages=st.lists(sessions, max_size=4))
    def start(self, workers: int, messages: list[str]) -> None:
        for _ in range(workers):
            Worker(self.world)
        for session in messages:
            self.submit(session=session, kind="plain", loss="retry", expected=True)

    # -- what goes on

    @precondition(lambda self: len(self.server.queue) < QUEUED_PER_SESSION)
    @rule(
        session=sessions,
        kind=st.sampled_from(KINDS),
        loss=st.sampled_from(["retry", "retry", "fail"]),
        expected=st.booleans(),
    )
    def submit(self, session: str, kind: str, loss: Literal["retry", "fail"], expected: bool) -> None:
        number = len(self.server.accepted) + 1
        message = UserMessage(
            turn=f"t{number}",
            content=f"{kind}-{number}",
            options=TurnOptions(on_worker_loss=loss),
            sent_ms=0,
        )
        if expected:
            self.watchers[session].expect(message.turn)
        self.server.submit(session, message)

    @rule(steps=st.integers(1, 200), seed=seeds)
    def work_goes_on(self, steps: int, seed: int) -> None:
        self.some_is_done(steps, Random(seed))

    @rule(ticks=st.integers(1, 20), steps=st.integers(0, 40), seed=seeds)
    def time_passes(self, ticks: int, steps: int, seed: int) -> None:
        random = Random(seed)
        for _ in range(ticks):
            self.world.advance()
            self.some_is_done(random.randint(0, steps), random)

    def some_is_done(self, steps: int, random: Random) -> None:
        """So many things that can happen do, in any order."""
        for _ in range(steps):
            enabled = self.world.enabled()
            if enabled:
                random.choice(enabled)()

    # -- what comes and goes, and what goes wrong

    @precondition(lambda self: self.alive())
    @rule(choice=numbers, what=st.sampled_from(["killed", "stopped", "cut off", "mute", "drained", "parked"]))
    def worker_is(self, what: str, choice: int) -> None:
        """The second, third and fourth end when they come again."""
        worker = self.alive()[choice % len(self.alive())]
        if what == "killed":
            worker.die()
        elif what == "stopped":
            worker.paused = not worker.paused
        elif what == "cut off":
            worker.cut = not worker.cut
        elif what == "mute":
            worker.mute = not worker.mute
        elif worker.runs and not worker.draining:
            self.world.begin(worker.drain() if what == "drained" else worker.park(), worker)
        if len(self.alive()) < WORKERS:
            Worker(self.world)

    @rule(what=st.sampled_from(FAULTS), session=sessions, times=st.integers(1, 6))
    def fault(self, what: str, session: str, times: int) -> None:
        viewer = self.watchers[session]
        if what == "starts fail":
            self.world.starts_to_fail = times
        elif what == "answers lost":
            self.world.answers_to_lose = times
        elif what == "acks lost":
            self.server.forget_acks()
        elif what == "events lost":
            viewer.lossy = times
        elif what == "events repeated":
            viewer.repeating = times
        else:
            viewer.reconnect()

    @rule(what=st.sampled_from(["joins", "interrupts"]), session=sessions, choice=numbers)
    def viewer(self, what: str, session: str, choice: int) -> None:
        sent = self.of(session)
        if what == "joins" and len(self.world.viewers) < VIEWERS:
            Viewer(self.world, session)
        elif what == "interrupts" and sent:
            turn = sent[choice % len(sent)].message.turn
            self.interrupted.add(turn)
            self.world.begin(self.watchers[session].interrupt(turn), self.watchers[session])

    # -- what must be so in the end

    def teardown(self) -> None:
        self.heal()
        self.check_ends()
        self.check_viewers()
        for session in SESSIONS:
            self.check_memory(session)

    def heal(self) -> None:
        """Everything works again; whatever waits is to be done."""
        self.world.answers_to_lose = self.world.starts_to_fail = 0
        for viewer in self.world.viewers:
            viewer.lossy = 0
        for worker in self.alive():
            worker.paused = worker.cut = worker.mute = False
        Worker(self.world)
        until = self.world.now + HEALED_WITHIN
        while not self.quiet():
            assert self.world.now < until, f"it does not heal: {self.waiting()}"
            self.world.advance()
            self.all_is_done_that_can_be()

    def all_is_done_that_can_be(self) -> None:
        for _ in range(10_000):
            enabled = self.world.enabled()
            if not enabled:
                return
            enabled[0]()
        raise AssertionError("it never comes to rest")

    def quiet(self) -> bool:
        """Whether nothing waits any more."""
        self.all_is_done_that_can_be()
        return not self.waiting()

    def waiting(self) -> list[str]:
        """The messages and turns whose end somebody still waits for."""
        queued = [f"{queued.message.turn} in the queue" for queued in self.server.queue.values()]
        return queued + [
            f"{turn} seen by nobody's end"
            for viewer in self.world.viewers
            for turn in viewer.expected - set(viewer.seen.endings)
        ]

    def check_ends(self) -> None:
        """Each turn has one end, in the order of the queue; and is not tried more often than it may be."""
        for session in SESSIONS:
            accepted = [queued.message.turn for queued in self.of(session)]
            ended = [turn_of(record.envelope) for where, record in self.server.finished if where == session]
            assert accepted == ended
        given = Counter(self.world.given)
        for queued in self.server.accepted:
            fails = queued.message.options.on_worker_loss == "fail"
            assert given[str(queued.message.content)] <= (1 if fails else ATTEMPTS)
        for _, record in self.server.finished:
            if type_of(record.envelope) == "turn_interrupted":
                assert turn_of(record.envelope) in self.interrupted

    def check_viewers(self) -> None:
        """Whoever waited for a turn was shown its end as stored; and its text, where nothing was lost."""
        ends = {turn_of(record.envelope): record for _, record in self.server.finished}
        for viewer in self.world.viewers:
            assert viewer.expected <= set(viewer.seen.endings)
            for turn, shown in viewer.seen.endings.items():
                assert shown == envelope.decode(ends[turn].envelope.encode())
                if shown.type == "turn_completed" and viewer.seen.whole and turn in viewer.expected:
                    assert viewer.seen.text(turn) == ends[turn].text

    def check_memory(self, session: str) -> None:
        """Each answered message is in the conversation once; each answer knew all that came before it."""
        stored, _ = self.server.transcript(session)
        entries = [json.loads(line) for line in transcript.conversation(stored).splitlines()]
        told = [entry["message"]["content"] for entry in entries if entry["type"] == "user"]
        assert len(told) == len(set(told))
        texts = {queued.message.turn: str(queued.message.content) for queued in self.of(session)}
        for where, record in self.server.finished:
            if where == session and type_of(record.envelope) == "turn_completed":
                text = texts[turn_of(record.envelope)]
                assert ["told", *told[: told.index(text)]] == record.text.split()

    # -- who is who

    def alive(self) -> list[Worker]:
        return [worker for worker in self.world.workers if worker.alive]

    def of(self, session: str) -> list[Queued]:
        return [queued for queued in self.server.accepted if queued.session == session]


def turn_of(stored: str) -> str:
    return envelope.decode(stored.encode()).turn


def type_of(stored: str) -> str:
    return envelope.decode(stored.encode()).type


Simulation.TestCase.settings = settings(
    max_examples=int(os.environ.get("WARMWIRE_SIMULATIONS", "80")),
    stateful_step_count=60,
    derandomize="WARMWIRE_SIMULATIONS" not in os.environ,  # the short run is the same each time
    deadline=None,
    suppress_health_check=(  # not all of them: of what is deprecated it warns, and warnings are errors
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.large_base_example,
        HealthCheck.too_slow,
    ),
)
TestSimulation = pytest.mark.timeout(900)(pytest.mark.slow(Simulation.TestCase))
