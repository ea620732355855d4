"""Which of the workers runs a message: real workers against a real NATS server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from warmwire.broker.errors import Unavailable
from warmwire.broker.nats.bus import Bus
from warmwire.broker.wire.messages import OwnerRecord
from warmwire.broker.wire.names import SessionKey, Subjects
from warmwire.compose.nats import server
from warmwire.worker.settings import WorkerSettings

from tests.client import Client, connected, eventually, on_own_streams
from tests.conftest import started_nats_server
from tests.worker.conftest import StartWorker, emulator_pids, running


async def test_quick_messages_of_one_session_are_answered_in_order(
    client: Client, start_worker: StartWorker
) -> None:
    await start_worker()
    await start_worker()
    asked = [await client.send("s1", f"message {number}") for number in range(6)]
    ends = [(await one.ended())["turn"] for one in asked]
    assert [one.turn for one in asked] == ends
    first_seen = [one.items[0].position for one in asked]  # type: ignore[union-attr] # no gaps here
    assert sorted(first_seen) == first_seen


async def test_with_two_workers_every_session_has_one_process(
    client: Client, start_worker: StartWorker, tmp_path: Path
) -> None:
    await start_worker()
    await start_worker()
    for number in range(3):
        await asyncio.gather(*(client.ask(f"s{session}", f"{number}") for session in range(8)))
    assert 8 == len(emulator_pids(tmp_path))


@pytest.mark.parametrize("subject", [Subjects.requests, Subjects.control, Subjects.forwards])
async def test_what_nobody_can_read_is_dropped_and_the_next_message_is_answered(
    client: Client, start_worker: StartWorker, subject: Callable[[Subjects, SessionKey], str]
) -> None:
    await start_worker()
    await client.ask("s1", "Hello")  # somebody owns the session
    await client.bus.publish(subject(client.subjects, SessionKey("default", "s1")), b"{nonsense")
    assert "turn_completed" == (await client.ask("s1", "Hello")).events[-1]["type"]


async def test_a_turn_whose_record_nobody_can_read_fails_and_the_next_message_is_answered(
    client: Client, start_worker: StartWorker
) -> None:
    await start_worker()
    subject = client.subjects.turn(SessionKey("default", "s1"), "t1")
    await client.bus.js.publish(subject, b'{"v":2,"state":"started"}')
    end = (await client.ask("s1", "Hello", turn="t1")).events[-1]
    assert ("unreadable_message", False) == (end["code"], end["retryable"])
    assert "TurnRecord" in end["message"]
    assert "turn_completed" == (await client.ask("s1", "Hello")).events[-1]["type"]


async def test_turns_of_a_session_that_is_bound_to_what_nobody_can_read_fail_and_others_do_not(
    client: Client, start_worker: StartWorker
) -> None:
    worker = await start_worker()
    subject = client.subjects.bound(SessionKey("default", "s1"))
    await client.bus.js.publish(subject, b'{"v":2,"profile":"p"}')
    for _ in range(2):
        end = (await client.ask("s1", "Hello")).events[-1]
        assert ("unreadable_message", False) == (end["code"], end["retryable"])
        assert "BoundRecord.v" in end["message"]
    assert [SessionKey("default", "s1")] == list(worker._placing.hosts)
    assert "turn_completed" == (await client.ask("s2", "Hello")).events[-1]["type"]


async def test_a_turn_that_leaves_more_than_the_server_takes_fails_and_the_next_message_is_answered(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "script").write_text("word " * 8_000)
    monkeypatch.setenv("WARMWIRE_EMULATOR_SCRIPT", str(tmp_path / "script"))
    monkeypatch.setenv("WARMWIRE_EMULATOR_DELTAS", "5")
    monkeypatch.setattr(server, "MAX_PAYLOAD", 64 * 1024)
    with started_nats_server(tmp_path / "nats") as (url, _):
        settings = WorkerSettings(nats=url, prefix=prefix, data=tmp_path, drain_timeout=5.0, spares=0)
        async with on_own_streams(url, prefix) as client, running(settings):
            end = (await client.ask("s1", "word " * 10_000)).events[-1]
            assert "internal" == end["code"]
            assert "max_payload" in end["message"]
            assert "turn_completed" == (await client.ask("s1", "Hello")).events[-1]["type"]


async def test_a_session_of_an_owner_that_was_never_heard_is_claimed(
    client: Client, start_worker: StartWorker
) -> None:
    key = SessionKey("default", "s1")
    epoch = await client.store.claim(key, OwnerRecord(worker="w-gone", nonce="n"), 0)
    await start_worker()
    asked = await client.ask("s1", "Hello")
    assert asked.items[0].position.epoch > epoch  # type: ignore[union-attr] # no gaps here


async def test_a_message_that_cannot_be_given_back_without_nats_is_no_fault(
    prefix: str, tmp_path: Path
) -> None:
    with started_nats_server(tmp_path / "nats") as (url, process):
        settings = WorkerSettings(nats=url, prefix=prefix, data=tmp_path, drain_timeout=0.1, spares=0)
        async with connected(url, prefix) as client, running(settings) as worker:
            worker._placing._may_work = lambda: False
            await client.send("s1", "Hello")
            await eventually(lambda: worker._placing.unplaced, "nobody has taken the message yet")
            process.kill()
            await eventually(lambda: not worker._bus.connected, "the loss is noticed")
            await fill(worker._bus)
            with capture_logs() as said:
                worker._placing.draining = True
                await eventually(lambda: not worker._placing.unplaced, "it is given up")
                await asyncio.sleep(0)  # its task is looked at
    events = [each["event"] for each in said]
    assert "background task failed" not in events
    assert "not told; the server will find out by itself" in events


async def fill(bus: Bus) -> None:
    """Without a connection, until nothing more may wait for it."""
    for size in (1 << 20, 1 << 10, 1):
        with suppress(Unavailable):
            while True:
                await bus.publish("x", bytes(size))


async def test_a_worker_that_lost_its_session_ends_its_process(
    client: Client, start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMWIRE_EMULATOR_DELTAS", "500")
    await start_worker()
    asked = await client.send("s1", "Hello")
    await eventually(lambda: asked.text, "a first delta")
    key = SessionKey("default", "s1")
    owned = await client.store.owner(key)
    assert owned is not None
    await client.store.claim(key, OwnerRecord(worker="w-other", nonce="n"), owned.sequence)
    await eventually(lambda: not emulator_pids(tmp_path), "its process is ended")
