"""A worker process: the steps of ``app`` and ``host``."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from warmwire.broker.errors import Conflict, NoResponder, Unavailable
from warmwire.broker.liveness import Liveness
from warmwire.broker.wire.messages import Heartbeat, OwnerRecord, Started
from warmwire.broker.wire.names import SessionKey
from warmwire.worker import fence
from warmwire.worker.cli.claude_code import Claude
from warmwire.worker.errors import ErrorCode
from warmwire.worker.sessions import transcript
from warmwire.worker.sessions.ownership import Claim, lost, place
from warmwire.worker.sessions.session import Session
from warmwire.worker.sessions.turn import (
    Ack,
    AppendTranscript,
    Command,
    Ended,
    FindHead,
    Give,
    Held,
    KeepInterrupt,
    KillCli,
    NeedCli,
    Publish,
    PutRecord,
    ReadRecord,
    Rules,
    Stage,
    TerminateCli,
)

from tests.worker.model import Queued
from tests.worker.simulation.cli import Cli
from tests.worker.simulation.world import NEVER, STEP, Call, Question, Sleep, Steps, Task, World

STALL = 20.0
"""Seconds of silence after which a CLI is stopped."""
RELEASE_WITHIN = 5.0
"""Seconds in which a worker that leaves must have released a session."""
DRAIN_WITHIN = 4.0
"""Seconds that running turns may go on when their worker leaves."""
ROOM = 8
"""Messages that a worker places at a time."""


class Lost(Exception):
    """The session has another owner."""


class Host:
    """As ``warmwire.worker.sessions.host.Host``."""

    def __init__(self, worker: Worker, session: str, epoch: int, nonce: str) -> None:
        self.worker = worker
        self.world = worker.world
        self.server = worker.world.server
        self.name = session
        key = SessionKey("default", session)
        self.session = Session(key, worker.id, epoch, self.world.now, Rules(STALL), Claude())
        self.cli: Cli | None = None
        self.closing = False
        self.closed = False
        self.withheld: list[bytes] = []
        self._nonce = nonce
        self._stored: list[bytes] = []
        self._last = 0
        self._tasks: list[Task] = []

    # -- life

    @property
    def subscribed(self) -> bool:
        """Whether it hears what is addressed to the owner."""
        return not self.closing

    def open(self, *, had_record: bool) -> Steps:
        """Before the transcript is here it takes no message: a CLI would not know the conversation."""
        self._stored, self._last = yield from self._surely(partial(self.server.transcript, self.name))
        if had_record:
            yield from self._append(transcript.epoch_entry(self.session.epoch))

    def held(self) -> list[Held]:
        """What it answers for."""
        at_hand = [self.session.turn.held] if self.session.turn else []
        return [*at_hand, *self.session.waiting.values()]

    def close(self, within: float = NEVER) -> Steps:
        """Give the session up; the process goes first, so that the turn may begin elsewhere at once."""
        self.session.draining = True
        unfinished = self.held()
        self._stop_work()
        record = OwnerRecord(nonce=self._nonce)
        release = partial(self.server.write_owner, self.name, record, self.session.epoch)
        try:
            yield from self._surely(release, within)
        except (Lost, Unavailable):
            unfinished = []
        for held in unfinished:
            yield from _give_back(self.world, held)
        self.closed = True

    def abandon(self) -> None:
        """Somebody else has the session."""
        self._stop_work()
        self.withheld.clear()
        self.closed = True

    def _stop_work(self) -> None:
        self.closing = True
        self.cli = None
        self.world.end(*self._tasks)
        self._tasks.clear()

    # -- carrying out commands

    def run(self, commands: Iterable[Command]) -> None:
        """In order; what is answered goes its own way."""
        for command in commands:
            match command:
                case Publish(data):
                    self.publish(data)
                case Give(line):
                    self._give(line)
                case KillCli() | TerminateCli():
                    self.cli = None
                case Ended():
                    pass
                case KeepInterrupt(turn):
                    self._begin(self._surely(partial(self.server.ask_interrupt, self.name, turn)))
                case _:
                    self._begin(self._answer(command))

    def publish(self, data: bytes) -> None:
        """To every viewer; behind the fence it is withheld."""
        if not self.worker.fence.open(self.world.now):
            self.withheld.append(data)
            return
        for viewer in self.world.viewers:
            if viewer.session == self.name:
                viewer.channels.setdefault(self.worker, deque()).append(data)

    def read_line(self) -> None:
        """The CLI has printed something."""
        assert self.cli is not None
        line = self.cli.read()
        if line is None:
            self.cli = None
            self.run(self.session.cli_failed(ErrorCode.CLI_CRASHED, self.world.now))
        else:
            self.run(self.session.line(line, self.world.now))

    def _give(self, line: bytes) -> None:
        if self.cli is not None:
            told = json.loads(line)
            if told["type"] == "user":
                self.world.given.append(told["message"]["content"])
            self.cli.write(line)

    def _begin(self, steps: Steps) -> None:
        self._tasks.append(self.world.begin(steps, self.worker))

    def _answer(self, command: Command) -> Steps:
        try:
            commands = yield from self._carry_out(command)
        except Lost:
            self.abandon()
        else:
            self.run(commands)

    def _carry_out(self, command: Command) -> Steps:
        session, server, name = self.session, self.server, self.name
        match command:
            case FindHead(after):
                head = yield from self._surely(partial(server.head, name, after))
                yield from self.check_ownership()
                return session.head(head, self.world.now)
            case ReadRecord(turn):
                record, interrupted = yield from self._surely(partial(server.turn, name, turn))
                answered = transcript.answered(self._stored, turn) if isinstance(record, Started) else None
                return session.record(record, interrupted, self.world.now, answered)
            case PutRecord(turn, record, _):
                yield from self._surely(partial(server.put_turn, name, turn, record))
                return session.stored(self.world.now)
            case AppendTranscript(entries):
                for part in transcript.appends(entries):
                    yield from self._append(part)
                return session.appended()
            case NeedCli():
                return (yield from self._need_cli())
        assert isinstance(command, Ack)
        yield from self._surely(partial(server.ack, command.held.sequence))
        return session.acked(self.world.now)

    def _need_cli(self) -> Steps:
        yield Sleep(self.world.now)  # it takes a moment
        if self.cli is None and self.world.starts_to_fail:
            self.world.starts_to_fail -= 1
            return self.session.cli_failed(ErrorCode.CLI_START_FAILED, self.world.now)
        self.cli = self.cli or Cli(transcript.conversation(self._stored))
        return self.session.cli_ready(self.world.now)

    def _surely(self, do: Callable[[], Any], within: float = NEVER) -> Steps:
        until = self.world.now + within
        while True:
            try:
                return (yield Call(do))
            except Unavailable:
                if self.world.now >= until:
                    raise
            except Conflict:
                yield from self.check_ownership()
            yield Sleep(self.world.now + STEP)

    def check_ownership(self) -> Steps:
        """Only a record that names somebody else means that the session is lost."""
        try:
            owned = yield Call(partial(self.server.owner, self.name))
        except Unavailable:
            return False
        if lost(owned, self.session.epoch):
            raise Lost
        return True

    def _append(self, entries: bytes) -> Steps:
        while True:
            try:
                self._last = yield Call(partial(self.server.append, self.name, entries, self._last))
                break
            except Unavailable:
                yield Sleep(self.world.now + STEP)
            except Conflict:
                yield from self.check_ownership()
                read = partial(self.server.transcript, self.name)
                self._stored, self._last = yield from self._surely(read)
                if transcript.epoch(self._stored) > self.session.epoch:
                    raise Lost from None  # with what has just been read, the append would be taken
        self._stored.append(entries)


class Worker:
    """As ``warmwire.worker.app.Worker``, with the fence."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.id = f"w{len(world.workers) + 1}"
        self.hosts: dict[str, Host] = {}
        self.fence = fence.Fence(world.now)
        self.alive = True
        self.paused = False
        self.cut = False
        self.mute = False
        """Its heartbeats reach nobody."""
        self.draining = False
        self._placing: dict[int, Held] = {}
        self._opening: set[str] = set()
        self._claims = 0
        self._liveness = Liveness(world.now)
        self._inbox: list[tuple[str, float]] = []  # heartbeats not read yet: whose, and when it was sent
        world.workers.append(self)

    @property
    def runs(self) -> bool:
        """Whether the process takes any step."""
        return self.alive and not self.paused

    @property
    def may_pull(self) -> bool:
        """Whether a pull request of its is open."""
        wants = self.runs and not self.draining and len(self._placing) < ROOM
        return wants and not self.cut and self.fence.open(self.world.now)

    # -- messages

    def pulled(self, queued: Queued) -> None:
        """A message was delivered here."""
        held = Held(queued.message, queued.sequence, "", self.world.server.deliver(queued))
        self._placing[held.sequence] = held
        self.world.begin(self._take(queued.session, held), self)

    def _take(self, session: str, held: Held) -> Steps:
        try:
            yield from self._place(session, held)
        finally:
            self._placing.pop(held.sequence, None)

    def _place(self, session: str, held: Held) -> Steps:
        while not self.draining:
            try:
                yield Sleep(NEVER, lambda: self.fence.open(self.world.now))
                host = yield from self._host(session, held)
                if host is None:
                    return
                if not host.closing:
                    host.run(host.session.offer(held))
                    return
                yield Sleep(NEVER, lambda host=host: host.closed)  # type: ignore[misc]  # mypy on the default
            except (Conflict, Unavailable, Lost):
                yield Sleep(self.world.now + STEP)
        yield from _give_back(self.world, held)

    def _host(self, session: str, held: Held) -> Steps:
        """The session's host here; None when its owner has taken the message."""
        while session in self._opening:
            yield Sleep(NEVER, lambda: session not in self._opening)
        host = self.hosts.get(session)
        if host is not None and not host.closed:
            return host
        self._opening.add(session)
        try:
            return (yield from self._claim_or_forward(session, held))
        finally:
            self._opening.remove(session)

    def _claim_or_forward(self, session: str, held: Held) -> Steps:
        owned = yield Call(partial(self.world.server.owner, session))
        holder = owned.record.worker if owned else None
        judges = self.fence.open(self.world.now)
        dead = holder is not None and judges and self._liveness.dead(holder, self.world.now)
        decision = place(owned, self.id, owner_dead=dead)
        if isinstance(decision, Claim):
            return (yield from self._claim(session, decision.expected, had_record=owned is not None))
        if not (yield Question(session, lambda host: _forward(host, held))):
            raise NoResponder("the owner is leaving")
        return None

    def _claim(self, session: str, expected: int, *, had_record: bool) -> Steps:
        self._claims += 1
        record = OwnerRecord(worker=self.id, nonce=f"{self.id}-{self._claims}")
        epoch = yield Call(partial(self.world.server.write_owner, session, record, expected))
        host = Host(self, session, epoch, record.nonce)
        try:
            yield from host.open(had_record=had_record)
        except (Lost, Unavailable):
            host.abandon()
            raise
        self.hosts[session] = host
        return host

    # -- time

    def tick(self, *, beat: bool) -> None:
        """Time has passed; every other time a heartbeat is due."""
        now = self.world.now
        inbox, self._inbox = self._inbox, []
        for name, sent_at in inbox:
            self._hear(name, sent_at)
        if beat:
            self._beat()
        self._obey(self.fence.tick(now))
        for name, host in list(self.hosts.items()):
            if host.closed:
                del self.hosts[name]
            elif self.fence.open(now):
                host.run(host.session.tick(now))
        if self.fence.open(now) and not self.cut and now % 1 == 0:
            self._keep_held()

    def _keep_held(self) -> None:
        held = [*self._placing.values(), *(held for host in self.hosts.values() for held in host.held())]
        for message in held:
            self.world.server.progress(message.sequence)

    # -- heartbeats and the fence

    def _beat(self) -> None:
        if self.mute or self.cut:
            return
        for worker in self.world.workers:
            if worker is self:
                self._hear(self.id, self.world.now)
            elif worker.alive and not worker.cut:
                worker._inbox.append((self.id, self.world.now))

    def _hear(self, name: str, sent_at: float) -> None:
        beat = Heartbeat(worker=name, version="", free=0, running=0, sessions=0)
        self._liveness.heard(beat, self.world.now)
        if name == self.id:
            self._obey(self.fence.heard(sent_at, self.world.now))

    def _obey(self, commands: Iterable[fence.Command]) -> None:
        for command in commands:
            match command:
                case fence.Freeze():
                    self._stop_clis(stopped=True)
                case fence.ReadOwners(number):
                    self.world.begin(self._read_owners(number), self)
                case fence.Thaw():
                    self._thaw()

    def _read_owners(self, number: int) -> Steps:
        for host in list(self.hosts.values()):
            try:
                while not host.closed and not (yield from host.check_ownership()):
                    yield Sleep(self.world.now + STEP)
            except Lost:
                host.abandon()
        self._obey(self.fence.read(number, self.world.now))

    def _thaw(self) -> None:
        self._liveness.reconnected(self.world.now)
        self._stop_clis(stopped=False)
        for host in self.hosts.values():
            host.session.thawed(self.world.now)
            withheld, host.withheld = host.withheld, []
            for data in withheld:
                host.publish(data)

    def _stop_clis(self, *, stopped: bool) -> None:
        for host in self.hosts.values():
            if host.cli is not None:
                host.cli.stopped = stopped

    # -- the end

    def drain(self) -> Steps:
        """Leave without losing anything."""
        self.draining = True
        for host in self.hosts.values():
            host.session.draining = True
        until = self.world.now + DRAIN_WITHIN
        while self.hosts and self.world.now < until:
            idle = [host for host in self.hosts.values() if host.session.stage is Stage.IDLE]
            yield from self._release(idle, RELEASE_WITHIN)
            yield Sleep(self.world.now + STEP)
        yield from self._release(list(self.hosts.values()), RELEASE_WITHIN)
        self.die()

    def park(self) -> Steps:
        """Let go of what is idle, as for want of room."""
        yield from self._release([host for host in self.hosts.values() if not host.held()])

    def _release(self, hosts: Iterable[Host], within: float = NEVER) -> Steps:
        for host in hosts:
            if not host.closing:
                yield from host.close(within)
            if host.closed and self.hosts.get(host.name) is host:
                del self.hosts[host.name]

    def die(self) -> None:
        """The process is gone, and its CLIs with it; what it has sent is on its way."""
        self.alive = False
        self.hosts.clear()
        self.world.end(*[task for task in self.world.tasks if task.whose is self])


def _give_back(world: World, held: Held) -> Steps:
    with contextlib.suppress(Unavailable):  # then it is delivered again a little later
        yield Call(partial(world.server.give_back, held.sequence))


def _forward(host: Host, held: Held) -> bool:
    if host.closing:
        return False
    host.run(host.session.offer(held))
    return True
