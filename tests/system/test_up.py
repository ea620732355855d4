"""`warmwire up` with its real roles: a newcomer's first minute, and what is left after the last."""

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.compose.running import Running, running, wait_for_the_end_of
from tests.conftest import SECONDS, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

ENDLESS = {"WARMWIRE_EMULATOR_FAULT": "hang:3", "WARMWIRE_EMULATOR_FAULT_ON": "for ever"}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "up", environment=ENDLESS) as up:
        up.wait_until_ready()
        yield up


def chat(up: Running, session: str, message: str) -> Iterator[dict[str, Any]]:
    """The events of one turn, as they come."""
    body, done = {"session_id": session, "message": message}, False
    with httpx.stream("POST", f"{up.url}/v1/chat/stream", json=body, timeout=30 * SECONDS) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            done = done or line == "data: [DONE]"
            if line.startswith("data: {"):
                yield json.loads(line.removeprefix("data: "))
    assert done


def test_an_answer_comes_piece_by_piece_and_the_next_turn_remembers(up: Running) -> None:
    types = list[str]()
    for event in chat(up, "s1", "Talk for ever"):
        types.append(event["type"])
        if types[-1] == "content_block_delta" and types.count("content_block_delta") == 3:
            stopping = httpx.post(f"{up.url}/v1/sessions/s1/interrupt", timeout=30 * SECONDS)
            assert stopping.status_code == 202, stopping.text  # without it there is no end
    assert "turn_interrupted" == types[-1]
    recalled = [event.get("delta", {}).get("text", "") for event in chat(up, "s1", "recall")]
    assert "Talk for ever" in "".join(recalled)


def clis(up: Running) -> dict[int, str]:
    return {pid: command for pid, command in up.below().items() if "emulator" in command}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_conversation(up: Running, number: signal.Signals) -> None:
    assert "turn_completed" == [event["type"] for event in chat(up, "s1", "Hello")][-1]
    wait_for(lambda: clis(up), "a CLI process")
    below = up.below()
    up.signal(number)
    assert (0 if number is signal.SIGINT else -number) == up.end()
    wait_for_the_end_of(below)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{up.url}/healthz")
