"""What the installed version of the CLI can do. Pure but for `probe`, which asks it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Sequence

from warmwire.worker.pool import Abilities

TESTED = ("2.1.330",)
"""Versions of Claude Code on which tests/worker/contract/ has passed; `make contract` adds to them."""
EMULATOR = "(warmwire emulator)"
"""What the emulator's version ends in: it is as old as this package."""
ALL = Abilities(adopt=True, set_model=True)
PROBE_WITHIN = 10.0
"""Seconds that the CLI may take to say its version."""

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


async def probe(command: Sequence[str]) -> str:
    """The first line that the CLI answers to ``--version``; empty when it does not answer."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        *command,
        "--version",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(PROBE_WITHIN):
            said, _ = await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):  # it has ended; what it started has its stdout
            process.kill()
        return ""
    first, *_ = [*said.decode(errors="replace").splitlines(), ""]
    return first.strip() if process.returncode == 0 else ""
