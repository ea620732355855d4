"""How many turns and warm processes a worker may have, and which process goes first. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from warmwire.broker.names import SessionKey

EMULATOR_MB = 8
"""What an emulator is reckoned to take, in MB."""
REAL_MB = 200
"""What a real CLI with a few turns behind it is reckoned to take, in MB."""
TURNS_PER_CORE = 25
"""Turns of the real CLI that a core carries while they stream."""
LEAST_EMULATOR_TURNS = 300
"""Turns at once that one worker carries with emulators, whatever the machine."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``turns`` running at once, ``sessions`` held warm; both at least 1."""

    turns: int
    sessions: int


def limits(turns: int | None, sessions: int | None, *, emulated: bool, cores: int, memory_mb: int) -> Limits:
    """The configured limits, or defaults by half the machine's memory, and for real CLIs by its cores."""
    by_memory = max(1, memory_mb // 2 // (EMULATOR_MB if emulated else REAL_MB))
    by_cores = LEAST_EMULATOR_TURNS if emulated else TURNS_PER_CORE * cores
    at_once = turns or (max(by_cores, 1) if emulated else max(1, min(by_cores, by_memory)))
    return Limits(at_once, max(at_once, sessions or by_memory))


def to_park(idle_since: Mapping[SessionKey, float], held: int, limit: int) -> list[SessionKey]:
    """The idle sessions to let go so that ``held`` falls to ``limit``: those that finished longest ago first.

    A session in flight is not in ``idle_since`` and so never goes.
    """
    over = held - limit
    return sorted(idle_since, key=lambda key: idle_since[key])[:over] if over > 0 else []
