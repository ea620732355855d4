"""What sets things up, where a newcomer's machine lacks something."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def made(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    """`make`, with that program for a Python, as far as the virtual environment."""
    shutil.copy(ROOT / "Makefile", folder)
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{python}\n")
    program.chmod(0o755)
    argv = ["make", f"PYTHON={program}", ".venv/bin/python"]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)


def test_an_old_python_is_named(tmp_path: Path) -> None:
    older = "import sys; sys.version_info = (3, 10, 2); exec(sys.argv[1])"
    ended = made(tmp_path, f"exec python3 -c '{older}' \"$2\"")
    assert ended.stderr.startswith("Python 3.11 or newer is needed, this is 3.10: make PYTHON=")
    assert not (tmp_path / ".venv").exists()


def test_of_an_environment_that_could_not_be_made_nothing_stays(tmp_path: Path) -> None:
    ended = made(tmp_path, '[ "$1" = -c ] || { mkdir -p "$3/bin"; touch "$3/bin/python"; exit 1; }')
    assert ended.returncode
    assert not (tmp_path / ".venv").exists()


def test_without_docker_nothing_is_tried(tmp_path: Path) -> None:
    (tmp_path / "docker").symlink_to("/bin/false")
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = [ROOT / "compose" / "build"]
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert (2, "") == (ended.returncode, ended.stdout)
    assert ended.stderr.startswith("compose/build: Docker does not answer: ")
    assert 1 == ended.stderr.count("\n")
