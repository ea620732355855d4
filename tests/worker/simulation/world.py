"""The one clock, the network, and what could happen next."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from warmwire.broker.errors import Conflict, NoResponder, Unavailable
from warmwire.broker.liveness import HEARTBEAT_EVERY

from tests.worker.model import Server

if TYPE_CHECKING:
    from collections import deque

    from tests.worker.simulation.viewer import Viewer
    from tests.worker.simulation.worker import Host, Worker

STEP = 0.25
"""Seconds that pass at a time."""
ANSWER_WITHIN = 1.0
"""Seconds that whoever is asked may take."""
NEVER = 1e9

Steps = Generator[Any, Any, Any]
Happening = Callable[[], None]


@dataclass(eq=False)
class Call:
    """A request to the server: it arrives there, and later the answer comes back."""

    do: Callable[[], Any]
    over: bool = False
    result: Any = None
    error: Exception | None = None


@dataclass(eq=False)
class Question:
    """A core request to whoever is subscribed for a session; the first answer counts."""

    session: str
    ask: Callable[[Host], Any]
    until: float = NEVER
    sent: bool = False
    asked: list[Host] = field(default_factory=list)
    over: bool = False
    result: Any = None
    error: Exception | None = None


@dataclass(eq=False)
class Sleep:
    """Until a time, or until a condition holds."""

    until: float
    condition: Callable[[], bool] = lambda: False
    result: Any = None
    error: Exception | None = None


@dataclass(eq=False)
class Task:
    """Steps of somebody, and what they wait for."""

    steps: Steps
    whose: Worker | Viewer
    waits: Call | Question | Sleep = field(default_factory=lambda: Sleep(0))

    def resume(self, world: World) -> None:
        """Go on to the next wait."""
        try:
            if self.waits.error is not None:
                self.waits = self.steps.throw(self.waits.error)
            else:
                self.waits = self.steps.send(self.waits.result)
        except StopIteration:
            world.end(self)


class World:
    """Everything there is."""

    def __init__(self) -> None:
        self.server = Server()
        self.workers: list[Worker] = []
        self.viewers: list[Viewer] = []
        self.tasks: list[Task] = []
        self.orphans: list[Call] = []
        """Calls on their way whose caller waits no longer."""
        self.given: list[str] = []
        """The texts that were given to a CLI, in order."""
        self.answers_to_lose = 0
        self.starts_to_fail = 0

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self.server.now

    def begin(self, steps: Steps, whose: Worker | Viewer) -> Task:
        """Somebody sets out to do something; the first step is taken at once."""
        task = Task(steps, whose)
        self.tasks.append(task)
        task.resume(self)
        return task

    def end(self, *tasks: Task) -> None:
        """Nobody goes on with these; what they have sent arrives all the same."""
        waits = [task.waits for task in tasks if task in self.tasks]
        self.orphans += [call for call in waits if isinstance(call, Call) and not call.over]
        self.tasks = [task for task in self.tasks if task not in tasks]

    def advance(self) -> None:
        """``STEP`` seconds pass, and nothing else happens."""
        self.server.now += STEP
        for worker in self.workers:
            if worker.runs:
                worker.tick(beat=self.now % HEARTBEAT_EVERY == 0)
        for viewer in self.viewers:
            viewer.tick()

    # -- what could happen next

    def enabled(self) -> list[Happening]:
        """Every step that could be the next, in a stable order."""
        return [
            *self._of_requests(),
            *self._of_tasks(),
            *self._of_events(),
            *self._of_processes(),
            *self._of_server(),
        ]

    def _of_requests(self) -> Iterator[Happening]:
        for task in self.tasks:
            waits = task.waits
            if isinstance(waits, Call) and not waits.over:
                yield partial(self._arrive, task, waits)
            elif isinstance(waits, Question) and not waits.sent:
                yield partial(self._ask_around, task, waits)
            elif isinstance(waits, Question) and not waits.over:
                yield from (partial(self._ask, waits, host) for host in waits.asked if host.worker.runs)

    def _of_tasks(self) -> Iterator[Happening]:
        for task in self.tasks:
            if task.whose.runs and self._is_over(task.waits):
                yield partial(task.resume, self)

    def _of_events(self) -> Iterator[Happening]:
        for viewer in self.viewers:
            for worker, channel in viewer.channels.items():
                if channel and not worker.cut:
                    yield partial(_receive, viewer, channel)

    def _of_processes(self) -> Iterator[Happening]:
        for worker in self.workers:
            for host in worker.hosts.values() if worker.runs else ():
                if host.cli is not None and host.cli.output and not host.cli.stopped:
                    yield host.read_line

    def _of_server(self) -> Iterator[Happening]:
        yield from (partial(self._arrive_orphan, call) for call in self.orphans)
        if any(queued.acked for queued in self.server.queue.values()):
            yield self.server.settle
        due = next(self.server.due(), None)
        if due is not None:
            yield from (partial(worker.pulled, due) for worker in self.workers if worker.may_pull)

    # -- requests

    def _is_over(self, waits: Call | Question | Sleep) -> bool:
        if isinstance(waits, Sleep):
            return self.now >= waits.until or waits.condition()
        if isinstance(waits, Question) and not waits.over and self.now >= waits.until:
            waits.over, waits.error = True, Unavailable("no answer in time")
        return waits.over

    def _arrive(self, task: Task, call: Call) -> None:
        call.over = True
        if task.whose.cut:
            call.error = Unavailable("cut off")
            return
        try:
            call.result = call.do()
        except Conflict as error:
            call.error = error
        if self.answers_to_lose:
            self.answers_to_lose -= 1
            call.error = Unavailable("the answer was lost")

    def _arrive_orphan(self, call: Call) -> None:
        self.orphans.remove(call)
        with contextlib.suppress(Conflict):
            call.do()

    def _ask_around(self, task: Task, question: Question) -> None:
        question.sent, question.until = True, self.now + ANSWER_WITHIN
        question.asked = [host for host in self._subscribed() if host.name == question.session]
        if task.whose.cut or not question.asked:
            question.over = True
            question.error = Unavailable("cut off") if task.whose.cut else NoResponder("nobody")

    def _subscribed(self) -> Iterator[Host]:
        """Also those of a stopped process; its connection stands."""
        for worker in self.workers:
            if worker.alive and not worker.cut:
                yield from (host for host in worker.hosts.values() if host.subscribed)

    def _ask(self, question: Question, host: Host) -> None:
        question.asked.remove(host)
        if host.subscribed and host.worker.fence.open(self.now):
            result = question.ask(host)
            if not host.worker.cut and not question.over:
                question.over, question.result = True, result


def _receive(viewer: Viewer, channel: deque[bytes]) -> None:
    viewer.receive(channel.popleft())
