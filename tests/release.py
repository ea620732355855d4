"""Whether what is to be released works where nothing else is: `make release-check`.

    python -m tests.release FOLDER

FOLDER holds one wheel, built from the sdist beside it. It is installed in an empty environment with the
versions and hashes of constraints.txt; its `warmwire up` starts in an empty folder, answers a message over
HTTP and ends by SIGTERM. The exit code is 1 when anything of that fails.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from tests.compose.running import running
from tests.conftest import forget_settings

ROOT = Path(__file__).parents[1]
WITHIN = 60.0
"""Seconds that an answer may take."""


def main(arguments: list[str]) -> int:
    """The command line."""
    dist = Path(arguments[0])
    (wheel,), (_sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        warmwire = installed(wheel, Path(folder) / "venv")
        text = answered(warmwire, Path(folder) / "empty")
    print(f"{wheel.name}: installed with hashes, answered {text!r} and ended")
    return 0


def installed(wheel: Path, venv: Path) -> Path:
    """Its `warmwire`, in an environment that was empty."""
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "--requirement", str(ROOT / "constraints.txt")], check=True)
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True)
    subprocess.run([venv / "bin" / "pip", "check"], check=True, stdout=subprocess.DEVNULL)
    command = venv / "bin" / "warmwire"
    said = subprocess.run([command, "--version"], check=True, capture_output=True, text=True).stdout
    if version("warmwire") not in said:
        raise RuntimeError(f"it calls itself {said.strip()}, not {version('warmwire')}")
    return command


def answered(warmwire: Path, folder: Path) -> str:
    """The text of a streamed answer of `warmwire up`, which must then end in order."""
    os.environ.pop("PYTHONPATH", None)
    forget_settings()
    with running(folder, (str(warmwire), "up")) as up:
        up.wait_until_ready()
        events = streamed(up.url)
        up.signal(signal.SIGTERM)
        code = up.end()
    if code or events[-1]["type"] != "turn_completed":
        raise RuntimeError(f"exit code {code}, last event {events[-1]}\n{up.stderr}")
    return "".join(event.get("delta", {}).get("text", "") for event in events)


def streamed(url: str) -> list[dict[str, Any]]:
    """The events of one turn."""
    body = {"session_id": "s1", "message": "Hello"}
    with httpx.stream("POST", f"{url}/v1/chat/stream", json=body, timeout=WITHIN) as response:
        response.raise_for_status()
        data = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    return [json.loads(each) for each in data if each != "[DONE]"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
