"""The operator's commands, on a `warmwire up` that runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from warmwire.compose.operating.session import logged
from warmwire.compose.operating.workers import hint

from tests.broker.nats.test_discovery import answers
from tests.compose.running import Running, running
from tests.conftest import SECONDS, wait_for

HANGING = {"WARMWIRE_EMULATOR_FAULT": "hang:1", "WARMWIRE_EMULATOR_FAULT_ON": "wait"}
Up = tuple[Running, dict[str, str]]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("top") / "up"
    with running(folder, environment=HANGING) as up:
        up.wait_until_ready()
        yield up, {"WARMWIRE_DATA": str(folder / "data")}


def say(up: Up, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "warmwire.compose", *arguments]
    environment = os.environ | up[1]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, timeout=60 * SECONDS
    )


def told(up: Up, *arguments: str) -> Any:
    said = say(up, *arguments)
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


def chat(up: Up, session: str) -> None:
    body = {"session_id": session, "message": "Hello"}
    httpx.post(f"{up[0].url}/v1/chat/stream", json=body, timeout=60 * SECONDS).raise_for_status()


def nats_of(up: Up) -> str:
    found = re.search(r"NATS at (nats://\S+)", up[0].stderr)
    assert found is not None
    return found[1]


def post(up: Up, session: str, path: str = "messages") -> httpx.Response:
    url = f"{up[0].url}/v1/sessions/{session}/{path}"
    return httpx.post(url, json={"message": "Hello, wait"}, timeout=30 * SECONDS)


def test_top_shows_the_workers_with_their_turns(up: Up) -> None:
    chat(up, "t1")
    picture = told(up, "top", "--once", "--json")
    (worker,) = picture["workers"]
    assert {"running": 0, "sessions": 1, "ended": 1, "failed": 0} == {
        name: worker[name] for name in ("running", "sessions", "ended", "failed")
    }
    assert {"p50", "p95", "max"} == worker["ttft_ms"].keys()
    assert picture["slowest"][0]["session"] == "default.t1"
    assert picture["queue"]["waiting"] == 0
    drawn = say(up, "top", "--once").stdout
    assert worker["worker"] in drawn
    assert "slowest turns" in drawn


def test_a_session_is_shown_without_what_was_said_and_its_turn_is_stopped(up: Up) -> None:
    turn = post(up, "t2").json()["turn"]
    wait_for(lambda: told(up, "session", "show", "t2")["owner"], "an owner", 30)
    assert f"stopping turn {turn}\n" == say(up, "session", "interrupt", "t2").stdout
    wait_for(lambda: told(up, "session", "show", "t2")["ended"], "its end", 30)
    shown = say(up, "session", "show", "t2").stdout
    assert "turn_interrupted" == json.loads(shown)["ended"][0]["type"]
    assert "Hello" not in shown
    assert say(up, "session", "interrupt", "t2").returncode == 1


def log_of(up: Up, session: str, *flags: str) -> list[dict[str, Any]]:
    said = say(up, "session", "log", session, *flags)
    assert said.returncode == 0, said.stderr
    return [json.loads(line) for line in said.stdout.splitlines()]


def test_the_log_of_a_session_holds_what_was_said_only_where_that_is_asked_for(up: Up) -> None:
    chat(up, "l1")
    plain, whole = log_of(up, "l1"), log_of(up, "l1", "--content")
    assert ["user", "assistant", "warmwire/turn"] == [each["type"] for each in plain]
    assert "turn_completed" == plain[-1]["ending"]
    assert "Hello" not in json.dumps(plain)
    assert "Hello" == whole[0]["entry"]["message"]["content"]
    assert plain == [{name: each[name] for name in each if name != "entry"} for each in whole]
    assert plain[-1:] == log_of(up, "l1", "--last=1")


def test_a_session_without_a_past_has_no_log(up: Up) -> None:
    said = say(up, "session", "log", "nobodys")
    assert (1, "warmwire: no transcript is stored of the session default.nobodys\n") == (
        said.returncode,
        said.stderr,
    )


def test_of_an_entry_of_another_kind_nothing_is_shown() -> None:
    entry = b'{"type":"my secret","timestamp":5,"text":"secret"}'
    assert {"number": 3, "type": "other", "bytes": len(entry)} == logged(3, entry, content=False)


def test_the_service_discovery_of_nats_finds_worker_and_edge(up: Up) -> None:
    (worker,) = told(up, "top", "--once", "--json")["workers"]
    chat(up, "d1")
    found = asyncio.run(answers(nats_of(up), "$SRV.STATS", 2))
    kinds = {each["name"]: each for each in found}
    assert {"warmwire-worker", "warmwire-edge"} == kinds.keys()
    assert worker["worker"] == kinds["warmwire-worker"]["id"]
    (turns,) = kinds["warmwire-worker"]["endpoints"]
    assert ("turns", "ww.req.*.*") == (turns["name"], turns["subject"])
    assert turns["num_requests"] >= 1
    assert turns["processing_time"] > 0


def test_a_session_is_moved_and_now_means_that_its_turn_is_interrupted(tmp_path: Path) -> None:
    folder = tmp_path / "two"
    with running(folder, environment=HANGING | {"WARMWIRE_WORKERS": "2"}) as two:
        two.wait_until_ready()
        up = two, {"WARMWIRE_DATA": str(folder / "data")}
        wait_for(lambda: len(say(up, "worker", "list").stdout.splitlines()) == 2, "two workers", 30)
        chat(up, "m1")
        first = told(up, "session", "show", "m1")["owner"]
        moved = say(up, "session", "move", "m1")
        assert moved.returncode == 0, moved.stderr
        second = told(up, "session", "show", "m1")["owner"]
        assert f"default.m1 is at {second}\n" == moved.stdout
        assert first != second
        post(up, "m1")
        wait_for(lambda: told(up, "top", "--once", "--json")["total"]["running"], "its turn runs", 30)
        assert say(up, "session", "move", "m1", "--within=0.5").returncode == 1
        assert say(up, "session", "move", "m1", "--now", "--to", first).returncode == 0
        shown = told(up, "session", "show", "m1")
        assert (first, "turn_interrupted") == (shown["owner"], shown["ended"][-1]["type"])
        assert say(up, "session", "move", "m1", "--to", first).returncode == 1
        assert say(up, "session", "move", "nobodys").returncode == 1


def test_who_is_not_there_is_named(up: Up) -> None:
    session, worker = say(up, "session", "show", "nobodys"), say(up, "worker", "drain", "w-0")
    assert (1, "warmwire: nobody has used the session default.nobodys\n") == (
        session.returncode,
        session.stderr,
    )
    assert worker.returncode == 1
    assert "no worker 'w-0' lives" in worker.stderr


def test_the_doctor_finds_nothing_wrong(up: Up) -> None:
    said = say(up, "doctor")
    assert said.returncode == 0, said.stdout
    for what in (
        "NATS",
        "round trip",
        "clock",
        "max_payload",
        "streams",
        "workers",
        "CLI",
        "credential",
        "open files",
    ):
        assert re.search(rf"^[✓!] {what}: ", said.stdout, re.MULTILINE), said.stdout


def test_the_doctor_says_what_to_do_where_nothing_answers(up: Up) -> None:
    said = say(up, "doctor", "--nats", "nats://user:secret@127.0.0.1:9", "--cli", "no-such-program")
    assert said.returncode == 1
    assert "✗ NATS: no NATS server answers" in said.stdout
    assert "start `warmwire up`" in said.stdout
    assert "✗ CLI: cli: there is no program 'no-such-program'" in said.stdout
    assert "secret" not in said.stdout


def test_an_autoscaler_is_told_what_it_asks_for(up: Up) -> None:
    whole = told(up, "worker", "list", "--json")
    (worker,) = whole["workers"]
    found = {name: whole["autoscaler"][name] for name in ("workers", "draining", "slots", "spare")}
    assert {"workers": 1, "draining": 0, "slots": worker["free"] + worker["running"], "spare": False} == found
    assert 0 == whole["queue"]["waiting"]


@pytest.mark.parametrize(
    ("running", "waiting", "spare"),
    [
        ((20, 20, 31), 0, False),
        ((20, 9, 0), 0, True),
        ((20, 10, 0), 0, False),
        ((0, 0, 0), 0, True),
        ((20, 20, 20), 7, False),
    ],
)
def test_a_worker_may_go_when_the_others_have_room(
    running: tuple[int, ...], waiting: int, spare: bool
) -> None:
    rows = [
        {"worker": f"w-{n}", "draining": False, "running": n, "free": max(0, 20 - n), "sessions": 30}
        for n in running
    ]
    gone = {"worker": "w-gone", "draining": True, "running": 1, "free": 19, "sessions": 1}
    picture: Any = {"workers": [*rows, gone], "queue": {"waiting": waiting}}
    told = hint(picture)
    assert (3, 1, sum(running) + 1 + waiting) == (told["workers"], told["draining"], told["turns"])
    assert (spare, f"w-{min(running)}" if spare else None) == (told["spare"], told["leaves"])


def test_a_drained_worker_leaves_and_another_takes_its_place(up: Up) -> None:
    (before,) = told(up, "top", "--once", "--json")["workers"]
    assert f"{before['worker']} drains\n" == say(up, "worker", "drain", before["worker"]).stdout

    def replaced() -> bool:
        lines = say(up, "worker", "list").stdout.splitlines()
        return bool(lines) and before["worker"] not in {json.loads(line)["worker"] for line in lines}

    wait_for(replaced, "another worker", 30)
