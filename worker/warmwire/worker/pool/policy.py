"""The policy of the pool: which processes there are, who gets which, and which go. Pure; time is an argument.

A CLI process is in one of these tiers, each cheaper to keep and slower to answer than the one before:

    generic warm   spawned and bound to nobody; the first turn of a new conversation adopts it (a *spare*)
    warm           of one session, between turns or in one
    frozen         of one session, stopped (SIGSTOP): it keeps its memory and uses no CPU
    parked         no process; the conversation is in the stored transcript

`room` says how many turns may still come, `serve` how a turn gets its process, `upkeep` what else is to be
done. None of them does anything: what they return is carried out by `app`, `warm` (a session's process) and
`supply` (processes on their way, and spares). docs/pool.md tells it from the outside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Generic, TypeVar

from warmwire.worker.cli.dialect import Abilities

K = TypeVar("K")

EMULATOR_MB = 8
"""What an emulator is reckoned to take until one has been measured, in MB."""
REAL_MB = 200
"""What a real CLI with a few turns behind it is reckoned to take until one has been measured, in MB."""
TURNS_PER_CORE = 25
"""Turns of the real CLI that a core carries while they stream."""
LEAST_EMULATOR_TURNS = 300
"""Turns at once that one worker carries with emulators, whatever the machine."""
RESERVE = 20
"""One part in so many of the machine's memory is left free."""
SETTLE = 0.3
"""Seconds after an adoption in which no spare is spawned: the adopted process has its first turn to begin."""
READY_WITHIN = 30.0
"""Seconds in which a spare must be ready."""
LONGEST_PAUSE = 60.0
"""Seconds between two tries to have a spare, when they keep on failing."""
SURPLUS_AFTER = 60.0
"""Seconds that a spare is kept when fewer are wanted than there are."""
RECENT = 30.0
"""Seconds over which the rate of new conversations is taken; older ones count for less and less."""


class Tier(Enum):
    """What a session has of a process."""

    WARM = auto()
    FROZEN = auto()
    PARKED = auto()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may have. The first two are at least 1; seconds and MB."""

    turns: int
    sessions: int
    starting: int = 1
    """Processes that may start at the same time."""
    freeze_after: float = 60.0
    park_after: float = 1800.0
    reserve_mb: int = 0
    """When less memory is left, sessions are parked."""
    process_mb: int = REAL_MB
    """What a process takes, as long as none has been measured."""
    memory_mb: int | None = None
    """What all of them may take; None: the number of sessions has been configured, and holds as it is."""
    turns_by_cores: int | None = None
    """Turns that the cores carry; None: their number has been configured, or does not follow memory."""


def limits(
    turns: int | None, sessions: int | None, *, emulated: bool, cores: float, memory_mb: int
) -> Limits:
    """The configured limits, or defaults by half the machine's memory, and for real CLIs by its cores.

    Those by memory follow what processes are found to take; see `fitted`.
    """
    process_mb = EMULATOR_MB if emulated else REAL_MB
    by_memory = max(1, memory_mb // 2 // process_mb)
    by_cores = LEAST_EMULATOR_TURNS if emulated else max(1, int(TURNS_PER_CORE * cores))
    at_once = turns or (by_cores if emulated else min(by_cores, by_memory))
    return Limits(
        at_once,
        max(at_once, sessions or by_memory),
        starting=max(1, int(cores)) * (4 if emulated else 1),  # an emulator is up within 20 ms
        reserve_mb=memory_mb // RESERVE,
        process_mb=process_mb,
        memory_mb=None if sessions else memory_mb // 2,
        turns_by_cores=None if turns or emulated else by_cores,
    )


def fitted(limits: Limits, measured_mb: int | None) -> Limits:
    """The limits when a process takes ``measured_mb``; what has been configured stays what it is."""
    if measured_mb is None or measured_mb <= 0:
        return limits
    if limits.memory_mb is None:
        return replace(limits, process_mb=measured_mb)
    fits = max(1, limits.memory_mb // measured_mb)
    turns = limits.turns if limits.turns_by_cores is None else min(limits.turns_by_cores, fits)
    return replace(limits, process_mb=measured_mb, turns=turns, sessions=max(turns, fits))


@dataclass(frozen=True, slots=True)
class Load:
    """What room depends on. ``placing``: messages pulled, whose turn has its slot already."""

    active: int
    placing: int
    idle: int = 0
    """Sessions with a process and no turn: it would be used, or could go."""
    memory_left_mb: int | None = None


def room(load: Load, limits: Limits) -> int:
    """How many more messages may be pulled.

    1. as many as there are turns to the limit; one that has been pulled has its slot
    2. memory is short: as many as there are idle processes, and processes that still fit
    3. but one, if nothing runs: a worker that waits for memory that others hold would wait for ever
    """
    taken = load.active + load.placing
    free = max(0, limits.turns - taken)
    if load.memory_left_mb is not None:
        spare_mb = load.memory_left_mb - limits.reserve_mb - load.placing * limits.process_mb
        free = min(free, load.idle + max(0, spare_mb) // max(1, limits.process_mb))
    return max(free, 0 if taken else min(1, limits.turns))


# --- a turn needs a process ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Need:
    """A turn's. ``new``: there is no conversation yet; a process cannot take up one after its spawn."""

    profile: str
    model: str | None
    new: bool


@dataclass(frozen=True, slots=True)
class Own:
    """The process that the session has, if any runs."""

    model: str | None


@dataclass(frozen=True, slots=True)
class Spare:
    """A generic warm process, or one that is about to be. ``since``: when it was spawned."""

    id: int
    profile: str
    since: float
    ready: bool = False
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Use:
    """The session's own process, thawed if it is frozen; told the model where that is another."""

    set_model: bool = False


@dataclass(frozen=True, slots=True)
class Adopt:
    """This spare becomes the session's."""

    spare: int


@dataclass(frozen=True, slots=True)
class Spawn:
    """A process of its own, at once, from the transcript; in place of the one that it has, if any."""


Service = Use | Adopt | Spawn


def serve(need: Need, own: Own | None, spares: Sequence[Spare], can: Abilities) -> Service:
    """How a turn gets its process.

    1. the session has one that speaks the model: that one
    2. it has one with another model, and the CLI can change that: that one, told so
    3. it has one with another model, and the CLI cannot: a spawn in its place
    4. a new conversation, and the CLI can be told its prompt: the spare of its profile that is ready longest
    5. none is ready, but some are starting: the one that began first; it is ahead of what we could spawn
    6. else (a conversation to resume, no spare that lives): a spawn
    """
    if own is not None:
        return Use(set_model=own.model != need.model) if own.model == need.model or can.set_model else Spawn()
    if not need.new or not can.adopt:
        return Spawn()
    fit = [spare for spare in spares if spare.profile == need.profile and not spare.ended]
    best = min(fit, key=lambda spare: (not spare.ready, spare.since), default=None)
    return Spawn() if best is None else Adopt(best.id)


# --- how many spares -------------------------------------------------------------------------------------


class Arrivals:
    """The recent rate of something that happens now and then; time is an argument."""

    def __init__(self) -> None:
        self._weight = 0.0
        self._at = float("-inf")

    def add(self, now: float) -> None:
        """It has happened."""
        self._weight = self._decayed(now) + 1.0
        self._at = now

    def rate(self, now: float) -> float:
        """Times a second; what happened ``RECENT`` ago weighs 1/e."""
        return self._decayed(now) / RECENT

    def _decayed(self, now: float) -> float:
        return self._weight * math.exp(min(0.0, self._at - now) / RECENT) if self._weight else 0.0


def spares_for(rate: float, spawn_seconds: float, least: int, most: int) -> int:
    """How many spares a profile is to have: as many as conversations begin while one becomes ready.

    At least ``least`` and at most ``most`` (or ``least``, where that is more); none where none are wanted.
    """
    if least <= 0:
        return 0
    return min(max(least, math.ceil(rate * spawn_seconds)), max(least, most))


# --- upkeep ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Session(Generic[K]):
    """A session that this worker owns.

    ``finished``: when its last turn finished, or when it was claimed. Nothing else moves it: neither looking
    at the session nor waiting for it.
    """

    key: K
    tier: Tier
    finished: float
    in_flight: bool


@dataclass(frozen=True, slots=True)
class View(Generic[K]):
    """All that the policy looks at.

    ``wanted``: spares for each profile. ``claiming``: sessions on their way here, which have their slot and
    their memory already. ``starting``: processes that have not said a word yet. ``failed``: spares that
    failed one after the other, the last at ``failed_at``.
    """

    now: float
    sessions: Sequence[Session[K]] = ()
    spares: Sequence[Spare] = ()
    wanted: Mapping[str, int] = field(default_factory=dict)
    claiming: int = 0
    starting: int = 0
    adopted_at: float = float("-inf")
    failed: int = 0
    failed_at: float = float("-inf")
    memory_left_mb: int | None = None


@dataclass(frozen=True, slots=True)
class SpawnSpare:
    """One more spare of this profile."""

    profile: str


@dataclass(frozen=True, slots=True)
class KillSpare:
    """It has ended, hangs, or its memory is needed."""

    spare: int


@dataclass(frozen=True, slots=True)
class Freeze(Generic[K]):
    """Stop the session's process."""

    key: K


@dataclass(frozen=True, slots=True)
class Park(Generic[K]):
    """End the session's process and let the session go."""

    key: K


Work = SpawnSpare | KillSpare | Freeze[K] | Park[K]


def upkeep(view: View[K], limits: Limits) -> list[Work[K]]:
    """What is to be done, in this order.

    Sessions. One in flight is never touched.
      1. more of them than the limit: the surplus is parked, least recently finished first
      2. memory is short, or will be with what is starting: as many are parked as would give it back, least
         recently finished first
      3. one that finished ``park_after`` ago is parked
      4. one that finished ``freeze_after`` ago is frozen
    Spares.
      5. one that has ended is removed, and one that has not become ready in ``READY_WITHIN``
      6. memory is short, and there is nothing left to park: one is removed
      7. more than are wanted: those that have waited for ``SURPLUS_AFTER`` are removed, oldest first
      8. some are missing: they are spawned, up to ``starting`` processes at a time; not within ``SETTLE``
         of an adoption unless several are missing, not while memory is short, and with growing pauses when
         they fail
    """
    parked = _to_park(view, limits)
    going = set(parked)
    frozen = [
        session.key
        for session in view.sessions
        if session.tier is Tier.WARM and not session.in_flight and session.key not in going
        if view.now - session.finished >= limits.freeze_after
    ]
    short = _missing_mb(view, limits) > 0
    gone = [spare.id for spare in view.spares if _hopeless(spare, view.now)]
    if short and not parked and not gone:
        gone = [spare.id for spare in view.spares][:1]
    gone += _surplus(view, set(gone))
    spawned = [] if short else _to_spawn(view, limits, set(gone))
    return [*map(Park, parked), *map(Freeze, frozen), *map(KillSpare, gone), *map(SpawnSpare, spawned)]


def _to_park(view: View[K], limits: Limits) -> list[K]:
    idle = sorted((s for s in view.sessions if not s.in_flight), key=lambda session: session.finished)
    over = len(view.sessions) + view.claiming - limits.sessions
    short = -(-_missing_mb(view, limits) // max(1, limits.process_mb))
    late = sum(view.now - session.finished >= limits.park_after for session in idle)
    return [session.key for session in idle[: max(over, short, late, 0)]]


def _missing_mb(view: View[K], limits: Limits) -> int:
    """What is on its way here has not taken its memory yet, but will."""
    if view.memory_left_mb is None:
        return 0
    promised = (view.claiming + view.starting) * limits.process_mb
    return max(0, limits.reserve_mb + promised - view.memory_left_mb)


def _hopeless(spare: Spare, now: float) -> bool:
    return spare.ended or (not spare.ready and now - spare.since > READY_WITHIN)


def _surplus(view: View[K], gone: set[int]) -> list[int]:
    found: list[int] = []
    for profile, many in view.wanted.items():
        there = [spare for spare in view.spares if spare.profile == profile and spare.id not in gone]
        old = sorted((s for s in there if view.now - s.since >= SURPLUS_AFTER), key=lambda spare: spare.since)
        found += [spare.id for spare in old[: max(0, len(there) - many)]]
    return found


def _to_spawn(view: View[K], limits: Limits, gone: set[int]) -> list[str]:
    pause = min(2.0 ** min(view.failed, 10), LONGEST_PAUSE) if view.failed else 0.0
    if view.now - view.failed_at < pause:
        return []
    there = [spare.profile for spare in view.spares if spare.id not in gone]
    missing = [profile for profile, many in view.wanted.items() for _ in range(many - there.count(profile))]
    if view.now - view.adopted_at < SETTLE and len(missing) == 1:
        return []
    return missing[: max(0, limits.starting - view.starting)]
