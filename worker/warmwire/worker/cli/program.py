"""The program that a worker runs as its CLI: which one it is, and what version it says it has."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from warmwire.broker.errors import BadInput

PROBE_WITHIN = 10.0
"""Seconds that the CLI may take to say its version."""


def find_claude(path: str | None = None) -> Path | None:
    """`claude` on PATH (or on `path`), else the one bundled with claude-agent-sdk, else None."""
    if found := shutil.which("claude", path=path):
        return Path(found)
    package = importlib.util.find_spec("claude_agent_sdk")
    for folder in package.submodule_search_locations or () if package else ():
        bundled = Path(folder) / "_bundled" / "claude"
        if bundled.is_file():
            return bundled
    return None


def cli_command(cli: str, dialect: str = "claude") -> tuple[str, ...]:
    """What ``--cli`` means.

    Raises:
        BadInput: there is no such program; the text says what to do.
    """
    if dialect != "claude" and cli in ("emulator", "claude"):
        raise BadInput("dialect", f"the {cli} speaks 'claude'; give --cli a program that speaks {dialect!r}")
    if cli == "emulator":
        emulator = Path(__file__).parents[1] / "emulator.py"
        return (sys.executable, "-I", "-S", "-E", str(emulator))
    if cli == "claude":
        found = find_claude()
        if found is None:
            raise BadInput("cli", "no claude CLI found: put it on PATH, or pip install claude-agent-sdk")
        return (str(found),)
    try:
        words = tuple(shlex.split(cli))
    except ValueError as error:
        raise BadInput("cli", f"cannot be split into words: {error}") from error
    if not words or shutil.which(words[0]) is None:
        raise BadInput("cli", f"there is no program {words[0] if words else ''!r}")
    return words


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
