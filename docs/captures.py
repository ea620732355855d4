"""The pictures in docs/images that show real output: `make captures` makes them anew.

`top.svg` is what `warmwire top` shows of a `warmwire up` that answers. The others are what `warmwire traces`
draws of one turn, by the spans that it got over OTLP: `trace.svg` of that run, `slow-cli.svg` and
`full-worker.svg` of runs with the faults of docs/tutorials/slow-turn.md. `page.png` and `page-dark.png` are
the chat page in Chromium, while an answer is written.
"""

import io
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Page, expect, sync_playwright
from rich.console import Console

from warmwire.compose.operating.top import EVERY, drawn

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


QUESTION = "Which message queue for many small chats, and how do I publish to it?"
EARLIER = ("Plan a week of dinners", "Why is the sky blue?")
ANSWER = """\
**NATS JetStream** fits: many subjects, order per subject, an acknowledgement from disk.

| system | order | replay |
|---|:-:|:-:|
| NATS JetStream | per subject | yes |
| RabbitMQ | per queue | no |

```python
ack = await stream.publish("orders.new", b"one espresso")
print(f"stored as number {ack.seq}")
```

The acknowledgement means *stored*; from then on it survives the server, and whoever asks for it later
gets it in the order in which it came. What nobody has to keep is a plain publish.
"""
SEEN = "from then on"
"""Of the answer, in the picture."""


@contextmanager
def receiving(name: str, slow: float) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`warmwire traces` until it has drawn a turn as slow as that, and where it listens."""
    argv = [*COMMAND, "traces", "--port=0", f"--slow={slow}", f"--svg={IMAGES / name}", "--count=1"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        yield process, process.stdout.readline().strip().partition("=")[2]
    finally:
        process.terminate()
        process.wait(WITHIN)


@contextmanager
def drawing(name: str, slow: float, **settings: str) -> Iterator[Running]:
    """A `warmwire up` of which a turn as slow as that is drawn."""
    with tempfile.TemporaryDirectory() as folder, receiving(name, slow) as (traces, endpoint):
        environment = {f"WARMWIRE_{key.upper()}": value for key, value in settings.items()}
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        with running(Path(folder) / "up", environment=environment) as up:
            up.wait_until_ready()
            yield up
            traces.wait(WITHIN)


def chat(up: Running, session: str, message: str) -> None:
    """One turn."""
    body = {"session_id": session, "message": message}
    httpx.post(f"{up.url}/v1/chat/stream", json=body, timeout=WITHIN).raise_for_status()


def nats_of(up: Running) -> str:
    """Its NATS server's URL, by what it says."""
    return up.stderr.partition("NATS at ")[2].split()[0]


def top(up: Running) -> str:
    """What `warmwire top` shows now."""
    argv = [*COMMAND, "top", "--json"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, text=True, env={"WARMWIRE_NATS": nats_of(up)}
    ) as live:
        assert live.stdout is not None  # noqa: S101 - it is a pipe
        shown = [json.loads(live.stdout.readline()) for _ in range(PICTURES)]
        live.terminate()
    ended = shown[-1]["total"]["ended"] - shown[0]["total"]["ended"]
    picture, rate = shown[-1], ended / (PICTURES - 1) / EVERY
    console = Console(record=True, width=124, file=io.StringIO())
    console.print(drawn(picture, rate))
    return console.export_svg(title="warmwire top", code_format=UNSTYLED, unique_id="top")


def main() -> None:
    """All pictures."""
    pages()
    normal = {"workers": "2", "emulator_fault": "tool", "emulator_fault_on": "tool"}
    with drawing("trace.svg", 0.05, emulator_ttft_ms="120", emulator_rate="25", **normal) as up:
        chat(up, "first", "What does the tool say?")
        talk(up)
    slow = {"emulator_ttft_ms": "1500", "max_turns": "1"}
    with drawing("slow-cli.svg", 0.5, **slow) as up:
        chat(up, "s1", "Hello")
    with drawing("full-worker.svg", 2.5, **slow) as up:
        both = [threading.Thread(target=chat, args=(up, name, "Hello")) for name in ("s2", "s3")]
        for each in both:
            each.start()
        for each in both:
            each.join()


def talk(up: Running) -> None:
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
        (IMAGES / "top.svg").write_text(top(up))
    finally:
        enough.set()
        for each in people:
            each.join()


def pages() -> None:
    """The chat page, light and dark."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "answer.md"
        script.write_text(ANSWER)
        environment = {"WARMWIRE_EMULATOR_SCRIPT": str(script), "WARMWIRE_EMULATOR_RATE": "10"}
        with running(Path(folder) / "up", environment=environment) as up, sync_playwright() as playwright:
            up.wait_until_ready()
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            light, dark = browser.new_page(color_scheme="light"), browser.new_page(color_scheme="dark")
            for page, name in ((light, "page.png"), (dark, "page-dark.png")):
                page.set_viewport_size({"width": 1180, "height": 680})
                page.goto(up.url)
                _page(page, IMAGES / name)
            browser.close()


def _page(page: Page, to: Path) -> None:
    """Two earlier chats, and one that is being answered."""
    log, state = page.locator("#log"), page.locator("#state")
    for message in EARLIER:
        _type(page, message)
        expect(log).to_contain_text("JetStream", timeout=WITHIN * 1000)
        page.keyboard.press("Escape")
        expect(state).to_have_text("Ready")
        page.locator("#new-chat").click()
    _type(page, QUESTION)
    expect(log).to_contain_text(SEEN, timeout=WITHIN * 1000)
    page.screenshot(path=to)


def _type(page: Page, message: str) -> None:
    page.locator("#message").fill(message)
    page.locator("#message").press("Enter")


if __name__ == "__main__":
    main()
