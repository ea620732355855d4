"""The reader against owners that die and a network that loses, repeats and mixes: nothing happens silently.

One world: a session whose turns are run by one owner after another, each with an epoch of its own. Messages
of one owner arrive in order, but late, twice or never; those of several owners in any order; answers late or
never.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from warmwire.broker.reading.reader import (
    ASK_AGAIN,
    REPAIR_WITHIN,
    SILENCE,
    Action,
    Ask,
    AskRecord,
    Lost,
    Reader,
    Shown,
    View,
)
from warmwire.broker.wire.envelope import Envelope, Position

from tests.broker.made import delta, ended, ending, started


@dataclass
class Owner:
    """One ownership, as a worker keeps it: the events of its running or last turn are its memory."""

    epoch: int
    seq: int = 0
    turn: str | None = None
    log: list[Envelope] = field(default_factory=list)

    def view(self, after: Position | None, *, forgets: bool) -> View:
        events = None if forgets else self._since(after)
        snapshot = b'{"type":"snapshot"}' if events is None and self.turn else None
        return View(Position(self.epoch, self.seq), self.turn, events, snapshot)

    def _since(self, after: Position | None) -> tuple[Envelope, ...] | None:
        if after is None:
            return None
        if after == (self.epoch, self.seq):
            return ()
        first = after.seq if after.epoch == self.epoch else 0
        if after.epoch > self.epoch or not self.log or self.log[0].seq > first + 1:
            return None
        return tuple(event for event in self.log if event.seq > first)


class Viewer:
    """Checks each thing that a viewer is given, at the moment it is given."""

    def __init__(self) -> None:
        self.here: Position | None = None
        self.closing: Position | None = None
        self.events: set[Position] = set()
        self.endings: list[str] = []
        self.turns: set[str] = set()

    def given(self, item: Action) -> None:
        if isinstance(item, Lost):
            assert item.after < item.until
            assert self.here is None or item.after in {self.here, (item.after.epoch, 0)}, (
                f"{item} not at {self.here}"
            )
            assert self.here is None or item.after >= self.here
            self.here = item.until
        elif isinstance(item, Shown):
            whole_turn = Position(item.at.epoch, item.at.seq + 1)
            self.closing = None if self.here is None or item.at <= self.here else whole_turn
        elif isinstance(item, Envelope):
            self._event(item)

    def _event(self, event: Envelope) -> None:
        assert event.position not in self.events, f"{event} twice"
        self.events.add(event.position)
        assert self.closing in {None, event.position}, f"{event} after a snapshot that silently skips"
        late_end = event.terminal and (self.closing or self.here is None or event.position <= self.here)
        self.closing = None
        if not late_end:
            assert self.here is None or follows(event.position, self.here), (
                f"{self.here} to {event}: a silent hole"
            )
            self.here = event.position
        if event.terminal:
            assert event.turn not in self.endings, f"{event.turn} ended twice"
            self.endings.append(event.turn)
        else:
            assert event.turn not in self.endings, f"{event} after its end"
            self.turns.add(event.turn)


def follows(position: Position, here: Position) -> bool:
    same = position.epoch == here.epoch and position.seq == here.seq + 1
    return same or (position.epoch > here.epoch and position.seq == 1)


class Session(RuleBasedStateMachine):
    """The world."""

    def __init__(self) -> None:
        super().__init__()
        self.failed = False
        self.now = 0.0
        self.reader = Reader(self.now)
        self.viewer = Viewer()
        self.owner: Owner | None = None
        self.gone: list[Owner] = []  # stopped, but may wake up
        self.released = True
        self.epoch = 0
        self.turns = 0
        self.queue: list[str] = []
        self.expected: set[str] = set()
        self.records: dict[str, Envelope] = {}
        self.network: dict[int, deque[Envelope]] = {}
        self.asked: list[Ask] = []
        self.answers: list[tuple[int, View | int | None]] = []  # a view, a vacancy's epoch, or no answer
        self.looking: set[str] = set()

    # -- the shell

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Ask):
                self.asked.append(action)
            elif isinstance(action, AskRecord):
                self.looking.add(action.turn)
            else:
                self.failed = True  # unless it returns
                self.viewer.given(action)
                self.failed = False

    def arrive(self, event: Envelope) -> None:
        passes = self.reader.passes(event, self.now)
        self.do([event] if passes else self.reader.event(event, self.now))

    @initialize()
    def start(self) -> None:
        self.do(self.reader.start(self.now))

    @rule(seconds=st.sampled_from([0.0, ASK_AGAIN, 1.0, REPAIR_WITHIN, SILENCE]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.reader.tick(self.now))

    @rule()
    def reconnect(self) -> None:
        self.do(self.reader.reconnected(self.now))

    # -- owners

    @rule(expected=st.booleans())
    def submit(self, expected: bool) -> None:
        self.turns += 1
        turn = f"t{self.turns}"
        self.queue.append(turn)
        if expected:
            self.expected.add(turn)
            self.reader.expect(turn)

    @precondition(lambda self: self.owner is None)
    @rule()
    def claim(self) -> None:
        self.epoch += 2
        self.owner = Owner(self.epoch)
        self.released = False
        while self.queue and self.queue[0] in self.records:
            self.send(self.records[self.queue.pop(0)])  # the last owner's ending, before any event of its own

    @precondition(lambda self: self.owner and not self.owner.turn and self.queue)
    @rule()
    def begin(self) -> None:
        assert self.owner
        self.owner.turn = self.queue[0]
        self.owner.log = []
        self.publish(self.owner, started)

    @precondition(lambda self: self.owner and self.owner.turn)
    @rule(times=st.integers(1, 4))
    def work(self, times: int) -> None:
        assert self.owner
        for _ in range(times):
            self.publish(self.owner, delta)

    @precondition(lambda self: self.owner and self.owner.turn)
    @rule(dies=st.booleans())
    def finish(self, dies: bool) -> None:
        owner = self.owner
        assert owner is not None
        assert owner.turn is not None
        self.records[owner.turn] = ended(owner.epoch, owner.seq + 1, owner.turn)
        if dies:
            self.die()
            return
        self.publish(owner, ended)
        self.queue.remove(owner.turn)
        owner.turn = None

    @precondition(lambda self: self.owner)
    @rule()
    def die(self) -> None:
        assert self.owner
        self.gone.append(self.owner)
        self.owner = None

    @precondition(lambda self: self.owner and not self.owner.turn)
    @rule()
    def release(self) -> None:
        self.epoch += 1  # of the tombstone
        self.owner, self.released = None, True

    @precondition(lambda self: self.zombies())
    @rule(data=st.data())
    def wake_up(self, data: st.DataObject) -> None:
        """One that has lost the session goes on for a moment; its records would be refused."""
        self.publish(data.draw(st.sampled_from(self.zombies())), delta)

    def zombies(self) -> list[Owner]:
        return [owner for owner in self.gone if owner.turn not in {None, *self.records}]

    def publish(self, owner: Owner, make: object) -> None:
        owner.seq += 1
        event = make(owner.epoch, owner.seq, owner.turn)  # type: ignore[operator]
        owner.log.append(event)
        self.network.setdefault(owner.epoch, deque()).append(event)

    def send(self, event: Envelope) -> None:
        """From the present owner, whatever epoch stands in it."""
        assert self.owner
        self.network.setdefault(self.owner.epoch, deque()).append(event)

    # -- the network

    @precondition(lambda self: any(self.network.values()))
    @rule(data=st.data(), fate=st.sampled_from(["arrives", "arrives", "arrives", "arrives twice", "is lost"]))
    def message(self, data: st.DataObject, fate: str) -> None:
        line = self.network[
            data.draw(st.sampled_from([epoch for epoch, line in self.network.items() if line]))
        ]
        event = line.popleft()
        for _ in range({"arrives": 1, "arrives twice": 2, "is lost": 0}[fate]):
            self.arrive(event)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), forgets=st.booleans(), zombie=st.booleans(), fails=st.booleans())
    def answer(self, data: st.DataObject, forgets: bool, zombie: bool, fails: bool) -> None:
        ask = self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1)))
        if fails:
            self.answers.append((ask.number, None))
        elif zombie and self.gone:
            self.answers.append((ask.number, self.gone[-1].view(ask.after, forgets=forgets)))
        else:
            self.answers.append((ask.number, self.answer_to(ask, forgets=forgets)))

    def answer_to(self, ask: Ask, *, forgets: bool = False) -> View | int | None:
        if self.owner:
            return self.owner.view(ask.after, forgets=forgets)
        return self.epoch if self.released else None

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def answer_arrives(self, data: st.DataObject) -> None:
        self.tell(*self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1))))

    def tell(self, number: int, answer: View | int | None) -> None:
        if isinstance(answer, View):
            self.do(self.reader.answered(number, answer, self.now))
        elif answer is None:
            self.do(self.reader.unanswered(number, 0 if self.released else self.epoch))
        else:
            self.do(self.reader.vacant(number, answer, self.now))

    @precondition(lambda self: self.looking)
    @rule(data=st.data())
    def record_arrives(self, data: st.DataObject) -> None:
        self.look_up(data.draw(st.sampled_from(sorted(self.looking))))

    def look_up(self, turn: str) -> None:
        self.looking.discard(turn)
        end = self.records.get(turn)
        how = None if end is None else ending(end.epoch, end.seq, turn)
        self.do(self.reader.recorded(turn, how, self.now))

    # -- what must hold

    @invariant()
    def what_is_held_is_bounded(self) -> None:
        assert len(self.reader._held) <= 1001

    def teardown(self) -> None:
        """The network heals, an owner comes and runs what waits: every turn seen or expected has ended."""
        if self.failed:
            return
        if self.owner is None:
            self.claim()
        assert self.owner
        if self.owner.turn:
            self.finish(dies=False)
        while self.queue:
            self.begin()
            self.finish(dies=False)
        for _ in range(int(3 * SILENCE / ASK_AGAIN)):
            self.heal()
            self.time_passes(ASK_AGAIN)
        self.heal()
        unended = (self.expected | self.viewer.turns) - set(self.viewer.endings)
        assert set() == unended, f"never ended for the viewer: {unended}"
        assert not self.reader._owes_snapshot
        assert not self.reader._held
        if self.viewer.here is not None and self.owner.seq:
            assert (self.owner.epoch, self.owner.seq) == self.reader.position

    def heal(self) -> None:
        while any(self.network.values()) or self.asked or self.answers or self.looking:
            for line in self.network.values():
                while line:
                    self.arrive(line.popleft())
            while self.asked:
                ask = self.asked.pop(0)
                self.tell(ask.number, self.answer_to(ask))
            while self.answers:
                self.tell(*self.answers.pop(0))
            while self.looking:
                self.look_up(min(self.looking))


TestSession = Session.TestCase
TestSession.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
