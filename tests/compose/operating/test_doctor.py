"""What the doctor makes of what it looks at; that it looks is in test_top.py."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from warmwire.compose.operating.doctor import FILES, clock, credential, files, program


@pytest.mark.parametrize(
    ("soft", "state"),
    [(resource.RLIM_INFINITY, "ok"), (FILES, "ok"), (FILES - 1, "warning"), (0, "warning")],
)
def test_few_open_files_are_a_warning_with_the_number_to_set(soft: int, state: str) -> None:
    found = files(soft)
    assert state == found.state
    assert (str(FILES) in found.remedy) == (state == "warning")


@pytest.mark.parametrize(
    ("theirs", "state", "said"),
    [
        (100.1, "ok", "within 0.200 s"),
        (100.4, "ok", "within 0.400 s"),
        (103.2, "warning", "3.0 s behind"),
        (90.0, "warning", "10.0 s ahead of"),
    ],
)
def test_the_doctor_compares_clocks(theirs: float, state: str, said: str) -> None:
    found = clock(theirs, 100.0, 100.2)
    assert state == found.state
    assert said in found.text
    assert (found.state == "warning") == bool(found.remedy)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, and no credential in the environment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ANTHROPIC_API_KEY", "WARMWIRE_POOL_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.usefixtures("home")
def test_who_has_no_credential_hears_which_to_set() -> None:
    assert "ok" == credential("emulator").state
    found = credential("claude")
    assert ("warning", "no ANTHROPIC_API_KEY in this shell") == (found.state, found.text)
    assert "ANTHROPIC_API_KEY" in found.remedy


def test_ones_own_login_is_not_the_workers(home: Path) -> None:
    (home / ".claude").mkdir()
    (home / ".claude" / ".credentials.json").write_text("a secret")
    found = credential("claude")
    assert ("warning", "only your own login, which workers do not use") == (found.state, found.text)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("name", ["ANTHROPIC_API_KEY", "WARMWIRE_POOL_KEY_FILE"])
def test_a_credential_is_found_and_not_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "a secret")
    found = credential("claude")
    assert "ok" == found.state
    assert "a secret" not in str(found)


def test_a_cli_that_was_not_tested_is_a_warning_and_one_that_is_not_there_an_error(tmp_path: Path) -> None:
    unknown = tmp_path / "cli"
    unknown.write_text("#!/bin/sh\necho 0.0.1\n")
    unknown.chmod(0o755)
    assert ["ok", "warning", "wrong"] == [
        program(cli).state for cli in ("emulator", str(unknown), str(tmp_path / "none"))
    ]
