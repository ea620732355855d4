"""docs/tutorials/terminal.md: every command, as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.running import Running, running
from tests.compose.terminal import in_terminal
from tests.conftest import SECONDS

ROOT = Path(__file__).parents[3]
TUTORIAL = (ROOT / "docs" / "tutorials" / "terminal.md").read_text()
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(sh|text)\n(.*?)^```", TUTORIAL, re.MULTILINE | re.DOTALL)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "up") as up:
        up.wait_until_ready()
        yield up


def command_of(line: str) -> str:
    """With the Python that runs us, wherever its environment is."""
    return line.replace(".venv/bin/warmwire", f"{shlex.quote(sys.executable)} -m warmwire.compose")


def shell(command: str, environment: dict[str, str]) -> str:
    """What it prints, if all goes well."""
    found = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * SECONDS,
    )
    assert found.returncode in ((0, 141) if "| head" in command else (0,)), found.stderr
    return found.stdout


async def talk(command: str, transcript: str, environment: dict[str, str], folder: Path) -> None:
    """Type what stands behind the prompts, and find what stands below."""
    async with in_terminal(shlex.split(command), environment, folder, columns=120) as terminal:
        for typed, seen in re.findall(r"^› (.*)\n((?:(?!›).*\n)*)", transcript, re.MULTILINE):
            before = len(terminal.text)
            await terminal.until("›")
            terminal.type(typed + "\r")
            for line in seen.splitlines():
                await terminal.until(line, 1 + terminal.text[:before].count(line))
        assert await terminal.end() == 0


async def test_the_tutorial_does_what_it_says(up: Running, tmp_path: Path) -> None:
    environment = {"WARMWIRE_URL": up.url, "XDG_STATE_HOME": str(tmp_path)}
    kinds = [kind for kind, _ in BLOCKS]
    assert (["sh", "sh", "text", "sh", "text", "sh"], "make up\n") == (kinds, BLOCKS[0][1])
    for command, transcript in (BLOCKS[1:3], BLOCKS[3:5]):
        await talk(command_of(command[1]), transcript[1], environment, tmp_path)
    said = [shell(command_of(line), environment) for line in BLOCKS[5][1].splitlines()]
    assert said[0].startswith('Hello! You wrote: "Hello".')
    assert said[1].startswith('Hello! You wrote: "Hello from a pipe')
    assert "Apache License" in said[2]
    assert 3 == said[3].count('"cursor"') == said[3].count("\n")
    assert said[4].endswith("one\ntwo\n")
