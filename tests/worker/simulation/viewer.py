"""A viewer: the steps of ``feed``, with all that it was given."""

from __future__ import annotations

import contextlib
from collections import deque

from warmwire.broker.errors import NoResponder, Unavailable
from warmwire.broker.reading.reader import (
    ASK_AGAIN,
    Action,
    Ask,
    AskRecord,
    Ending,
    Item,
    Lost,
    Reader,
    Shown,
    View,
)
from warmwire.broker.wire import envelope as codec
from warmwire.broker.wire.envelope import END, Envelope, Position
from warmwire.broker.wire.messages import Finished, OwnerView, Replay, TurnRecord
from warmwire.worker.sessions.turnlog import TurnLog

from tests.worker.simulation.worker import Host, Worker
from tests.worker.simulation.world import Call, Question, Sleep, Steps, World


class Seen:
    """What a viewer was given; it fails at once where that is not what was promised."""

    def __init__(self) -> None:
        self.endings: dict[str, Envelope] = {}
        self.whole = True
        """Whether nothing was lost."""
        self._here = Position(0, 0)
        self._before: Item | None = None
        self._positions: set[Position] = set()
        self._logs: dict[str, TurnLog] = {}

    def text(self, turn: str) -> str:
        """The turn's text, put together from its events."""
        return self._logs[turn].answer()[0]

    def item(self, item: Item) -> None:
        """The next thing that it is given."""
        if isinstance(item, Envelope):
            self._event(item)
        else:
            self.whole = False
        if isinstance(item, Lost):
            begun_anew = item.after.seq in {0, END} and item.after > self._here
            assert begun_anew or item.after == self._here, f"{item} does not begin at {self._here}"
            self._here = item.until
        elif isinstance(item, Shown):
            self._here = max(self._here, item.at)
        self._before = item

    def _event(self, event: Envelope) -> None:
        assert event.position not in self._positions, f"{event} is shown twice"
        assert event.turn not in self.endings, f"{event} comes after the end of its turn"
        if not self._from_record(event):
            assert self._follows(event.position), f"from {self._here} to {event}: a hole"
        self._here = max(self._here, event.position)
        self._positions.add(event.position)
        self._logs.setdefault(event.turn, TurnLog(event.turn, 1, 1)).append(b'{"event":%b}' % event.event)
        if event.terminal:
            self.endings[event.turn] = event

    def _from_record(self, event: Envelope) -> bool:
        """Whether it is an end that keeps its old place: the whole text was shown before it."""
        return event.terminal and isinstance(self._before, Shown) and self._before.turn == event.turn

    def _follows(self, position: Position) -> bool:
        same = position == (self._here.epoch, self._here.seq + 1)
        return same or (position.epoch > self._here.epoch and position.seq == 1) or not self._positions


class Viewer:
    """Follows one session."""

    runs = True
    cut = False

    def __init__(self, world: World, session: str) -> None:
        self.world = world
        self.session = session
        self.reader = Reader(world.now)
        self.seen = Seen()
        self.expected: set[str] = set()
        self.channels: dict[Worker, deque[bytes]] = {}
        """What each worker has sent and has not arrived yet."""
        self.lossy = 0
        """Events that will not arrive."""
        self.repeating = 0
        """Events that will arrive twice."""
        self._looking_up: set[str] = set()
        world.viewers.append(self)
        self.act(self.reader.start(world.now))

    def expect(self, turn: str) -> None:
        """The turn is submitted by whoever watches here."""
        self.expected.add(turn)
        self.reader.expect(turn)

    def receive(self, data: bytes) -> None:
        """An event arrives, or not."""
        if self.lossy:
            self.lossy -= 1
            return
        times = 2 if self.repeating else 1
        self.repeating = max(0, self.repeating - 1)
        for _ in range(times):
            event, now = codec.decode(data), self.world.now
            self.act([event] if self.reader.passes(event, now) else self.reader.event(event, now))

    def tick(self) -> None:
        """Time has passed."""
        self.act(self.reader.tick(self.world.now))

    def reconnect(self) -> None:
        """The connection was gone: what was on its way is lost."""
        for channel in self.channels.values():
            channel.clear()
        self.act(self.reader.reconnected(self.world.now))

    def interrupt(self, turn: str) -> Steps:
        """As the edge does it: ask the owner; where none stops the turn, leave the interrupt for it."""
        try:
            stopped = yield Question(self.session, lambda host: _interrupt(host, turn))
        except Unavailable:
            stopped = None
        if stopped is None:
            with contextlib.suppress(Unavailable):  # whoever pressed the button is told so
                yield Call(lambda: self.world.server.ask_interrupt(self.session, turn))

    def act(self, actions: list[Action]) -> None:
        """Do what the reader says."""
        for action in actions:
            if isinstance(action, Ask):
                self.world.begin(self._ask(action), self)
            elif not isinstance(action, AskRecord):
                self.seen.item(action)
            elif action.turn not in self._looking_up:
                self._looking_up.add(action.turn)
                self.world.begin(self._look_up(action.turn), self)

    def _ask(self, question: Ask) -> Steps:
        after = question.after
        replay = Replay(epoch=after.epoch, seq=after.seq) if after else Replay()
        try:
            answer = yield Question(self.session, lambda host: host.session.view(replay))
        except NoResponder:
            yield from self._ask_owner_record(question.number)
        except Unavailable:
            self.act(self.reader.unanswered(question.number))
        else:
            self.act(self.reader.answered(question.number, _view(answer), self.world.now))

    def _ask_owner_record(self, number: int) -> Steps:
        try:
            owned = yield Call(lambda: self.world.server.owner(self.session))
        except Unavailable:
            self.act(self.reader.unanswered(number))
            return
        epoch = owned.sequence if owned else 0
        if owned is not None and owned.record.worker is not None:
            self.act(self.reader.unanswered(number, epoch))
        else:
            self.act(self.reader.vacant(number, epoch, self.world.now))

    def _look_up(self, turn: str) -> Steps:
        found = None
        while found is None:
            try:
                found = yield Call(lambda: self.world.server.turn(self.session, turn))
            except Unavailable:
                yield Sleep(self.world.now + ASK_AGAIN)
        self._looking_up.discard(turn)
        self.act(self.reader.recorded(turn, _ending(found[0]), self.world.now))


def _view(view: OwnerView) -> View:
    events = None if view.events is None else tuple(codec.decode(event.encode()) for event in view.events)
    snapshot = None if view.snapshot is None else view.snapshot.encode()
    return View(Position(view.epoch, view.seq), view.turn, events, snapshot)


def _ending(record: TurnRecord | None) -> Ending | None:
    if not isinstance(record, Finished):
        return None
    return Ending(codec.decode(record.envelope.encode()), b"a snapshot of the whole text")


def _interrupt(host: Host, turn: str) -> str | None:
    stopped, commands = host.session.interrupt(turn, host.world.now)
    host.run(commands)
    return stopped
