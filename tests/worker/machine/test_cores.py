from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from warmwire.worker.machine.cores import cores, granted

CODE = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
CODE += "from warmwire.worker.machine.cores import cores; print(cores())"


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ([], 8.0),
        (["max 100000\n"], 8.0),
        (["150000 100000\n"], 1.5),
        (["5000 10000"], 0.5),
        (["1600000 100000"], 8.0),
        (["max 100000", "200000 100000", "400000 100000"], 2.0),
        (["-1 100000"], 8.0),
        (["", " ", "100000"], 8.0),
    ],
    ids=["none", "max", "one and a half", "half", "more than there are", "above us", "version 1", "odd"],
)
def test_the_least_that_is_granted_counts(quotas: list[str], expected: float) -> None:
    assert expected == granted(8, quotas)


def group(folder: Path, name: str, path: str = "/") -> tuple[Path, Path]:
    """Where control groups are, with one of that name, and what the kernel says of ours."""
    ours = folder / "ours"
    ours.write_text(f"4:memory:/elsewhere\n0::{path}\n")
    (folder / "cgroup" / name).mkdir(parents=True)
    return folder / "cgroup", ours


def test_a_container_has_less(tmp_path: Path) -> None:
    cgroup, ours = group(tmp_path, "")
    (cgroup / "cpu.max").write_text("25000 100000\n")
    assert 0.25 == cores(cgroup, ours)


@pytest.mark.parametrize("limited", ["", "a", "a/b"])
def test_a_limit_of_a_group_above_is_one(tmp_path: Path, limited: str) -> None:
    cgroup, ours = group(tmp_path, "a/b", "/a/b")
    (cgroup / limited / "cpu.max").write_text("25000 100000\n")
    assert 0.25 == cores(cgroup, ours)


def test_a_limit_of_another_group_is_none(tmp_path: Path) -> None:
    cgroup, ours = group(tmp_path, "b", "/a")
    (cgroup / "b" / "cpu.max").write_text("25000 100000\n")
    assert cores(tmp_path / "nothing", tmp_path / "nothing") == cores(cgroup, ours)


def test_control_groups_of_version_1_limit_too(tmp_path: Path) -> None:
    cgroup, ours = group(tmp_path, "cpu")
    (cgroup / "cpu/cpu.cfs_quota_us").write_text("25000\n")
    (cgroup / "cpu/cpu.cfs_period_us").write_text("50000\n")
    assert 0.5 == cores(cgroup, ours)


@pytest.mark.skipif(sys.platform != "linux", reason="cores are chosen by a call of Linux's")
def test_who_is_bound_to_one_core_has_one() -> None:
    assert len(os.sched_getaffinity(0)) >= cores()
    said = subprocess.run([sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert 0 < float(said) <= 1
