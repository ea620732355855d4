"""Starts emulators and sees to it that none outlives its test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import COUNTING
from tests.worker.emulator.cli import DEADLINE, Cli, Start


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Start]:
    """Starts emulators: flags as arguments, `WARMWIRE_EMULATOR_*` settings by their last words.

    Only a `light` one is started as a worker does it where coverage is counted: that needs site packages.
    """
    started: list[Cli] = []

    def start(
        *flags: str, home: Path = tmp_path / "home", light: bool = not COUNTING, **settings: object
    ) -> Cli:
        started.append(Cli(home, flags, settings, light=light))
        return started[-1]

    yield start
    for running in started:
        if COUNTING:
            running.let_end()
        running.process.kill()
        running.process.wait(DEADLINE)
        for pipe in (running.stdin, running.stdout, running.process.stderr):
            if pipe:
                pipe.close()
