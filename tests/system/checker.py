"""The history checker: proves or refutes what warmwire promises, from what producers and viewers noticed.

    python -m tests.system.checker HISTORY.jsonl

Rules (a violation names the rule, the turn and the lines of the history that show it):

one-end      an accepted turn has exactly one terminal event for each viewer that stayed, the same for all
unasked      a refused or unknown turn has no event
no-hole      within an epoch each sequence follows the one before, an epoch begins with 1; only a gap skips
epochs-grow  no event of an epoch that is past (but the stored end of a turn keeps its old place)
after-end    nothing of a turn after its terminal event
no-repeat    no event twice
text         deltas, resets and snapshots add up to the text of the turn's record and to the expected text
             (the record of a turn that failed because its owner died cannot hold what that one published)
order        the turns of a session end in the order in which they were accepted

It knows nothing of the product's own code: it folds the text by itself.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.system import history as h

TERMINAL = frozenset({"turn_completed", "turn_interrupted", "turn_failed"})
RULES = ("one-end", "unasked", "no-hole", "epochs-grow", "after-end", "no-repeat", "text", "order")


@dataclass(frozen=True)
class Violation:
    """A promise that was not kept; `lines` count from 1 and show where."""

    rule: str
    turn: str
    what: str
    lines: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.rule}: turn {self.turn}: {self.what} (lines {', '.join(map(str, self.lines))})"


class Text:
    """A turn's text as one viewer put it together. `whole`: nothing of it is known to be missing."""

    def __init__(self) -> None:
        self.whole = False
        self._message = -1
        self._blocks: dict[tuple[int, int], str] = {}

    def __str__(self) -> str:
        return "".join(self._blocks[place] for place in sorted(self._blocks))

    def add(self, event: h.Seen) -> None:
        """Take an event into account."""
        if event.type == "turn_started":
            self.whole = self.whole or not self._blocks
        elif event.type == "turn_reset":
            self._forget_from(event.message)
        elif event.type == "message_start":
            self._message += 1
        elif event.text:
            place = (self._message, event.index)
            self._blocks[place] = self._blocks.get(place, "") + event.text

    def replace(self, snapshot: h.Snapshot) -> None:
        """A snapshot takes the place of all there was."""
        self.whole = True
        self._blocks = {(message, index): text for message, index, text in snapshot.blocks}
        self._message = max((message for message, _, _ in snapshot.blocks), default=self._message)

    def _forget_from(self, message: int) -> None:
        self.whole = self.whole or message == 0
        self._blocks = {place: text for place, text in self._blocks.items() if place[0] < message}
        self._message = message - 1


@dataclass
class Viewer:
    """What one viewer has been given so far, and what was wrong with it."""

    joined: h.Joined
    left: bool = False
    place: h.Place | None = None
    places: dict[h.Place, int] = field(default_factory=dict)
    ends: dict[str, list[tuple[int, h.Seen]]] = field(default_factory=lambda: defaultdict(list))
    texts: dict[str, Text] = field(default_factory=lambda: defaultdict(Text))
    started: set[str] = field(default_factory=set)
    epochs: dict[str, int] = field(default_factory=dict)

    # -- one item after the other

    def seen(self, line: int, event: h.Seen) -> Iterator[Violation]:
        """An event; yields what is wrong with it."""
        repeated = list(self._repeated(line, event))
        yield from repeated or self._placed(line, event)
        self.place = max(self.place or (0, 0), (event.epoch, event.seq))
        self.places |= {(event.epoch, seq): line for seq in range(event.first or event.seq, event.seq + 1)}
        self.started.add(event.turn)
        if not self.ends[event.turn]:
            self.texts[event.turn].add(event)
            if event.type not in TERMINAL:
                self.epochs[event.turn] = event.epoch
        elif event.type not in TERMINAL and not repeated:
            what = f"{self.name} was given {event.type} after the end"
            yield Violation("after-end", event.turn, what, (self.ends[event.turn][0][0], line))
        if event.type in TERMINAL:
            self.ends[event.turn].append((line, event))

    def gap(self, gap: h.Gap) -> None:
        """Something is lost: the texts of the open turns are not whole until a snapshot or reset comes."""
        self.place = gap.until
        for turn in self.started:
            if not self.ends[turn]:
                self.texts[turn].whole = False

    def snapshot(self, line: int, shown: h.Snapshot) -> Iterator[Violation]:
        """A snapshot; yields what is wrong with it."""
        if self.ends[shown.turn]:
            what = f"{self.name} was given a snapshot after the end"
            yield Violation("after-end", shown.turn, what, (self.ends[shown.turn][0][0], line))
        self.place = max(self.place or (0, 0), (shown.epoch, shown.seq))
        self.started.add(shown.turn)
        self.texts[shown.turn].replace(shown)

    @property
    def name(self) -> str:
        """What the viewer is called in reports."""
        return f"viewer {self.joined.viewer}"

    def watches(self, session: str, turn: str) -> bool:
        """Whether the turn is one of those that this viewer is to be given."""
        return self.joined.session == session and self.joined.turn in (None, turn)

    # -- places

    def _repeated(self, line: int, event: h.Seen) -> Iterator[Violation]:
        for seq in range(event.first or event.seq, event.seq + 1):
            before = self.places.get((event.epoch, seq))
            if before is not None:
                what = f"{self.name} was given {event.epoch}.{seq} twice"
                yield Violation("no-repeat", event.turn, what, (before, line))
                return

    def _placed(self, line: int, event: h.Seen) -> Iterator[Violation]:
        first, here = (event.epoch, event.first or event.seq), self.place
        if here is not None and first[0] < here[0]:
            if event.type not in TERMINAL:
                what = f"{self.name} at epoch {here[0]} was given {event.type} of epoch {first[0]}"
                yield Violation("epochs-grow", event.turn, what, (self._line_of(here), line))
        elif not self._follows(first, here, event):
            what = f"{self.name} was given {_dotted(first)} after {_dotted(here)} without a gap"
            yield Violation("no-hole", event.turn, what, (self._line_of(here), line))

    def _follows(self, first: h.Place, here: h.Place | None, event: h.Seen) -> bool:
        """Whether an event may come next. A viewer of one turn is not given what lies between two turns."""
        whole_session = self.joined.turn is None
        if here is None:
            return first[1] == 1 or not (whole_session and self.joined.fresh)
        if first[0] == here[0]:
            new_turn = not whole_session and event.turn not in self.started
            return first[1] == here[1] + 1 or (new_turn and first > here)
        return first[1] == 1 or not whole_session

    def _line_of(self, place: h.Place | None) -> int:
        return self.places.get(place, 0) if place is not None else 0


class Checker:
    """Feeds a history to its viewers, then compares what they were given with what was sent."""

    def __init__(self, history: Iterable[h.Any]) -> None:
        self.accepted: dict[str, tuple[int, h.Accepted]] = {}
        self.doubtful: set[str] = set()
        self.records: dict[str, tuple[int, h.Recorded]] = {}
        self.viewers: dict[str, Viewer] = {}
        self.violations: list[Violation] = []
        for line, record in enumerate(history, 1):
            self._take(line, record)
        self.violations += self._verdict()

    def _take(self, line: int, record: h.Any) -> None:
        match record:
            case h.Accepted():
                self.accepted.setdefault(record.turn, (line, record))
            case h.Doubtful():
                self.doubtful.add(record.turn)
            case h.Recorded():
                self.records[record.turn] = (line, record)
            case h.Joined():
                self.viewers[record.viewer] = Viewer(record)
            case h.Seen():
                self.violations += self.viewers[record.viewer].seen(line, record)
            case h.Gap():
                self.viewers[record.viewer].gap(record)
            case h.Snapshot():
                self.violations += self.viewers[record.viewer].snapshot(line, record)
            case h.Left():
                self.viewers[record.viewer].left = True
            case h.Refused() | h.Broke() | h.Fault():
                pass  # a refused turn is one that was not accepted; the rest is for the reader of the file

    def _verdict(self) -> Iterator[Violation]:
        yield from self._unasked()
        for turn, (line, accepted) in self.accepted.items():
            watching = [viewer for viewer in self.viewers.values() if viewer.watches(accepted.session, turn)]
            for viewer in watching:
                yield from self._one_end(viewer, turn, line)
                yield from self._text(viewer, turn, accepted)
            yield from self._same_end(watching, turn)
        yield from self._order()

    def _unasked(self) -> Iterator[Violation]:
        for viewer in self.viewers.values():
            for turn in viewer.started:
                if turn not in self.accepted and turn not in self.doubtful:
                    lines = tuple(line for line, _ in viewer.ends[turn])
                    yield Violation(
                        "unasked", turn, f"{viewer.name} was given a turn that nobody sent", lines
                    )

    def _one_end(self, viewer: Viewer, turn: str, line: int) -> Iterator[Violation]:
        ends = viewer.ends[turn]
        if len(ends) == 1 or (viewer.left and not ends):
            return
        what = f"{viewer.name} was given {len(ends)} terminal events"
        yield Violation("one-end", turn, what, (line, *(at for at, _ in ends)))

    def _same_end(self, watching: Sequence[Viewer], turn: str) -> Iterator[Violation]:
        ends = {
            (end.epoch, end.seq, end.type): line for viewer in watching for line, end in viewer.ends[turn][:1]
        }
        if len(ends) > 1:
            what = f"viewers were given different ends: {sorted(ends)}"
            yield Violation("one-end", turn, what, tuple(ends.values()))

    def _text(self, viewer: Viewer, turn: str, accepted: h.Accepted) -> Iterator[Violation]:
        if not viewer.ends[turn] or (not viewer.joined.fresh and not viewer.texts[turn].whole):
            return
        at, end = viewer.ends[turn][0]
        text, whole = str(viewer.texts[turn]), viewer.texts[turn].whole
        if not whole and end.type == "turn_completed":
            what = f"{viewer.name} lost a part of the text and was given no snapshot"
            yield Violation("text", turn, what, (at,))
            return
        _, record = self.records.get(turn, (0, None))
        known = end.type != "turn_failed" or viewer.epochs.get(turn) == end.epoch
        if record is not None and not record.truncated and whole and known and text != record.text:
            what = f"{viewer.name} read {_brief(text)}, the record holds {_brief(record.text)}"
            yield Violation("text", turn, what, (at,))
        elif end.type == "turn_completed" and accepted.expected not in (None, text):
            what = f"{viewer.name} read {_brief(text)}, expected was {_brief(str(accepted.expected))}"
            yield Violation("text", turn, what, (at,))

    def _order(self) -> Iterator[Violation]:
        """By the places of the ends, which are the same for all viewers."""
        ends = {
            turn: (end.epoch, end.seq, line)
            for viewer in self.viewers.values()
            for turn, found in viewer.ends.items()
            for line, end in found[:1]
        }
        by_session = defaultdict[str, list[h.Accepted]](list)
        for _, accepted in self.accepted.values():
            if accepted.turn in ends:
                by_session[accepted.session].append(accepted)
        for turns in by_session.values():
            turns.sort(key=lambda accepted: accepted.order)
            for one, next_ in pairwise(turns):
                earlier, later = ends[one.turn], ends[next_.turn]
                if later[:2] < earlier[:2]:
                    what = f"ended before {one.turn}, which was accepted first"
                    yield Violation("order", next_.turn, what, (later[2], earlier[2]))


def check(history: Iterable[h.Any]) -> list[Violation]:
    """All violations in a history."""
    return Checker(history).violations


def _dotted(place: h.Place | None) -> str:
    return "nothing" if place is None else f"{place[0]}.{place[1]}"


def _brief(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:40]!r}…{text[-20:]!r} ({len(text)} characters)"


def main(arguments: Sequence[str]) -> int:
    """Check recorded histories; the exit code is 1 when a promise was broken."""
    if not arguments:
        print(__doc__)
        return 2
    broken = 0
    for name in arguments:
        checker = Checker(h.read(Path(name)))
        ends = Counter(
            end.type
            for viewer in checker.viewers.values()
            for found in viewer.ends.values()
            for _, end in found
        )
        for violation in checker.violations:
            print(violation)
        counts = ", ".join(f"{count} {type_}" for type_, count in sorted(ends.items()))
        print(
            f"{name}: {len(checker.accepted)} accepted, {len(checker.viewers)} viewers ({counts}), "
            f"{len(checker.violations)} violations"
        )
        broken += len(checker.violations)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
