"""`warmwire up` with its real roles: a newcomer's first minute, and what is left after the last."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.compose.running import Running, running, wait_for_the_end_of
from tests.conftest import SECONDS, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

SLOWLY = {"WARMWIRE_EMULATOR_RATE": "20", "WARMWIRE_EMULATOR_DELTAS": "20"}  # a second for an answer


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "up", environment=SLOWLY) as up:
        up.wait_until_ready()
        yield up


def chat(up: Running, session: str, message: str) -> list[tuple[float, dict[str, object]]]:
    """The events of one turn, each with the second at which it came."""
    body = {"session_id": session, "message": message}
    came, done = [], False
    with httpx.stream("POST", f"{up.url}/v1/chat/stream", json=body, timeout=30 * SECONDS) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            done = done or line == "data: [DONE]"
            if line.startswith("data: {"):
                came.append((time.monotonic(), json.loads(line.removeprefix("data: "))))
    assert done
    return came


def text_of(events: list[tuple[float, dict[str, object]]]) -> str:
    deltas = [event["delta"] for _, event in events if event["type"] == "content_block_delta"]
    return "".join(delta["text"] for delta in deltas if isinstance(delta, dict) and "text" in delta)


def test_an_answer_comes_piece_by_piece_and_the_next_turn_remembers(up: Running) -> None:
    first = chat(up, "s1", "Hello there")
    deltas = [when for when, event in first if event["type"] == "content_block_delta"]
    assert 20 == len(deltas)
    assert deltas[-1] - deltas[0] > 0.5, "they came in one lump"
    assert "turn_completed" == first[-1][1]["type"]
    assert "Hello there" in text_of(chat(up, "s1", "recall"))


def clis(up: Running) -> dict[int, str]:
    return {pid: command for pid, command in up.below().items() if "emulator" in command}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_conversation(up: Running, number: signal.Signals) -> None:
    chat(up, "s1", "Hello")
    wait_for(lambda: clis(up), "a CLI process")
    below = up.below()
    up.signal(number)
    assert (0 if number is signal.SIGINT else -number) == up.end()
    wait_for_the_end_of(below)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{up.url}/healthz")
