from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from warmwire.worker.cli.launch import Launch
from warmwire.worker.errors import CliStartFailed
from warmwire.worker.machine.workdir import prepare


@pytest.fixture
def plan(tmp_path: Path) -> Launch:
    """A process that works in a copy of a template, outside of its own folder, and has a file."""
    template = tmp_path / "template"
    template.mkdir()
    (template / "README").write_text("of the template")
    own = tmp_path / "own"
    files = ((own / "token", b"secret"),)
    return Launch(("cli",), {}, tmp_path / "work" / "s1", (own,), files, template)


async def test_a_session_works_in_a_copy_of_its_own(plan: Launch) -> None:
    await prepare(plan)
    assert "of the template" == (plan.cwd / "README").read_text()
    assert b"secret" == (plan.folders[0] / "token").read_bytes()
    assert [0o700] * 2 == [each.stat().st_mode & 0o777 for each in (plan.cwd, plan.folders[0])]
    assert ["s1"] == [each.name for each in plan.cwd.parent.iterdir()]


async def test_what_is_there_stays_as_it_is(plan: Launch) -> None:
    await prepare(plan)
    (plan.cwd / "README").write_text("of the session")
    await prepare(plan)
    assert "of the session" == (plan.cwd / "README").read_text()


async def test_who_is_second_takes_what_the_first_has_made(
    plan: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    await prepare(plan)
    (plan.cwd / "README").write_text("of the first")
    monkeypatch.setattr(Path, "exists", lambda _: False)  # as it was when both had looked
    await prepare(plan)
    monkeypatch.undo()
    assert "of the first" == (plan.cwd / "README").read_text()
    assert ["s1"] == [each.name for each in plan.cwd.parent.iterdir()]


@pytest.mark.parametrize("missing", ["template", "parent"])
async def test_a_folder_that_cannot_be_made_is_no_start(plan: Launch, missing: str, tmp_path: Path) -> None:
    if missing == "template":
        plan = replace(plan, template=tmp_path / "nowhere")
    else:
        plan.cwd.parent.write_text("a file, where a folder has to be")
    with pytest.raises(CliStartFailed, match="the working directory could not be made"):
        await prepare(plan)
