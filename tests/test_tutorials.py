"""The tutorials, the README and CONTRIBUTING, followed to the letter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.doc_runner import ROOT, Block, blocks_of, follow, shows

AT_A_TERMINAL = ROOT / "docs" / "tutorials" / "terminal.md"  # tests/compose/chat/test_tutorial.py has one
TUTORIALS = sorted({*(ROOT / "docs" / "tutorials").glob("*.md")} - {AT_A_TERMINAL})
PAGES = [*TUTORIALS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_the_page_says_can_be_done_and_shows_what_it_says(page: Path, tmp_path: Path) -> None:
    assert follow(page, tmp_path) > 0


def block(page: str) -> Block:
    """Its only one."""
    (found,) = blocks_of(page)
    return found


def test_a_block_is_read_with_what_stands_before_it() -> None:
    assert Block("sh", "a\nb\n", "Do:\n\n") == block("Do:\n\n```sh\na\nb\n```\n")
    assert "a\n  b\n" == block("- Do:\n\n  ```sh\n  a\n    b\n  ```\n").body
    assert ["sh", "text"] == [each.kind for each in blocks_of("```sh\na\n```\n\n```text\nb\n```\n")]


def test_what_stands_before_a_block_says_what_it_is() -> None:
    assert "hello.py" == block("Put this into `hello.py`:\n\n```python\n```").file
    assert block("Of `hello.py` this:\n\n```python\n```").file is None
    assert block("In another terminal:\n\n```sh\n```").elsewhere
    assert block("<!-- not run: it costs money -->\n```sh\n```").skipped
    assert not block("<!-- not run: -->\n```sh\n```").skipped
    assert block("```sh\nup   # leave it running\n```").left_running


@pytest.mark.parametrize(
    ("expected", "shown", "whole", "fits"),
    [
        ("a\nb", "a\nb\n", True, True),
        ("a\nb", "a  \nb", True, True),
        ("a", "a\nb", True, False),
        ("a", "a\nb", False, True),
        ("b", "a\nb", False, False),
        ("a …", "a b\nc", True, True),
        ("a\n…\nc", "a\nb\nb\nc", True, True),
        ("a … c", "a b", True, False),
        ("(a)", "(a)", True, True),
    ],
)
def test_dots_stand_for_anything(expected: str, shown: str, whole: bool, fits: bool) -> None:
    assert fits == shows(expected, shown, whole=whole)


def test_a_block_that_nobody_runs_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Look:\n\n```python\nprint(1)\n```\n")
    with pytest.raises(AssertionError, match=re.escape("nobody runs this block")):
        follow(page, tmp_path / "here")


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("```sh\nfalse\ntrue\n```\n", "it failed"),
        ("```sh\necho a\n```\n\n```text\nb\n```\n", "expected:\nb"),
        ("```sh\nsleep 600 # leave it running\n```\n\n```sh\ntrue\n```\n", "has the terminal"),
    ],
)
def test_what_does_not_go_as_said_is_a_failure(page: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(page)
    with pytest.raises(AssertionError, match=problem):
        follow(file, tmp_path / "here")


def test_files_lie_where_the_terminal_is_and_shells_keep_what_they_know(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\nmkdir ../there && cd ../there\nexport KNOWN=1\n```\nPut into `a`:\n```js\nx\n```\n"
        "```sh\ncat a; echo $KNOWN\n```\n```text\nx\n1\n```\n"
        "In another terminal:\n```sh\ncat ../there/a; echo ${KNOWN:-unknown}\n```\n```text\nx\nunknown\n```\n"
    )
    assert 6 == follow(page, tmp_path / "here")
