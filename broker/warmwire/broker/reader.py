"""The reader of one session's events: each event once, in order, no hole unnoticed. Pure: time is an argument.

What arrives is shown, held or dropped by its position ``(epoch, seq)``:

1. The first position never comes from an event: the owner is asked, or without one the records.
2. What is not newer than the position is dropped: repeated, or from an owner that has lost the session.
3. The next sequence of the same epoch is delivered; anything further is a hole: hold, and ask the owner.
4. A higher epoch first closes the open turns that it does not go on with, from their records.
5. While a question is open at most ``HOLD_LIMIT`` events or ``REPAIR_WITHIN`` seconds are held, then there is a ``Lost``.
6. With an open turn and ``SILENCE`` seconds without an event the owner is asked; so it is after a reconnect.

The shell (``feed.py``) asks what is returned, and reports answers through ``answered``, ``vacant``, ``unanswered``
and ``recorded``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from warmwire.broker.envelope import END, Envelope, Position

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


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the owner for what came after a position; with None, where it stands."""

    after: Position | None


@dataclass(frozen=True, slots=True)
class AskRecord:
    """Look up how a turn ended, if it has."""

    turn: str


@dataclass(frozen=True, slots=True)
class Lost:
    """What lies between two positions cannot be had any more."""

    after: Position
    until: Position


@dataclass(frozen=True, slots=True)
class Shown:
    """A snapshot of the open turn, which replaces its text so far; ``at`` is the position that it holds for."""

    turn: str
    at: Position
    event: bytes


@dataclass(frozen=True, slots=True)
class View:
    """What an owner answered. ``events`` are whole from just after the asked position up to ``at``, or absent."""

    at: Position
    turn: str | None
    events: tuple[Envelope, ...] | None
    snapshot: bytes | None


Item = Envelope | Lost | Shown
"""What a viewer is given."""
Action = Item | Ask | AskRecord


class Reader:
    """Follows one session. Every method returns what to do, in order."""

    def __init__(self, now: float) -> None:
        self.position: Position | None = None
        self._open: dict[str, None] = {}
        self._held: list[Envelope] = []
        self._view: View | None = None
        self._records: set[str] = set()
        self._asking = False
        self._seeking_since: float | None = now
        self._moved_at = now

    # -- what the shell reports

    def start(self, now: float) -> list[Action]:
        """Subscribed: from now on nothing is missed silently."""
        return self._ask(now)

    def expect(self, turn: str) -> None:
        """The turn is being submitted: its end is waited for."""
        self._open[turn] = None
        if len(self._open) > OPEN_LIMIT:
            del self._open[next(iter(self._open))]

    def event(self, envelope: Envelope, now: float) -> list[Action]:
        """An event has arrived."""
        self._moved_at = now
        if self._seeking_since is not None:
            return self._hold(envelope, now)
        return self._judge(envelope, now)

    def answered(self, view: View, now: float) -> list[Action]:
        """The owner has answered."""
        self._asking = False
        self._moved_at = now
        if self.position is not None and view.at < self.position:
            return []  # an owner that has lost the session; the tick asks again
        missing = self._unclosed_by(view)
        if missing:
            self._view = view
            return self._ask_records(missing)
        return self._apply(view) + self._settle(now)

    def vacant(self, epoch: int, now: float) -> list[Action]:
        """Nobody owns the session; ``epoch`` is that of the last ownership, 0 if there was none."""
        self._asking = False
        if self.position is None:
            self.position = Position(epoch, END)
        return self._close_unseen(now)

    def unanswered(self) -> None:
        """The question met nobody, or no answer in time; the tick asks again."""
        self._asking = False

    def recorded(self, turn: str, terminal: Envelope | None, now: float) -> list[Action]:
        """A turn's record was looked up; ``terminal`` is how it ended."""
        actions: list[Action] = []
        self._records.discard(turn)
        if terminal is not None and turn in self._open:
            actions += self._deliver(terminal, max(self.position or terminal.position, terminal.position))
        if self._records:
            return actions
        view, self._view = self._view, None
        return actions + (self._apply(view) if view else []) + self._settle(now)

    def reconnected(self, now: float) -> list[Action]:
        """The connection was gone for a while."""
        return self._seek(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed; call it every ``ASK_AGAIN`` seconds or so."""
        if self._seeking_since is None:
            silent = bool(self._open) and now - self._moved_at >= SILENCE
            return self._seek(now) if silent else []
        if now - self._seeking_since >= REPAIR_WITHIN:
            return self._give_up(now)
        return [] if self._asking or self._records else self._ask(now)

    # -- judging events

    def _judge(self, envelope: Envelope, now: float) -> list[Action]:
        here = self.position
        assert here is not None, "live without a position"
        if envelope.epoch == here.epoch and envelope.seq == here.seq + 1:
            return self._deliver(envelope, envelope.position)
        if envelope.epoch == here.epoch and here.seq == END:
            self.position = None  # its owner lives after all: where does it stand?
            return self._hold_and_seek(envelope, now)
        if envelope.position <= here:
            return []
        if envelope.epoch > here.epoch and envelope.seq == 1:
            return self._enter_epoch(envelope, now)
        return self._hold_and_seek(envelope, now)

    def _enter_epoch(self, envelope: Envelope, now: float) -> list[Action]:
        others = [turn for turn in self._open if turn != envelope.turn]
        if not others:
            return self._deliver(envelope, envelope.position)
        self.position = Position(envelope.epoch, 0)
        self._seeking_since = now
        self._held.append(envelope)
        return self._ask_records(others)

    def _deliver(self, envelope: Envelope, position: Position) -> list[Action]:
        self.position = position
        if envelope.terminal:
            self._open.pop(envelope.turn, None)
        elif envelope.type == "turn_started":
            self.expect(envelope.turn)
        return [envelope]

    # -- holding and asking

    def _hold(self, envelope: Envelope, now: float) -> list[Action]:
        self._held.append(envelope)
        return self._give_up(now) if len(self._held) > HOLD_LIMIT else []

    def _hold_and_seek(self, envelope: Envelope, now: float) -> list[Action]:
        self._held.append(envelope)
        return self._seek(now)

    def _seek(self, now: float) -> list[Action]:
        if self._seeking_since is None:
            self._seeking_since = now
        return self._ask(now)

    def _ask(self, now: float) -> list[Action]:
        self._asking = True
        self._moved_at = now
        known = self.position is not None and self.position.seq != END
        return [Ask(self.position if known else None)]

    def _ask_records(self, turns: Iterable[str]) -> list[Action]:
        wanted = list(turns)
        self._records.update(wanted)
        return [AskRecord(turn) for turn in wanted]

    def _close_unseen(self, now: float) -> list[Action]:
        return self._ask_records(self._open) if self._open else self._settle(now)

    # -- answers

    def _unclosed_by(self, view: View) -> list[str]:
        """The open turns whose end, if they have ended, the view does not show."""
        ended = {event.turn for event in view.events or () if event.terminal}
        nothing_new = view.at == self.position and view.turn is not None
        return [] if nothing_new else [turn for turn in self._open if turn != view.turn and turn not in ended]

    def _apply(self, view: View) -> list[Action]:
        here = self.position
        if here is None or here.seq == END:
            return self._begin_at(view)
        if view.events is not None:
            newer = [event for event in view.events if event.position > here]
            actions = [action for event in newer for action in self._deliver(event, event.position)]
            self.position = max(view.at, here)
            return actions
        return [] if view.at <= here else self._skip_to(view, here)

    def _begin_at(self, view: View) -> list[Action]:
        self.position = view.at
        if view.turn is None:
            return []
        expected = view.turn in self._open
        self.expect(view.turn)
        return self._show(view) if expected else []

    def _skip_to(self, view: View, here: Position) -> list[Action]:
        self.position = view.at
        return [Lost(here, view.at), *self._show(view)]

    def _show(self, view: View) -> list[Action]:
        if view.turn is None or view.snapshot is None:
            return []
        self.expect(view.turn)
        return [Shown(view.turn, view.at, view.snapshot)]

    def _settle(self, now: float) -> list[Action]:
        """Every question is answered: go on with what was held, until it shows another hole."""
        if self._records or self._asking or self.position is None:
            return []
        self._seeking_since = None
        held, self._held = self._held, []
        actions: list[Action] = []
        for number, envelope in enumerate(held):
            actions += self._judge(envelope, now)
            if self._seeking_since is not None:
                self._held += held[number + 1 :]
                break
        return actions

    def _give_up(self, now: float) -> list[Action]:
        """No answer in time: say what is lost and go on with what is there."""
        self._records.clear()
        self._view = None
        self._asking = False
        here = self.position or Position(0, END)
        self.position = here
        newer = [envelope for envelope in self._held if envelope.position > here or here.seq == END]
        if not newer:
            self._held.clear()
            return self._settle(now)
        first = newer[0].position
        self.position = Position(first.epoch, first.seq - 1)
        lost = [] if here.seq == END and first.seq == 1 else [Lost(here, first)]
        return [*lost, *self._settle(now)]
