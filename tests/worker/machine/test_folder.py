"""A worker's own folder: made, held, removed."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import time

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


def test_a_folder_that_was_being_made_when_its_worker_was_killed_is_removed(tmp_path: Path) -> None:
    home = tmp_path / "workers"
    for name, files in ((".making-w-1", ("lock",)), (".making-w-2", ())):
        (home / name).mkdir(parents=True)
        for file in files:
            (home / name / file).touch()
        long_ago(home / name)
    (home / ".making-w-3").mkdir()  # of a worker that starts just now
    claimed_folder(tmp_path, "w-new").remove()
    assert [home / ".making-w-3"] == list(home.iterdir())


def long_ago(folder: Path) -> None:
    """As if it had been made an hour ago."""
    then = time() - 3600
    os.utime(folder, (then, then))
