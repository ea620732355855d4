"""A running emulator, as its user sees it, and names for the lines that it prints."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from warmwire.worker.cli.program import cli_command

from tests.conftest import COUNTING, SECONDS

Json = dict[str, Any]

EMULATOR = Path(__file__).parents[3] / "worker/warmwire/worker/emulator.py"
RECORDED = Path(__file__).parents[1] / "recorded"  # by the real CLI
FLAGS = (
    "--print",
    "--input-format=stream-json",
    "--output-format=stream-json",
    "--include-partial-messages",
    "--verbose",
    "--session-mirror",
    "--tools=",
    "--setting-sources=",
    "--strict-mcp-config",
    "--disable-slash-commands",
    "--system-prompt=Be brief.",
)
LIGHT = ("-I", "-S", "-E")
"""As a worker starts it."""
AT_ONCE = {"RATE": 1_000_000, "TTFT_MS": 0}
DEADLINE = 20 * SECONDS


class Cli:
    """A running emulator. Whatever a test waits for has a deadline."""

    def __init__(self, home: Path, flags: tuple[str, ...], settings: Json, *, light: bool) -> None:
        work = home / "work"
        work.mkdir(parents=True, exist_ok=True)
        names = {f"WARMWIRE_EMULATOR_{name}": str(value) for name, value in {**AT_ONCE, **settings}.items()}
        argv = [sys.executable, *(LIGHT if light else ()), str(EMULATOR), *FLAGS, *flags]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            argv, cwd=work, env={"HOME": str(home), **names, **COUNTING}, stdin=pipe, stdout=pipe, stderr=pipe
        )
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self._unread = b""

    def write(self, raw: bytes) -> None:
        self.stdin.write(raw)
        self.stdin.flush()

    def send(self, *values: object) -> None:
        self.write(b"".join(json.dumps(value).encode() + b"\n" for value in values))

    def ask(self, content: object, message_id: str | None = None) -> str:
        message_id = message_id or str(uuid.uuid4())
        self.send(user(content, message_id))
        return message_id

    def control(self, subtype: str, **more: object) -> Json:
        """The answer to a control request; what comes before it is dropped."""
        self.send({"type": "control_request", "request_id": subtype, "request": {"subtype": subtype, **more}})
        answer: Json = self.until("control_response")[-1]["response"]
        assert subtype == answer["request_id"]
        return answer

    def raw_line(self) -> bytes | None:
        """The next line; None at the end of the output."""
        while b"\n" not in self._unread:
            assert select.select([self.stdout], [], [], DEADLINE)[0], "nothing more is said"
            chunk = os.read(self.stdout.fileno(), 1 << 16)
            if not chunk:
                assert self._unread == b""
                return None
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def rest(self) -> list[Json]:
        return [json.loads(line) for line in iter(self.raw_line, None)]

    def until(self, *kinds: str) -> list[Json]:
        """Everything up to the first line of one of these kinds."""
        heard: list[Json] = []
        while not heard or kind(heard[-1]) not in kinds:
            line = self.raw_line()
            assert line is not None, f"it ended before {kinds} came"
            heard.append(json.loads(line))
        return heard

    def turn(self, content: object = "Hello", message_id: str | None = None) -> list[Json]:
        self.ask(content, message_id)
        return self.until("completed", "cancelled")

    def answer(self, content: object) -> str:
        return str(only("result", self.turn(content))["result"])

    def delta(self, number: int) -> None:
        """Wait for so many more deltas."""
        for _ in range(number):
            self.until("content_block_delta")

    def end(self) -> int:
        self.stdin.close()
        self.rest()
        return self.process.wait(DEADLINE)

    def let_end(self) -> None:
        """Give it a moment to end by itself: what a killed process has counted of the coverage is lost."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self.stdin.close()
            self.process.wait(SECONDS)

    def refusal(self) -> tuple[int, str]:
        """Exit code and stderr of an emulator that ends by itself."""
        return self.process.wait(DEADLINE), self.complaint()

    def complaint(self) -> str:
        assert self.process.stderr
        return self.process.stderr.read().decode()

    def signal(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


Start = Callable[..., Cli]


def user(content: object, message_id: str | None = None) -> Json:
    named = {"uuid": message_id} if message_id else {}
    return {"type": "user", "message": {"role": "user", "content": content}, **named, "client_composed": True}


def kind(line: Json) -> str:
    """What a line is: the most particular name that it has."""
    event = line.get("event", {}).get("type")
    return str(event or line.get("state") or (line["type"] == "system" and line["subtype"]) or line["type"])


def kinds(lines: list[Json]) -> list[str]:
    """What lines are; adjacent deltas count once, and mirrors, which come when they like, not at all."""
    named = [kind(line) for line in lines if line["type"] != "transcript_mirror"]
    return [name for at, name in enumerate(named) if name != "content_block_delta" or named[at - 1] != name]


def every(name: str, lines: list[Json]) -> list[Json]:
    return [line for line in lines if kind(line) == name]


def only(name: str, lines: list[Json]) -> Json:
    (found,) = every(name, lines)
    return found


def texts(lines: list[Json]) -> list[str]:
    deltas = [line["event"]["delta"] for line in every("content_block_delta", lines)]
    return [delta["text"] for delta in deltas if "text" in delta]


def entries(lines: list[Json]) -> list[Json]:
    return [entry for line in every("transcript_mirror", lines) for entry in line["entries"]]


def transcripts(home: Path) -> list[Path]:
    return list((home / ".claude/projects").rglob("*.jsonl"))


def recorded(name: str) -> list[Json]:
    lines = [json.loads(line) for line in (RECORDED / name).read_text().splitlines()]
    return lines[: [kind(line) in {"completed", "cancelled"} for line in lines].index(True) + 1]


def nameless(folder: Path) -> str:
    """A command line for an emulator that does not say its version."""
    script = folder / "nameless"
    emulator = shlex.join(cli_command("emulator"))
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 1\nexec {emulator} "$@"\n')
    script.chmod(0o755)
    return str(script)
