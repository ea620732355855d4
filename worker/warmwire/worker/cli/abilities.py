"""What the installed version of Claude Code can do. Pure."""

from __future__ import annotations

import re

from warmwire.worker.cli.dialect import Abilities

TESTED = ("2.1.330",)
"""Versions of Claude Code on which tests/worker/contract/ has passed; `make contract` adds to them."""
EMULATOR = "(warmwire emulator)"
"""What the emulator's version ends in: it is as old as this package."""
ALL = Abilities(adopt=True, set_model=True)

_NUMBER = re.compile(r"(\d+)\.(\d+)\.(\d+)\b")


def abilities(version: str) -> Abilities:
    """What a CLI that calls itself ``version`` can do: what the oldest tested one could, or nothing late."""
    known = version.endswith(EMULATOR) or _parts(version) >= min(map(_parts, TESTED))
    return ALL if known else Abilities()


def doubt(version: str) -> str | None:
    """What an operator should know about this version."""
    if not version:
        return "the CLI does not say its version: processes are not spawned ahead"
    if version.endswith(EMULATOR) or any(_parts(version) == _parts(tested) for tested in TESTED):
        return None
    if abilities(version).adopt:
        return f"a CLI version that warmwire was not tested with ({', '.join(TESTED)} were)"
    return f"a CLI version older than those tested ({', '.join(TESTED)}): processes are not spawned ahead"


def _parts(version: str) -> tuple[int, ...]:
    found = _NUMBER.match(version)
    return tuple(map(int, found.groups())) if found else ()
