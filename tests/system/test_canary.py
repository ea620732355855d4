"""A user's token is in clear nowhere: looked for in all that a running product writes, says and shows.

The token goes in over HTTP; the emulator plays an API that takes it, and one that refuses it and repeats it
in the error.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.compose.running import Running, running
from tests.conftest import SECONDS
from tests.otlp import receiving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

CANARY = f"sk-ant-oat01-canary-{secrets.token_urlsafe(24)}"
OTHER = f"sk-ant-oat01-canary-{secrets.token_urlsafe(24)}"


def forms(token: str) -> list[bytes]:
    """As it is, and as encodings of a longer text that holds it would show it."""
    raw = token.encode()
    found = [raw, raw.hex().encode()]
    shifted = [b"\0" * shift + raw for shift in range(3)]  # base64 works on three bytes at a time
    found += [base64.b64encode(text)[4:-8] for text in shifted]
    return found + [base64.urlsafe_b64encode(text)[4:-8] for text in shifted]


def holds(data: bytes) -> bool:
    return any(form in data for token in (CANARY, OTHER) for form in forms(token))


def ask(up: Running, session: str, message: str, token: str | None) -> tuple[dict[str, Any], bytes]:
    """The terminal event and all bytes of the answer."""
    headers = {} if token is None else {"X-Warmwire-Token": token}
    body = {"session_id": session, "message": message}
    answer = httpx.post(f"{up.url}/v1/chat/stream", json=body, headers=headers, timeout=30 * SECONDS)
    assert answer.status_code == 200, answer.text
    lines = [line for line in answer.text.splitlines() if line.startswith("data: {")]
    event: dict[str, Any] = httpx.Response(200, text=lines[-1].removeprefix("data: ")).json()
    return event, answer.content


def places(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Everything on disk, every command line, every environment but this process's own."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it is gone meanwhile, or no file that can be read
                path = Path(parent, name)
                yield str(path), path.read_bytes()
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            for name in ("cmdline", "environ"):
                try:
                    yield f"{process}/{name}", (process / name).read_bytes()
                except OSError:  # it ended meanwhile
                    continue


ASKED = (
    ("s1", "one", CANARY),
    ("s1", "two", OTHER),
    ("s2", "three", CANARY),
    ("s1", "recall", None),
)
"""Session, message, token."""
QUICK = {
    "WARMWIRE_EMULATOR_RATE": "500",
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "ANTHROPIC_API_KEY": "of-the-pool",
}


@pytest.mark.parametrize("taken", ["", "of-the-pool"], ids=["taken", "refused and repeated in the error"])
def test_a_token_is_found_nowhere(tmp_path: Path, taken: str) -> None:
    with receiving() as traces:
        told = {"WARMWIRE_EMULATOR_TOKENS": taken, "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url}
        with running(tmp_path / "up", environment=QUICK | told) as up:
            up.wait_until_ready()
            answers = [ask(up, *asked) for asked in ASKED]
            found = [where for where, data in places(tmp_path) if holds(data)]
            if taken:  # what the API repeats, the CLI writes into its own home; nothing of that goes further
                found = [where for where in found if "/sessions/default/" not in where]
            files = [where for where, _ in places(tmp_path) if where.endswith(".blk")]
        found += [
            name for name, text in (("stdout", up.stdout), ("stderr", up.stderr)) if holds(text.encode())
        ]
    with_token = "auth_failed" if taken else "turn_completed"
    assert [with_token] * 3 + ["turn_completed"] == [end.get("code", end["type"]) for end, _ in answers]
    assert files, "JetStream's files have been looked at"
    assert traces.raw, "traces have been looked at"
    assert not holds(bytes(traces.raw))
    assert not any(holds(said) for _, said in answers)
    assert [] == found
