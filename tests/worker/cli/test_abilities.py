from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from warmwire.worker.cli import abilities as abilities_module
from warmwire.worker.cli.abilities import ALL, TESTED
from warmwire.worker.cli.claude_code import Claude
from warmwire.worker.cli.dialect import Abilities
from warmwire.worker.cli.program import probe

from tests.worker.contract.__main__ import adding

CLI, NONE = Claude(), Abilities()


@pytest.mark.parametrize("version", [*TESTED, f"{TESTED[0]} (Claude Code)", "0.1.0 (warmwire emulator)"])
def test_a_tested_version_can_do_all_and_is_not_doubted(version: str) -> None:
    assert (ALL, None) == (CLI.abilities(version), CLI.doubt(version))


@pytest.mark.parametrize("version", ["2.1.331 (Claude Code)", "2.2.0", "10.0.0"])
def test_a_newer_version_can_do_all_and_is_doubted(version: str) -> None:
    assert ALL == CLI.abilities(version)
    assert "not tested" in str(CLI.doubt(version))


@pytest.mark.parametrize("version", ["2.1.329 (Claude Code)", "1.0.128", "2.1", "some other program", ""])
def test_an_older_or_unknown_version_is_told_nothing_late(version: str) -> None:
    assert NONE == CLI.abilities(version)
    assert "not spawned ahead" in str(CLI.doubt(version))


@pytest.mark.claude
async def test_the_real_cli_is_one_that_was_tested(claude_cli: Path) -> None:
    assert CLI.doubt(await probe([str(claude_cli)])) is None


def test_a_version_that_has_kept_the_contract_is_written_down() -> None:
    source = Path(abilities_module.__file__).read_text()
    grown: dict[str, Any] = {}
    exec(adding(source, "9.8.7"), grown)  # noqa: S102 - our own source
    assert (*TESTED, "9.8.7") == grown["TESTED"]
    assert source == adding(source, TESTED[0])
