"""A worker's own folder: made, held, removed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from warmwire.broker.errors import BadInput
from warmwire.worker.machine.folder import claimed_folder


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="data"):
        claimed_folder(tmp_path / "file", "w-1")


def test_workers_that_start_together_leave_each_other_their_folders(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as together:
        made = list(together.map(lambda n: claimed_folder(tmp_path, f"w-{n}"), range(64)))
    assert 64 == len(list((tmp_path / "workers").iterdir()))
    for folder in made:
        folder.remove()


def test_what_a_killed_worker_left_behind_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    (tmp_path / "workers" / "w-dead").mkdir(parents=True)
    (tmp_path / "workers" / "w-dead" / "lock").touch()
    living = claimed_folder(tmp_path, "w-living")
    claimed_folder(tmp_path, "w-new").remove()
    assert [living.path] == list((tmp_path / "workers").iterdir())
    living.remove()
