"""The reader of one session's events: each once, in order, no hole unnoticed. Pure: time is an argument.

What arrives is shown, held or dropped by its position ``(epoch, seq)``:

1. The first position never comes from an event: the owner is asked, or without one the records.
2. What is not newer than the position is dropped: repeated, or from an owner that has lost the session.
   If it ends an open turn, the turn's record is looked up.
3. The next sequence of the same epoch is shown; anything further is a hole: hold, and ask the owner.
4. Before the first event of a higher epoch the open turns that it does not go on with are looked up.
5. While a question is open at most ``HOLD_LIMIT`` events or ``REPAIR_WITHIN`` seconds are held. Then there is
   a ``Lost``, and a snapshot as soon as the owner answers; if the turn has ended before, its record's.
6. With an open turn and ``SILENCE`` seconds without an event the owner is asked; so it is after a reconnect.
7. Only the answer to the last question counts, but a record may come late: it still closes its turn.
8. If nobody answers and nothing comes, the open turns are looked up: their owner may have died since they
   ended, and nobody takes over a session in which nothing waits.

The shell (``feed.py``) asks what is returned, and reports what came of it through ``answered``, ``vacant``,
``unanswered`` and ``recorded``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from warmwire.broker.wire.envelope import END, Envelope, Position
from warmwire.broker.wire.events import TERMINAL

HOLD_LIMIT = 1000
"""Events held while a question is open."""
REPAIR_WITHIN = 2.0
"""Seconds that a repair may take."""
ASK_AGAIN = 0.25
"""Seconds between two askings of the same question."""
SILENCE = 10.0
"""Seconds without an event of an open turn after which the owner is asked."""
OPEN_LIMIT = 64
"""Turns of one session followed at a time; past it the oldest is no longer asked about."""

NOWHERE = Position(0, 0)
FAR = Position(END, END)


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the owner for what came after a position; with None, where it stands."""

    number: int
    after: Position | None


@dataclass(frozen=True, slots=True)
class AskRecord:
    """Look up how a turn ended, if it has."""

    turn: str


@dataclass(frozen=True, slots=True)
class Lost:
    """What came after one position, up to and including another, cannot be had any more."""

    after: Position
    until: Position


@dataclass(frozen=True, slots=True)
class Shown:
    """A snapshot of an open turn, which replaces its text so far; ``at`` is the position it holds for."""

    turn: str
    at: Position
    event: bytes


@dataclass(frozen=True, slots=True)
class View:
    """What an owner answered. ``events`` are all from after the asked position up to ``at``, or absent."""

    at: Position
    turn: str | None
    events: tuple[Envelope, ...] | None
    snapshot: bytes | None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a turn ended, from its record: the terminal event and a snapshot of the whole text."""

    terminal: Envelope
    snapshot: bytes

    @property
    def before(self) -> Position:
        """The position just before the terminal event."""
        return Position(self.terminal.epoch, self.terminal.seq - 1)


Item = Envelope | Lost | Shown
"""What a viewer is given."""
Action = Item | Ask | AskRecord


class Reader:
    """Follows one session. Every method returns what to do, in order."""

    __slots__ = (
        "_asked_after",
        "_closed",
        "_entering",
        "_held",
        "_horizon",
        "_moved_at",
        "_open",
        "_owes_snapshot",
        "_question",
        "_questions",
        "_records",
        "_seeking_since",
        "_snapshot",
        "_view",
        "_wanted",
        "position",
    )

    def __init__(self, now: float) -> None:
        self.position: Position | None = None
        self._open: dict[str, None] = {}
        self._closed: dict[str, None] = {}  # ended by their record; what comes of them later is not shown
        self._held: list[Envelope] = []
        self._seeking_since: float | None = None  # while set, events are held
        self._moved_at = now
        self._questions = 0
        self._question: int | None = None  # the number of the open one
        self._asked_after: Position | None = None
        self._records: set[str] = set()  # looked up before anything else is shown
        self._horizon = FAR  # an end that lies beyond it will come as an event
        self._view: View | None = None  # an answer that waits for them
        self._entering = 0  # the epoch for which they have been looked up
        self._owes_snapshot = False
        self._wanted: str | None = None  # the last turn whose end was taken from its record for that
        self._snapshot: View | None = None  # an answer that waits for its position

    # -- what the shell reports

    def start(self, now: float) -> list[Action]:
        """Subscribed: from now on nothing is missed silently."""
        return self._seek(now)

    def expect(self, turn: str) -> None:
        """The turn is being submitted: its end is waited for."""
        self._closed.pop(turn, None)
        _remember(self._open, turn)

    def passes(self, envelope: Envelope, now: float) -> bool:
        """Whether the event is to be shown as it is, with nothing else to do: so it is with nearly all."""
        here = self.position
        if (
            here is None
            or self._seeking_since is not None
            or self._snapshot is not None
            or envelope.seq != here.seq + 1
            or envelope.epoch != here.epoch
            or envelope.turn not in self._open
            or envelope.type in TERMINAL
        ):
            return False
        self.position = tuple.__new__(Position, envelope[:2])  # its property takes three times as long
        self._moved_at = now
        return True

    def event(self, envelope: Envelope, now: float) -> list[Action]:
        """An event has arrived that does not simply pass."""
        if self._stale(envelope):
            repeated_end = envelope.terminal and envelope.turn in self._open
            return [AskRecord(envelope.turn)] if repeated_end else []
        self._held.append(envelope)
        if self._seeking_since is None:
            return self._go_on(now)
        if len(self._held) > HOLD_LIMIT:
            return self._give_up(now)
        is_there_now = envelope.seq == 1 and self._question is None and not self._records
        return self._ask(self.position) if is_there_now else []

    def answered(self, number: int, view: View, now: float) -> list[Action]:
        """The owner has answered."""
        if number != self._question:
            return []
        self._question = None
        if self._seeking_since is None:
            self._snapshot = view if self._owes_snapshot else None
            return self._pay()
        if self.position is not None and view.at < self.position and not self._revives(view.at):
            return []  # an owner that has lost the session; the tick asks again
        self._view = None
        self._records.clear()  # of an earlier answer
        unclosed = self._unclosed_by(view)
        if unclosed and not self._continues(view):
            self._view = view
            return self._ask_records(unclosed, view.at)
        return [*self._apply(view, now), *self._go_on(now), *map(AskRecord, unclosed)]

    def vacant(self, number: int, epoch: int, now: float) -> list[Action]:
        """Nobody owns the session; ``epoch`` is that of the last ownership, 0 if there was none."""
        if number != self._question:
            return []
        self._question = None
        self.position = self.position or Position(epoch, END)
        return self._ask_records(self._open, FAR) if self._open else self._go_on(now)

    def unanswered(self, number: int, epoch: int = 0) -> list[Action]:
        """No answer in time; the tick asks again. ``epoch`` is that of an owner who is named but silent."""
        if number == self._question:
            self._question = None
            if epoch and self.position is None:
                self.position = Position(epoch, END)
        return []

    def recorded(self, turn: str, ending: Ending | None, now: float) -> list[Action]:
        """A turn's record was looked up; without an ending it goes on."""
        awaited = turn in self._records
        self._records.discard(turn)
        horizon = self._horizon if awaited else self.position or NOWHERE
        passed = ending is not None and turn in self._open and ending.terminal.position <= horizon
        actions = self._close(ending) if ending is not None and passed else []
        if not awaited or self._records or self._question is not None:
            return actions
        view, self._view = self._view, None
        return actions + (self._apply(view, now) if view else []) + self._go_on(now)

    def reconnected(self, now: float) -> list[Action]:
        """The connection was gone for a while."""
        self._seeking_since = None
        return self._seek(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed; call it every ``ASK_AGAIN`` seconds or so."""
        if self._seeking_since is not None:
            if now - self._seeking_since >= REPAIR_WITHIN:
                return self._give_up(now)
            return [] if self._question is not None or self._records else self._ask(self.position)
        if self._owes_snapshot and self._question is None:
            return self._ask(None)
        if self._open and now - self._moved_at >= SILENCE:
            self._moved_at = now
            return self._seek(now)
        return []

    # -- judging events

    def _stale(self, envelope: Envelope) -> bool:
        here = self.position
        return here is not None and envelope.position <= here and not self._revives(envelope.position)

    def _revives(self, position: Position) -> bool:
        """Whether it shows that an owner who was held gone lives after all."""
        return self.position == (position.epoch, END)

    def _go_on(self, now: float) -> list[Action]:
        """Show what is held, up to the next hole."""
        actions: list[Action] = []
        for number, envelope in enumerate(self._held):
            if self._stale(envelope):
                continue
            if not self._follows(envelope):
                del self._held[:number]
                return actions + self._seek(now)
            wanted = self._others(envelope) or self._incomplete(envelope)
            if wanted:
                return actions + self._hold_from(number, wanted, now)
            actions += self._deliver(envelope, now)
        self._held.clear()
        self._seeking_since = None
        return actions

    def _follows(self, envelope: Envelope) -> bool:
        here = self.position
        return here is not None and not self._revives(envelope.position) and _follows(envelope.position, here)

    def _others(self, envelope: Envelope) -> list[str]:
        """The open turns to close before the first event of a new epoch."""
        here = self.position
        if here is None or envelope.epoch in (here.epoch, self._entering):
            return []
        return [turn for turn in self._open if turn != envelope.turn]

    def _incomplete(self, envelope: Envelope) -> list[str]:
        """The turn that it ends, if part of that was lost: its record, which has all, is asked for once."""
        if not envelope.terminal or not self._owes_snapshot or self._wanted == envelope.turn:
            return []
        self._wanted = envelope.turn
        return [envelope.turn]

    def _hold_from(self, number: int, wanted: list[str], now: float) -> list[Action]:
        """Show no more of what is held until the records of these turns are there."""
        del self._held[:number]
        first = self._held[0].position
        self._entering = first.epoch
        self._seeking_since = now
        return self._ask_records(wanted, first)

    def _deliver(self, envelope: Envelope, now: float) -> list[Action]:
        self.position = envelope.position
        self._moved_at = now
        if envelope.turn in self._closed:
            return self._pay()
        if envelope.terminal:
            self._end(envelope.turn)
        elif envelope.turn not in self._open:
            self.expect(envelope.turn)
        return [envelope, *self._pay()] if self._snapshot else [envelope]

    def _end(self, turn: str) -> None:
        self._open.pop(turn, None)
        self._owes_snapshot = self._owes_snapshot and bool(self._open)

    # -- asking

    def _seek(self, now: float) -> list[Action]:
        """Hold events and ask at once; but the same question again only by the tick."""
        if self._seeking_since is not None and self._asked_after == self.position:
            return []
        self._seeking_since = now
        if self.position is not None and self._held and self._revives(self._held[0].position):
            self.position = None
        return self._ask(self.position)

    def _ask(self, after: Position | None) -> list[Action]:
        self._questions += 1
        self._question = self._questions
        self._asked_after = after
        return [Ask(self._questions, after)]

    def _ask_records(self, turns: Iterable[str], horizon: Position) -> list[Action]:
        wanted = list(turns)
        self._horizon = horizon
        self._records.update(wanted)
        return [AskRecord(turn) for turn in wanted]

    # -- answers

    def _unclosed_by(self, view: View) -> list[str]:
        """The open turns whose end, if they have ended, the view does not show."""
        ended = {event.turn for event in view.events or () if event.terminal}
        return [turn for turn in self._open if turn != view.turn and turn not in ended]

    def _continues(self, view: View) -> bool:
        """Whether nothing is missing up to it: then text waits for no record, which an election may delay."""
        here = self.position
        if here is None or here.epoch != view.at.epoch or self._revives(view.at):
            return False
        return whole(here, view) is not None

    def _apply(self, view: View, now: float) -> list[Action]:
        here = self.position
        if here is None or self._revives(view.at):
            self.position = view.at
            return self._show(view)
        newer = whole(here, view)
        if newer is None and view.at > here:
            self.position = view.at
            return [Lost(here, view.at), *self._show(view)]
        actions = [action for event in newer or () for action in self._deliver(event, now)]
        self.position = max(view.at, here)
        return actions

    def _show(self, view: View) -> list[Action]:
        if view.turn is None or view.turn in self._closed:
            return []
        self.expect(view.turn)
        self._owes_snapshot = False
        return [] if view.snapshot is None else [Shown(view.turn, view.at, view.snapshot)]

    def _close(self, ending: Ending) -> list[Action]:
        """End a turn from its record; with its whole text, unless only its end is missing."""
        here, end = self.position, ending.terminal
        shown: list[Action] = [Shown(end.turn, ending.before, ending.snapshot), end]
        incomplete = self._owes_snapshot
        self._end(end.turn)
        _remember(self._closed, end.turn)
        if here is not None and _follows(end.position, here):
            self.position = end.position
            return shown if incomplete else [end]
        actions: list[Action] = []
        if self._revives(end.position):
            self.position = end.position  # now it is known that its owner came that far
        elif here is not None and end.position > here:
            actions.append(Lost(here, ending.before))
            self.position = end.position
        return [*actions, *shown]

    def _give_up(self, now: float) -> list[Action]:
        """No answer in time: say what is lost and go on with what is there, an answer without records too."""
        self._question, self._seeking_since = None, None
        self._records.clear()
        view, self._view = self._view, None
        actions = self._apply(view, now) if view else []
        if not view and not self._held:
            actions += self._ask_records(self._open, FAR)
        for number, envelope in enumerate(self._held):
            if self._stale(envelope):
                continue
            actions += [AskRecord(turn) for turn in self._others(envelope)]
            actions += self._skip_to(envelope)
            if wanted := self._incomplete(envelope):
                return actions + self._hold_from(number, wanted, now)
            actions += self._deliver(envelope, now)
        self._held.clear()
        self.position = self.position or Position(0, END)
        return actions

    def _skip_to(self, envelope: Envelope) -> list[Action]:
        here = self.position
        if here is None or self._revives(envelope.position):
            here = Position(envelope.epoch, 0)
        if _follows(envelope.position, here):
            return []
        self._owes_snapshot = True
        self.position = Position(envelope.epoch, envelope.seq - 1)
        return [Lost(here, self.position)]

    def _pay(self) -> list[Action]:
        """The snapshot that is owed since a ``Lost``, once the position is the one that it holds for."""
        view, here = self._snapshot, self.position
        if view is None or here is None or here < view.at:
            return []
        self._snapshot = None
        if view.turn is None:
            self._owes_snapshot = False
        return self._show(view) if here == view.at else []


def _remember(turns: dict[str, None], turn: str) -> None:
    turns[turn] = None
    if len(turns) > OPEN_LIMIT:
        del turns[next(iter(turns))]


def _follows(position: Position, here: Position) -> bool:
    """Whether nothing lies between the two: the next sequence, or the first one of a higher epoch."""
    if position.epoch == here.epoch:
        return position.seq == here.seq + 1
    return position.epoch > here.epoch and position.seq == 1


def whole(here: Position, view: View) -> list[Envelope] | None:
    """The view's events after a position; None if one is missing."""
    newer = [event for event in view.events or () if event.position > here]
    for event in newer:
        if not _follows(event.position, here):
            return None
        here = event.position
    unbroken = here >= view.at or (view.at.epoch > here.epoch and view.at.seq == 0)
    return newer if unbroken else None
