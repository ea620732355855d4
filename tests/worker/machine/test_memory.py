from __future__ import annotations

from pathlib import Path

import pytest

from warmwire.worker.machine.memory import MB, memory_left_mb, memory_mb, pss_mb

MEMINFO = "MemTotal:       8000000 kB\nMemFree:         100000 kB\nMemAvailable:   2048000 kB\n"


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text(MEMINFO)
    return path


def cgroup(folder: Path, limit: str, used: int = 0, inactive: int = 0) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")
    return folder


def test_what_is_left_is_what_the_kernel_says(tmp_path: Path, meminfo: Path) -> None:
    assert 2000 == memory_left_mb(tmp_path / "none", meminfo)


def test_a_container_has_less(tmp_path: Path, meminfo: Path) -> None:
    home = cgroup(tmp_path, str(1000 * MB), used=800 * MB, inactive=100 * MB)
    assert 300 == memory_left_mb(home, meminfo)
    assert 1000 == memory_mb(home)


def test_a_container_without_a_limit_has_what_the_machine_has(tmp_path: Path, meminfo: Path) -> None:
    home = cgroup(tmp_path, "max", used=800 * MB)
    assert 2000 == memory_left_mb(home, meminfo)
    assert memory_mb(tmp_path / "none") == memory_mb(home)


def test_where_nobody_says_nothing_is_known(tmp_path: Path) -> None:
    assert memory_left_mb(tmp_path, tmp_path / "none") is None


def test_a_process_takes_its_share_of_what_it_has_in_common(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    rollup = "00400000-7ff [rollup]\nRss:  80000 kB\nPss:   20480 kB\nPss_Dirty:  9 kB\n"
    (tmp_path / "7/smaps_rollup").write_text(rollup)
    assert 20.0 == pss_mb(7, tmp_path)
    assert pss_mb(8, tmp_path) is None
