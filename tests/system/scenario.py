"""What chaos among processes and in containers share: a scenario's plan, phases and outcome, the table."""

import argparse
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic

from warmwire.broker.nats.bus import Arrived
from warmwire.broker.wire import envelope

from tests.system import history as h
from tests.system.checker import TERMINAL, Violation, check
from tests.system.cluster import Worker, until
from tests.system.load import Load, pauses

DELTAS = 60
"""Deltas of an answer where nothing else is asked for."""


@dataclass(frozen=True)
class Plan:
    """What a scenario has to do with: a folder, the seed, how many sessions, how long the answers are."""

    folder: Path
    seed: int
    sessions: int
    deltas: int = DELTAS


@dataclass(frozen=True)
class Hit:
    """A fault and the turns that it hit."""

    at: float
    turns: frozenset[str]


@dataclass
class Outcome:
    """What came of a scenario."""

    history: list[h.Any]
    hit: Hit
    notes: list[str] = field(default_factory=list)

    all_complete: bool = True

    @property
    def violations(self) -> list[Violation]:
        """The checker's verdict; where turns are retried, none may end in any other way than completed."""
        violations = check(self.history)
        for line, record in enumerate(self.history, 1):
            if self.all_complete and isinstance(record, h.Recorded) and record.ending != "turn_completed":
                what = f"ended with {record.ending}"
                violations.append(Violation("completed", record.turn, what, (line,)))
        return violations

    @property
    def accepted(self) -> int:
        """Accepted turns."""
        return sum(isinstance(record, h.Accepted) for record in self.history)

    @property
    def endings(self) -> Counter[str]:
        """How the turns ended for whoever sent them."""
        return Counter(
            record.type.removeprefix("turn_")
            for record in self.history
            if isinstance(record, h.Seen) and record.type in TERMINAL and record.viewer.endswith("@one")
        )

    @property
    def waits(self) -> list[float]:
        """For each turn that was hit, the longest wait for text after the fault, in seconds."""
        return sorted(pauses(self.history, self.hit.at, set(self.hit.turns)).values())


class LeftOutError(Exception):
    """A scenario that this machine cannot play; says why."""


# -- phases


async def under_way(load: Load, count: int) -> None:
    """Wait until the text of so many turns flows."""
    await until(lambda: len(load.notes.flowing) >= count, f"{count} turns under way", 60)


def hit(load: Load, what: str, victims: Iterable[Worker] | None = None) -> Hit:
    """Note a fault that hits the turns of these workers; without workers, all turns under way."""
    ids = None if victims is None else {worker.id for worker in victims}
    turns = {turn for turn, worker in load.notes.flowing.items() if ids is None or worker in ids}
    return Hit(load.fault(what), frozenset(turns))


async def over(load: Load, hit_: Hit) -> None:
    """Wait until the turns that were hit have ended; the checker says it if they do not."""
    try:
        await until(
            lambda: not hit_.turns & load.notes.flowing.keys(), "the end of the turns that were hit", 60
        )
    except TimeoutError as error:
        print(error, file=sys.stderr)


async def concluded(load: Load, hit_: Hit, *notes: str) -> Outcome:
    """Let the load come to its end."""
    await over(load, hit_)
    await load.finish()
    return Outcome(load.history, hit_, list(notes))


async def stale_events(load: Load) -> Counter[str]:
    """Counts, per session and from now on, the events of owners that have lost it."""
    newest: dict[str, int] = {}
    stale = Counter[str]()

    def heard(message: Arrived) -> None:
        session, epoch = message.subject.rsplit(".", 1)[1], envelope.decode(message.data).epoch
        stale[session] += epoch < newest.get(session, 0)
        newest[session] = max(epoch, newest.get(session, 0))

    await load.mine.bus.subscribe("ww.evt.*.*", heard)
    await load.mine.bus.flush()
    return stale


def resets(history: Iterable[h.Any]) -> int:
    """How many turns were begun again, as far as a viewer of the turn was told."""
    return len(
        {record.turn for record in history if isinstance(record, h.Seen) and record.type == "turn_reset"}
    )


# -- the table

COLUMNS = "{:<18} {:>6} {:>6}  {:<34} {:>10} {:>5} {:>9} {:>9}  {}"
HEAD = COLUMNS.format("scenario", "turns", "ends", "of which", "violations", "hit", "worst", "median", "")


def row(name: str, outcome: Outcome, seconds: float) -> str:
    """One line of the table."""
    waits = outcome.waits
    endings = ", ".join(f"{count} {ending}" for ending, count in sorted(outcome.endings.items()))
    worst, middle = (f"{max(waits):.2f} s", f"{median(waits):.2f} s") if waits else ("-", "-")
    notes = "; ".join([*outcome.notes, f"took {seconds:.0f} s"])
    total = sum(outcome.endings.values())
    return COLUMNS.format(
        name,
        outcome.accepted,
        total,
        endings,
        len(outcome.violations),
        len(outcome.hit.turns),
        worst,
        middle,
        notes,
    )


async def play(name: str, plan: Plan, scenario: Callable[[Plan], Awaitable[Outcome]]) -> Outcome:
    """Run a scenario and print its line; the history and all logs stay in the plan's folder."""
    began = monotonic()
    plan.folder.mkdir(parents=True, exist_ok=True)
    outcome = await scenario(plan)
    h.write(plan.folder / "history.jsonl", outcome.history)
    print(row(name, outcome, monotonic() - began), flush=True)
    for violation in outcome.violations:
        print(f"    {violation}", flush=True)
    return outcome


def parser(description: str | None, scenarios: Iterable[str], sessions: object) -> argparse.ArgumentParser:
    """The command line of both. ``sessions`` says what their number is where none is given."""
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = found.add_argument
    option("--scenario", action="append", choices=sorted(scenarios), help="only this one; repeatable")
    option("--seed", type=int, default=1, help="chooses the messages (default: 1)")
    option("--sessions", type=int, help=f"sessions at a time (default: {sessions})")
    option("--keep", type=Path, help="folder for histories and logs (default: removed afterwards)")
    return found
