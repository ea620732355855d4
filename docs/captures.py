"""The pictures in docs/images that show real output: `make captures` makes them anew.

`top.svg` is what `warmwire top` shows of a `warmwire up` that answers; `trace.svg` is what `warmwire traces`
draws of one turn of that run, by the spans that it got over OTLP.
"""

import io
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from rich.console import Console

from warmwire.compose.top import EVERY, drawn

from tests.compose.running import Running, running
from tests.conftest import wait_for

IMAGES = Path(__file__).parent / "images"
COMMAND = [sys.executable, "-m", "warmwire.compose"]
WITHIN = 60.0
"""Seconds that a turn, or a command, may take."""
PICTURES = 6
"""Of `top`, until the last one is kept."""
UNSTYLED = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""
"""As rich's own, but without fonts from elsewhere."""


@contextmanager
def receiving(picture: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`warmwire traces`, and the variable's value that it names."""
    argv = [*COMMAND, "traces", "--port=0", "--slow=0.05", f"--svg={picture}", "--count=1"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        yield process, process.stdout.readline().strip().partition("=")[2]
    finally:
        process.terminate()
        process.wait(WITHIN)


def chat(up: Running, session: str, message: str) -> None:
    """One turn."""
    body = {"session_id": session, "message": message}
    httpx.post(f"{up.url}/v1/chat/stream", json=body, timeout=WITHIN).raise_for_status()


def top(data: Path) -> str:
    """What `warmwire top` shows now."""
    argv = [*COMMAND, "top", "--json"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={"WARMWIRE_DATA": str(data)}) as live:
        assert live.stdout is not None  # noqa: S101 - it is a pipe
        shown = [json.loads(live.stdout.readline()) for _ in range(PICTURES)]
        live.terminate()
    ended = shown[-1]["total"]["ended"] - shown[0]["total"]["ended"]
    picture, rate = shown[-1], ended / (PICTURES - 1) / EVERY
    console = Console(record=True, width=124, file=io.StringIO())
    console.print(drawn(picture, rate))
    return console.export_svg(title="warmwire top", code_format=UNSTYLED, unique_id="top")


def main() -> None:
    """Both pictures."""
    with tempfile.TemporaryDirectory() as folder, receiving(IMAGES / "trace.svg") as (traces, endpoint):
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "WARMWIRE_WORKERS": "2",
            "WARMWIRE_EMULATOR_FAULT": "tool",
            "WARMWIRE_EMULATOR_FAULT_ON": "tool",
            "WARMWIRE_EMULATOR_TTFT_MS": "120",
            "WARMWIRE_EMULATOR_RATE": "25",
        }
        with running(Path(folder) / "up", environment=environment) as up:
            up.wait_until_ready()
            chat(up, "first", "What does the tool say?")
            traces.wait(WITHIN)
            talk(up, Path(folder) / "up" / "data")


def talk(up: Running, data: Path) -> None:
    """Ten people, for as long as `top` looks."""
    enough = threading.Event()

    def person(number: int) -> None:
        while not enough.is_set():
            chat(up, f"s{number}", "Hello")
            enough.wait(0.1 * number)

    people = [threading.Thread(target=person, args=(number,)) for number in range(10)]
    for each in people:
        each.start()
    try:
        wait_for(lambda: "turn ended" in up.stderr, "a first answer")
        (IMAGES / "top.svg").write_text(top(data))
    finally:
        enough.set()
        for each in people:
            each.join()


if __name__ == "__main__":
    main()
