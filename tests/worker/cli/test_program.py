from __future__ import annotations

import sys
from pathlib import Path

import pytest

from warmwire.broker.errors import BadInput
from warmwire.worker.cli.program import cli_command, find_claude, probe


def test_claude_on_the_path_comes_first(tmp_path: Path) -> None:
    mine = tmp_path / "claude"
    mine.touch(mode=0o755)
    assert mine == find_claude(str(tmp_path))


def test_a_missing_cli_is_said_with_what_to_do() -> None:
    with pytest.raises(BadInput, match="no program 'surely-not-there'"):
        cli_command("surely-not-there --flag")


def test_a_command_line_is_split_like_a_shell() -> None:
    assert ("sh", "-c", "a b") == cli_command("sh -c 'a b'")


async def test_the_version_is_what_the_cli_says() -> None:
    assert "0.1.0 (warmwire emulator)" == await probe(cli_command("emulator"))


@pytest.mark.parametrize("code", ["raise SystemExit(1)", "", "print('\\n')"])
async def test_a_cli_that_does_not_say_it_has_none(code: str) -> None:
    assert "" == await probe([sys.executable, "-c", code])
