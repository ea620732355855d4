"""What the examples share: a `warmwire up` of their own where none is named, and one command line."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

PATIENCE = 120.0
"""Seconds after which an example gives up. A real model may need more: `--patience`."""


def run(
    example: Callable[[argparse.Namespace], Awaitable[None]],
    parser: argparse.ArgumentParser,
    script: Path | None = None,
) -> None:
    """Run an example against WARMWIRE_URL and WARMWIRE_NATS, or against a `warmwire up` of its own.

    ``script`` is what the stand-in CLI of that one answers.
    """
    parser.add_argument("--cli", default="emulator", help="what answers: emulator or claude")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds, at most")
    given = parser.parse_args()
    named = os.environ.get("WARMWIRE_URL") or os.environ.get("WARMWIRE_NATS")
    with nullcontext() if named else service(given.cli, script):
        asyncio.run(_within(given.patience, example(given)))


async def _within(patience: float, work: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(patience):
            await work
    except TimeoutError:
        sys.exit(f"not done within {patience:g} s: more with --patience")


@contextmanager
def service(cli: str, script: Path | None = None) -> Iterator[None]:
    """`warmwire up` on free ports for as long as the block lasts; the clients find it by the environment."""
    with TemporaryDirectory(prefix="warmwire-example-") as folder:
        log = Path(folder) / "log"
        up = _start(cli, script, Path(folder), log)
        try:
            ready = up.stdout.readline() if up.stdout else ""
            if not ready.startswith("ready "):
                sys.exit(f"warmwire up did not start:\n{log.read_text()}")
            os.environ["WARMWIRE_URL"] = ready.removeprefix("ready ").strip()
            os.environ["WARMWIRE_NATS"] = re.findall(r"NATS at (\S+)", log.read_text())[0]
            print(f"(a warmwire of this example's own, at {os.environ['WARMWIRE_URL']})", flush=True)
            yield
        finally:
            up.terminate()
            up.communicate()


def _start(cli: str, script: Path | None, folder: Path, log: Path) -> subprocess.Popen[str]:
    own = {"WARMWIRE_PORT": "0", "WARMWIRE_NATS_PORT": "0", "WARMWIRE_DATA": str(folder), "WARMWIRE_CLI": cli}
    if script is not None:
        own["WARMWIRE_EMULATOR_SCRIPT"] = str(script)
    argv = [sys.executable, "-m", "warmwire.compose", "up"]
    with log.open("w") as errors:
        return subprocess.Popen(
            argv,
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
