"""The page says what the emulator leaves out; the contract says it, too: the same things."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs/reference/emulator.md"
KINDS = {"relied_on", "left_out", "real_only"}
NOT_RELIED_ON = {
    "an unread stdout",  # the worker always reads
    "`transcript_mirror`",
    "transcript",
    "`--resume=<id>`",  # the worker names the file
    "`--flag value`, unknown flags",
    "`init`, `initialize`, `result`",
}
"""Rows that no test of the contract is about: the worker does not mind."""


def marks() -> Iterator[tuple[str, list[pytest.Mark]]]:
    """The tests of the contract and their marks of our own."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f"{__package__}.{path.stem}")
        for name, test in vars(module).items():
            if name.startswith("test_") and path.stem != Path(__file__).stem:
                yield name, [mark for mark in getattr(test, "pytestmark", []) if mark.name in KINDS]


def rows() -> set[str]:
    """First cells of the page's last table."""
    table = PAGE.read_text().partition("## What it leaves out")[2]
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    return {line.split("|")[1].strip() for line in lines}


def test_each_test_of_the_contract_says_whether_the_emulator_keeps_it() -> None:
    assert [] == [name for name, found in marks() if len(found) != 1]


def test_what_the_emulator_leaves_out_is_on_its_page() -> None:
    said = {mark.args[0] for _, found in marks() for mark in found if mark.args}
    assert said | NOT_RELIED_ON == rows()
