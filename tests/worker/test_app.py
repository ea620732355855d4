"""A worker against a real NATS server with emulators: how it answers, ends, leaves and owns."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from warmwire.broker.errors import NoResponder, Unavailable
from warmwire.broker.wire.messages import (
    Close,
    Interrupt,
    InterruptReply,
    Permission,
    PermissionReply,
    Replay,
    UserMessage,
    decode,
)
from warmwire.broker.wire.names import SessionKey
from warmwire.worker import fence
from warmwire.worker.app import Worker
from warmwire.worker.cli.claude_code import Claude
from warmwire.worker.cli.launch import Launch, Spawning
from warmwire.worker.cli.program import cli_command
from warmwire.worker.machine import tree
from warmwire.worker.sessions.host import Host

from tests.client import Client, eventually
from tests.conftest import SECONDS
from tests.worker.conftest import StartWorker, emulator_pids
from tests.worker.emulator.cli import nameless

STALLED = 2.0 * SECONDS
"""So long may a CLI be silent in tests of that: each line of one that works comes sooner, also its first."""


class TestAnswering:
    async def test_a_turn_starts_streams_and_ends_once(
        self, client: Client, start_worker: StartWorker
    ) -> None:
        await start_worker()
        asked = await client.ask("s1", "Hello")
        types = [event["type"] for event in asked.events]
        assert ["turn_started", "message_start", "content_block_start"] == types[:3]
        assert ["content_block_stop", "message_delta", "message_stop", "turn_completed"] == types[-4:]
        assert len(asked.of("content_block_delta")) > 3

    async def test_places_count_from_one_without_a_hole(
        self, client: Client, start_worker: StartWorker
    ) -> None:
        await start_worker()
        first = await client.ask("s1", "Hello")
        second = await client.ask("s1", "again")
        places = [item.seq for item in [*first.items, *second.items]]  # type: ignore[union-attr] # no gaps here
        assert list(range(1, len(places) + 1)) == places

    async def test_the_second_turn_meets_the_same_process_with_its_memory(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        await start_worker()
        await client.ask("s1", "remember the heron")
        before = emulator_pids(tmp_path)
        recalled = await client.ask("s1", "recall")
        assert 1 == recalled.text.count("remember the heron")
        assert before == emulator_pids(tmp_path)

    async def test_a_repeated_turn_id_is_answered_from_the_record_not_run_again(
        self, client: Client, start_worker: StartWorker
    ) -> None:
        await start_worker()
        first = await client.ask("s1", "Hello")
        # Published as if the stream's deduplication window had long passed.
        repeated = UserMessage(turn=first.turn, content="Hello", sent_ms=0)
        await client.bus.js.publish(client.subjects.requests(SessionKey("default", "s1")), repeated.encode())
        recalled = await client.ask("s1", "recall")
        assert 1 == recalled.text.count("Hello")
        assert await client.store.head(SessionKey("default", "s1")) is None

    async def test_another_model_is_told_to_the_same_process(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        await start_worker()
        asked = [await client.ask("s1", "Hello", model=model) for model in ("one", "two", None)]
        models = [one.of("message_start")[0]["message"]["model"] for one in asked]
        assert ["one", "two", "warmwire-emulator"] == models
        assert 1 == len(emulator_pids(tmp_path))

    async def test_another_model_costs_a_process_where_the_cli_cannot_be_told(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        await start_worker(cli=nameless(tmp_path))
        await client.ask("s1", "remember the heron", model="one")
        before = emulator_pids(tmp_path)
        recalled = await client.ask("s1", "recall", model="two")
        assert "remember the heron" in recalled.text
        assert "two" == recalled.of("message_start")[0]["message"]["model"]
        assert 1 == len(set(emulator_pids(tmp_path)) - set(before))


async def spare_of(worker: Worker, folder: Path) -> int:
    """The pid of the worker's one spare, once it is ready."""
    await eventually(lambda: any(spare.ready for spare in worker._supply.spares()), "a spare is ready")
    (pid,) = emulator_pids(folder / "workers" / worker.id / "spares")
    return pid


async def frozen(client: Client, folder: Path, content: str) -> int:
    """The pid of the worker's one process, once it stands still after this message."""
    await client.ask("s1", content)
    (pid,) = emulator_pids(folder)
    await eventually(lambda: stopped(pid), "idle, the process stands still")
    return pid


def kill(pid: int) -> None:
    """It is dead, and our event loop has not heard of it."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


class TestPool:
    async def test_a_new_conversation_adopts_the_spare_and_another_takes_its_place(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        worker = await start_worker(spares=1)
        spare = await spare_of(worker, tmp_path)
        asked = await client.ask("s1", "remember the heron", model="one")
        assert "one" == asked.of("message_start")[0]["message"]["model"]
        await eventually(lambda: len(emulator_pids(tmp_path)) == 2, "the next spare")
        assert spare in emulator_pids(tmp_path)
        assert 1 == (await client.ask("s1", "recall")).text.count("remember the heron")
        assert 2 == len(emulator_pids(tmp_path))

    async def test_a_conversation_of_an_adopted_process_goes_on_elsewhere(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        first = await start_worker(spares=1)
        await spare_of(first, tmp_path)
        await client.ask("s1", "remember the heron")
        await first.stop()
        assert [] == emulator_pids(tmp_path)
        await start_worker()
        assert 1 == (await client.ask("s1", "recall")).text.count("remember the heron")

    async def test_a_spare_that_has_died_is_not_given_to_anybody(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        worker = await start_worker(spares=1)
        kill(await spare_of(worker, tmp_path))
        assert "turn_completed" == (await client.ask("s1", "Hello")).events[-1]["type"]

    async def test_a_cli_that_does_not_say_its_version_has_no_spares(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        worker = await start_worker(spares=1, cli=nameless(tmp_path))
        assert "turn_completed" == (await client.ask("s1", "Hello")).events[-1]["type"]
        assert () == worker._supply.spares()

    async def test_an_idle_process_is_frozen_and_goes_on_with_the_next_message(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        await start_worker(freeze_after=0.1)
        pid = await frozen(client, tmp_path, "remember the heron")
        assert 1 == (await client.ask("s1", "recall")).text.count("remember the heron")
        assert [pid] == emulator_pids(tmp_path)

    async def test_a_frozen_process_ends_in_order(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        worker = await start_worker(freeze_after=0.1)
        await frozen(client, tmp_path, "Hello")
        async with asyncio.timeout(6 * SECONDS):  # it would take seven to kill it
            await worker.stop()
        assert [] == emulator_pids(tmp_path)

    async def test_a_process_idle_for_long_is_parked(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        await start_worker(park_after=0.1)
        await client.ask("s1", "remember the heron")
        await eventually(lambda: not emulator_pids(tmp_path), "idle, the process is gone")
        assert 1 == (await client.ask("s1", "recall")).text.count("remember the heron")

    async def test_looking_at_a_session_does_not_keep_it_warm(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        await start_worker(park_after=1)
        await client.ask("s1", "Hello")
        control = client.subjects.control(SessionKey("default", "s1"))
        async with asyncio.timeout(10 * SECONDS):
            while emulator_pids(tmp_path):
                with contextlib.suppress(NoResponder, Unavailable):
                    await client.bus.request(control, Replay().encode(), 1)


class TestEndings:
    async def test_an_interrupt_ends_the_turn_and_keeps_its_text(
        self, client: Client, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WARMWIRE_EMULATOR_DELTAS", "10000")
        await start_worker()
        asked = await client.send("s1", "Hello")
        await eventually(lambda: asked.text, "a first delta")
        control = client.subjects.control(SessionKey("default", "s1"))
        answer = await client.bus.request(control, Interrupt(turn=asked.turn).encode(), 10 * SECONDS)
        assert asked.turn == decode(InterruptReply, answer).turn
        assert "turn_interrupted" == (await asked.ended())["type"]
        assert "recall" not in asked.text

    async def test_a_permission_that_nobody_has_asked_for_is_not_taken(
        self, client: Client, start_worker: StartWorker
    ) -> None:
        await start_worker()
        await client.ask("s1", "Hello")
        control = client.subjects.control(SessionKey("default", "s1"))
        asked = Permission(request="q1", allow=True).encode()
        answer = await client.bus.request(control, asked, 10 * SECONDS)
        assert "unknown" == decode(PermissionReply, answer).outcome

    async def test_a_cli_that_crashes_fails_the_turn_and_the_next_one_has_the_memory(
        self, client: Client, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", "crash:3")
        monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT_ON", "please-crash")
        await start_worker()
        await client.ask("s1", "remember the heron")
        crashed = await client.ask("s1", "please-crash now")
        assert ("turn_failed", "cli_crashed", True) == tuple(
            crashed.events[-1][name] for name in ("type", "code", "retryable")
        )
        recalled = await client.ask("s1", "recall")
        assert "remember the heron" in recalled.text

    async def test_a_cli_that_ends_at_once_fails_the_turn_as_not_started(
        self, client: Client, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", "exit-at-start")
        await start_worker()
        failed = await client.ask("s1", "Hello")
        assert ("turn_failed", "cli_start_failed") == (failed.events[-1]["type"], failed.events[-1]["code"])

    @pytest.mark.parametrize("needed", ["sessions", "processes"])
    async def test_a_disk_that_takes_nothing_fails_the_turn_and_the_next_one_has_the_memory(
        self, client: Client, start_worker: StartWorker, tmp_path: Path, needed: str
    ) -> None:
        worker = await start_worker()
        await client.ask("s1", "remember the heron")
        (pid,) = emulator_pids(tmp_path)
        os.kill(pid, signal.SIGKILL)
        await eventually(
            lambda: not worker._placing.hosts[SessionKey("default", "s1")].has_process, "it ends"
        )
        folder, aside = worker._folder.path / needed, tmp_path / "aside"
        folder.rename(aside)
        folder.touch()  # nothing can be made in it
        failed = await client.ask("s1", "recall")
        assert ("turn_failed", "cli_start_failed") == (failed.events[-1]["type"], failed.events[-1]["code"])
        await eventually(lambda: not emulator_pids(tmp_path), "nothing that was started is left")
        folder.unlink()
        aside.rename(folder)
        assert "remember the heron" in (await client.ask("s1", "recall")).text

    @pytest.mark.parametrize(
        ("fault", "code"),
        [("error:401", "auth_failed"), ("error:429", "rate_limited"), ("error:529", "overloaded")],
    )
    async def test_an_api_error_ends_in_its_code(
        self,
        client: Client,
        start_worker: StartWorker,
        monkeypatch: pytest.MonkeyPatch,
        fault: str,
        code: str,
    ) -> None:
        monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", fault)
        await start_worker()
        failed = await client.ask("s1", "Hello")
        assert code == failed.events[-1]["code"]

    @pytest.mark.parametrize(
        ("fault", "code"), [("bad-line", "bad_line"), ("long-line:9000000", "line_too_long")]
    )
    async def test_a_line_that_cannot_be_read_fails_the_turn_and_replaces_the_process(
        self,
        client: Client,
        start_worker: StartWorker,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        fault: str,
        code: str,
    ) -> None:
        monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", fault)
        monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT_ON", "please-babble")
        await start_worker()
        await client.ask("s1", "Hello")
        (before,) = emulator_pids(tmp_path)
        failed = await client.ask("s1", "please-babble")
        assert code == failed.events[-1]["code"]
        assert "Hello" == (await client.ask("s1", "recall")).text
        assert before not in emulator_pids(tmp_path)

    async def test_a_silent_cli_that_obeys_is_kept(
        self, client: Client, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", "hang:2")
        monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT_ON", "please-hang")
        await start_worker(stall_timeout=STALLED)
        failed = await client.ask("s1", "please-hang")
        assert "cli_stalled" == failed.events[-1]["code"]
        (pid,) = emulator_pids(tmp_path)
        assert "turn_completed" == (await client.ask("s1", "Hello")).events[-1]["type"]
        assert {pid} == set(emulator_pids(tmp_path))

    async def test_a_silent_cli_is_replaced(
        self, client: Client, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", "deaf:2")
        monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT_ON", "please-hang")
        await start_worker(stall_timeout=STALLED)
        failed = await client.ask("s1", "please-hang")
        assert "cli_stalled" == failed.events[-1]["code"]
        await eventually(lambda: not emulator_pids(tmp_path), "the silent process is gone")
        assert "turn_completed" == (await client.ask("s1", "Hello")).events[-1]["type"]

    async def test_an_api_retry_voids_the_text_so_far(
        self, client: Client, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", "retry:3")
        await start_worker()
        asked = await client.ask("s1", "Hello")
        assert 1 == len(asked.of("turn_reset"))
        assert 1 == asked.text.count("Hello!")


class TestLeaving:
    async def test_stopping_releases_idle_sessions_and_leaves_nothing(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        worker = await start_worker()
        await client.ask("s1", "Hello")
        await worker.stop()
        owned = await client.store.owner(SessionKey("default", "s1"))
        assert owned is not None
        assert owned.record.worker is None
        assert [] == emulator_pids(tmp_path)
        assert [] == list((tmp_path / "workers").iterdir())

    async def test_another_worker_goes_on_with_the_memory(
        self, client: Client, start_worker: StartWorker
    ) -> None:
        first = await start_worker()
        await client.ask("s1", "remember the heron")
        await first.stop()
        await start_worker()
        assert 1 == (await client.ask("s1", "recall")).text.count("remember the heron")

    async def test_a_running_turn_may_end(
        self, client: Client, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WARMWIRE_EMULATOR_DELTAS", "300")
        worker = await start_worker()
        asked = await client.send("s1", "Hello")
        await eventually(lambda: asked.text, "a first delta")
        await worker.stop()
        assert "turn_completed" == (await asked.ended())["type"]
        assert 1 == asked.events[0]["attempt"]

    async def test_at_the_deadline_the_turn_goes_to_another_worker(
        self, client: Client, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WARMWIRE_EMULATOR_DELTAS", "1000")
        monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", "hang:3")  # it does not end by itself
        leaving = await start_worker(drain_timeout=0.2)
        asked = await client.send("s1", "Hello")
        await eventually(lambda: asked.text, "a first delta")
        monkeypatch.delenv("WARMWIRE_EMULATOR_FAULT")
        await start_worker()
        await leaving.stop()
        await asked.ended()
        assert [1, 2] == [event["attempt"] for event in asked.of("turn_started")]
        assert 1 == len(asked.of("turn_reset"))
        assert 1000 == len(asked.events) - asked.events.index(asked.of("turn_started")[1]) - 7

    async def test_sessions_past_the_limit_are_parked_and_come_back_with_their_memory(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        await start_worker(max_sessions=2, max_turns_at_once=2)
        for number in range(4):
            await client.ask(f"s{number}", f"remember {number}")
        await eventually(lambda: len(emulator_pids(tmp_path)) <= 2, "the surplus is parked")
        assert "remember 0" in (await client.ask("s0", "recall")).text

    async def test_a_session_that_is_closed_twice_at_once_ends_once_with_its_process(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        slow = tmp_path / "slow"  # to end
        slow.write_text(f'#!/bin/sh\n{shlex.join(cli_command("emulator"))} "$@"\nsleep 0.5\n')
        slow.chmod(0o700)
        worker, key = await start_worker(cli=str(slow)), SessionKey("default", "s1")
        await client.ask("s1", "Hello")
        host = worker._placing.hosts[key]
        for _ in range(2):
            await client.bus.publish(client.subjects.control(key), Close().encode())
        await asyncio.wait_for(host.closed.wait(), 10 * SECONDS)
        assert [] == emulator_pids(tmp_path)  # else who has the session next would share its folder with it


class CannotLaunch(Claude):
    """A dialect with a bug."""

    def launch(self, command: Sequence[str], spawn: Spawning) -> Launch:
        raise RuntimeError(f"a fault of ours with {command} in {spawn.folder}")


class Faulty(Host):
    """A session with a bug."""

    def tick(self, now: float) -> None:
        raise RuntimeError(f"a fault of ours at {now}")


class TestFaults:
    async def test_a_turn_that_gets_no_process_by_a_bug_of_ours_fails(
        self, client: Client, start_worker: StartWorker
    ) -> None:
        worker = await start_worker()
        worker._supply.recipe = replace(worker._supply.recipe, dialect=CannotLaunch)
        failed = await client.ask("s1", "Hello")
        assert ("turn_failed", "internal") == (failed.events[-1]["type"], failed.events[-1]["code"])

    async def test_a_fault_in_one_session_is_none_in_the_pool(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        worker, key = await start_worker(spares=1), SessionKey("default", "s1")
        worker._placing.hosts[key] = Faulty(
            worker._services(), key, 1, "n", lambda _host, ending: ending.close()
        )
        await spare_of(worker, tmp_path)
        del worker._placing.hosts[key]
        assert "turn_completed" == (await client.ask("s2", "Hello")).events[-1]["type"]


class TestFence:
    async def test_a_worker_that_does_not_hear_itself_stops_its_processes_and_goes_on_when_it_does(
        self, client: Client, start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WARMWIRE_EMULATOR_DELTAS", "2000")
        worker = await start_worker()
        asked = await client.send("s1", "Hello")
        await eventually(lambda: asked.text, "a first delta")
        (subscription,) = [
            one for one in worker._bus._client._subs.values() if one.subject == client.subjects.heartbeats
        ]
        heard, subscription._cb = subscription._cb, ignore
        (pid,) = emulator_pids(tmp_path)
        await eventually(lambda: stopped(pid), "unheard, the process stands still")
        subscription._cb = heard
        assert "turn_completed" == (await asked.ended())["type"]
        assert 1 == len(asked.of("turn_started"))

    async def test_what_was_frozen_before_stays_frozen(
        self, client: Client, start_worker: StartWorker, tmp_path: Path
    ) -> None:
        worker = await start_worker(freeze_after=0.1)
        pid = await frozen(client, tmp_path, "Hello")
        for command in (fence.Freeze(), fence.Thaw()):
            worker._obey([command])
        assert stopped(pid)


async def ignore(_: object) -> None:
    """A network that has swallowed the heartbeat."""


def stopped(pid: int) -> bool:
    found = tree.seen(pid)
    return found is not None and found.state == "T"
