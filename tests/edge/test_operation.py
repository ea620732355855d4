"""The edge as a process: ready, leaving, gone."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from warmwire.edge.app import bind

from tests.client import eventually
from tests.conftest import SECONDS, force
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeWorker
from tests.edge.wire import Wire


async def test_it_is_ready_with_a_worker_and_not_without(start: Start, worker: FakeWorker) -> None:
    serves = await start()
    await serves.wire.ready()
    worker.draining = True
    await eventually(lambda: serves.edge.not_ready() is not None, "the edge hears that its worker leaves")
    answer = await serves.wire.request("GET", "/readyz")
    problem = await answer.problem()
    assert (503, "every worker is leaving") == (answer.status, problem["detail"])
    assert problem["type"] == "urn:warmwire:problem:not_ready"
    assert (await serves.wire.request("GET", "/healthz")).status == 200


async def test_an_edge_that_leaves_is_not_ready(start: Start) -> None:
    serves = await start()
    serves.edge.draining = True
    assert (await (await serves.wire.request("GET", "/readyz")).problem())["detail"] == "this edge is leaving"


async def test_the_api_is_described(wire: Wire) -> None:
    answer = await wire.request("GET", "/openapi.json")
    paths = json.loads(await answer.body())["paths"]
    chat = paths["/v1/chat/stream"]["post"]
    assert {"/v1/chat/stream", "/healthz", "/readyz"} <= paths.keys()
    assert chat["requestBody"]["content"]["application/json"]["schema"]["additionalProperties"] is False
    refusals = {"400", "401", "403", "408", "409", "413", "415", "422", "429", "431", "503"}
    assert {"200"} | refusals == chat["responses"].keys()
    assert [{}, {"bearer": []}] == chat["security"]


@asynccontextmanager
async def process(worker: FakeWorker, nats: str, **settings: str) -> AsyncIterator[tuple[Process, Wire]]:
    """``python -m warmwire.edge``, ready, on a port that is held for it."""
    with bind("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        given = {"nats": nats, "prefix": worker.subjects.prefix, "port": str(port), **settings}
        edge = await run({f"WARMWIRE_{name.upper()}": value for name, value in given.items()})
        try:
            wire = Wire("127.0.0.1", port)
            await ready(wire)
            yield edge, wire
            await wire.close()
        finally:
            if edge.returncode is None:
                force(edge)
            await edge.communicate()


async def run(environment: dict[str, str]) -> Process:
    """An edge process."""
    command = (sys.executable, "-m", "warmwire.edge")
    return await asyncio.create_subprocess_exec(*command, env=os.environ | environment, stderr=PIPE)


async def ready(wire: Wire) -> None:
    """Wait until the edge says so."""
    async with asyncio.timeout(20 * SECONDS):
        while True:
            try:
                return await wire.ready()
            except OSError:  # it does not listen yet
                await asyncio.sleep(0.02)


async def test_sigterm_lets_a_running_turn_end_and_exits_0(worker: FakeWorker, nats_server: str) -> None:
    async with process(worker, nats_server) as (edge, wire):
        answer = await wire.post({"session_id": "s1", "message": "Hello"})
        turn = await worker.next_turn()
        await turn.start()
        await answer.until("content_block_start")
        edge.send_signal(signal.SIGTERM)
        await refused(wire)
        await turn.delta("still here")
        await turn.complete()
        assert (await answer.until("[DONE]"))[-2][0] == "turn_completed"
        assert await edge.wait() == 0


async def refused(wire: Wire) -> None:
    """Wait until no connection is accepted any more."""
    async with asyncio.timeout(10 * SECONDS):
        while True:
            try:
                await wire.raw(b"")
            except OSError:
                return
            await asyncio.sleep(0.02)


async def test_sigterm_ends_a_turn_that_goes_on_in_bounded_time_and_it_can_be_resumed(
    worker: FakeWorker, nats_server: str
) -> None:
    async with process(worker, nats_server, drain_timeout="0.1") as (edge, wire):
        answer = await wire.post({"session_id": "s1", "message": "Hello"})
        turn = await worker.next_turn()
        await turn.start()
        cursor = (await answer.until("content_block_start"))[-1][2]
        edge.send_signal(signal.SIGTERM)
        assert re.fullmatch(rb"retry: \d{3,4}\n\n", await answer.frame())  # not all at the same moment
        assert await answer.frame() == b""  # a proper end of the response, and no [DONE]
        assert await edge.wait() == 0
    async with process(worker, nats_server) as (_, wire):
        back = await wire.resume("s1", cursor)
        await turn.complete()
        assert [kind for kind, _, _ in await back.until("[DONE]")] == ["turn_completed", "[DONE]"]


async def test_a_second_signal_forces(worker: FakeWorker, nats_server: str) -> None:
    async with process(worker, nats_server) as (edge, wire):
        answer = await wire.post({"session_id": "s1", "message": "Hello"})
        await answer.until("turn_queued")
        edge.send_signal(signal.SIGINT)
        await refused(wire)
        edge.send_signal(signal.SIGTERM)
        assert await edge.wait() == 1


@pytest.mark.parametrize(
    ("name", "value", "code", "text"),
    [
        ("WARMWIRE_NATS", "nats://127.0.0.1:1", 1, "no NATS server answers at nats://127.0.0.1:1"),
        ("WARMWIRE_PREFIX", "a.b", 2, "prefix: must be 1 to 32 characters"),
        ("WARMWIRE_KEEPALIVE", "soon", 2, "WARMWIRE_KEEPALIVE: Input should be a valid number"),
        ("WARMWIRE_HOST", "192.0.2.1", 1, "cannot listen on 192.0.2.1 port 0"),
    ],
)
async def test_what_cannot_work_is_one_line_and_an_exit_code(
    name: str, value: str, code: int, text: str
) -> None:
    edge = await run({"WARMWIRE_PORT": "0", name: value})
    _, stderr = await edge.communicate()
    assert edge.returncode == code
    lines = stderr.decode().splitlines()
    assert len(lines) == 1, stderr.decode()
    assert lines[0].startswith("warmwire edge: ")
    assert text in lines[0]
