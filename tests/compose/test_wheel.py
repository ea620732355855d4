"""A role missing from the build configuration still imports here, but not from the wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.conftest import SECONDS

ROOT = Path(__file__).parents[2]
ROLES = ["broker", "worker", "producer", "edge", "compose"]


def test_the_wheel_that_is_built_from_the_sdist_has_every_file_of_every_role(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=60 * SECONDS)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert _tracked_sources() == packed


def _tracked_sources() -> set[str]:
    folders = [*(f"{role}/warmwire" for role in ROLES), "producer/streaming_bidirectional.py"]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return {name.partition("/")[2] for name in listed.stdout.splitlines() if (ROOT / name).exists()}
