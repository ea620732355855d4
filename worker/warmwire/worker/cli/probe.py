"""Asks a CLI for its version."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence

PROBE_WITHIN = 10.0
"""Seconds that the CLI may take to say its version."""


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
