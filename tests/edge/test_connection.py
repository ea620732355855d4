"""Connections before and between requests, over raw sockets: how many, how large a head, how slow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from warmwire.edge.connection import EXCESS

from tests.client import eventually
from tests.conftest import SECONDS
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeWorker
from tests.edge.wire import Answer, Wire

SOON = {"header_timeout": 0.2, "body_timeout": 0.2, "idle_timeout": 0.2}
NEVER = 3600.0
POST = b"POST /v1/chat/stream HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
BODY = b'{"session_id": "s1", "message": "Hello"}'


async def rest(answer: Answer) -> bytes:
    """All that comes until the edge closes the connection."""
    async with asyncio.timeout(answer._seconds):
        try:
            return await answer._reader.read(-1)
        except ConnectionResetError:
            return b"reset"


def parsed(answer: bytes) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and problem document of a whole answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    return int(lines[0].split(" ")[1]), headers, json.loads(body)


PACE = 0.02
"""Seconds between two bytes of who sends slowly: the behaviour under test, nothing is waited for."""


async def drip(answer: Answer, data: bytes) -> None:
    """One byte at a time, as long as anybody listens."""
    for byte in data:
        answer._writer.write(bytes([byte]))
        try:
            await answer._writer.drain()
        except ConnectionError:
            return
        await asyncio.sleep(PACE)


@pytest.fixture
async def dripping() -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks: list[asyncio.Task[None]] = []
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_head_that_does_not_end_is_408(start: Start) -> None:
    wire = (await start(**SOON | {"body_timeout": NEVER, "idle_timeout": NEVER})).wire
    status, headers, problem = parsed(await rest(await wire.raw(POST)))
    assert (408, "close") == (status, headers["connection"])
    assert "urn:warmwire:problem:request_timeout" == problem["type"]
    assert "the request's head did not come within 0.2 seconds" == problem["detail"]


async def test_a_head_that_comes_byte_by_byte_is_cut(
    start: Start, dripping: list[asyncio.Task[None]]
) -> None:
    wire = (await start(**SOON | {"body_timeout": NEVER, "idle_timeout": NEVER})).wire
    slow = await wire.raw(b"")
    dripping.append(asyncio.create_task(drip(slow, POST * 50)))
    # What it sends after the answer may break the connection before it has read that.
    whole = await rest(slow)
    assert whole == b"reset" or parsed(whole)[0] == 408


async def test_a_body_that_does_not_come_is_408_and_nothing_is_published(
    start: Start, worker: FakeWorker
) -> None:
    wire = (await start(**SOON | {"header_timeout": NEVER, "idle_timeout": NEVER})).wire
    slow = await wire.raw(POST + b"content-length: %d\r\n\r\n" % len(BODY) + BODY[:-1])
    status, _, problem = parsed(await rest(slow))
    assert (408, "the request's body did not come within 0.2 seconds") == (status, problem["detail"])
    assert worker.waiting == 0


async def test_a_connection_that_sends_nothing_is_closed_without_a_word(start: Start) -> None:
    wire = (await start(**SOON | {"body_timeout": NEVER, "idle_timeout": NEVER})).wire
    assert b"" == await rest(await wire.raw(b""))
    assert b"" == await rest(await wire.raw(b"\r\n\r\n"))  # is no beginning of a request


async def test_an_idle_connection_is_closed_and_serves_until_then(start: Start) -> None:
    wire = (await start(**SOON | {"header_timeout": NEVER, "body_timeout": NEVER})).wire
    kept = await wire.raw(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2)
    whole = await rest(kept)
    assert 2 == whole.count(b'{"status":"ok"}')


async def test_a_body_that_goes_on_dripping_after_its_refusal_is_cut(
    start: Start, dripping: list[asyncio.Task[None]]
) -> None:
    wire = (await start(**SOON | {"header_timeout": NEVER, "idle_timeout": NEVER}, max_message_bytes=10)).wire
    slow = await wire.raw(POST + b"content-length: 100000000\r\n\r\n")
    dripping.append(asyncio.create_task(drip(slow, b" " * 1000)))
    assert 413 == (await slow.head()).status
    assert 413 == (await slow.problem())["status"]
    assert (await rest(slow)) in (b"", b"reset")


async def test_a_stream_is_under_none_of_these_times(start: Start, worker: FakeWorker) -> None:
    wire = (await start(**SOON)).wire
    answer = await wire.post({"session_id": "s1", "message": "Hello"})
    turn = await worker.next_turn()
    await turn.start()
    await answer.until("content_block_start")
    idle = await wire.raw(b"")
    assert b"" == await rest(idle)  # so much time has passed
    await turn.delta("still here")
    await turn.complete()
    assert "[DONE]" == (await answer.until("[DONE]"))[-1][0]


async def test_the_next_request_may_come_while_a_response_is_on_its_way(start: Start) -> None:
    wire = (await start(**SOON)).wire
    both = await wire.raw(
        b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n" + b"GET /healthz HTTP/1.1\r\n"
    )
    both._writer.write(b"host: localhost\r\n\r\n")
    whole = await rest(both)
    assert b'{"status":"ok"}' in whole
    assert 2 == whole.count(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nx: " + b"x" * 2000,  # its end never comes
        b"GET /" + b"x" * 2000,
        b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 400,
        b"GET /healthz HTTP/1.1\r\nx: " + b"x" * 2000 + b"\r\n\r\n",
        b"GET /v1/chat/ws HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\nx: "
        + b"x" * 2000
        + b"\r\n\r\n",
    ],
)
async def test_a_large_head_is_431_and_names_the_limit(start: Start, head: bytes) -> None:
    wire = (await start(max_header_bytes=1024)).wire
    status, headers, problem = parsed(await rest(await wire.raw(head)))
    assert (431, "close", 1024) == (status, headers["connection"], problem["limit"])


async def test_a_large_body_behind_a_small_head_is_no_large_head(start: Start) -> None:
    wire = (await start(max_header_bytes=1024)).wire
    answer = await wire.post({"message": "x" * 100_000})
    assert 200 == answer.status


async def fill(wire: Wire, count: int) -> list[Answer]:
    """That many connections with a stream each."""
    return [await wire.watch(f"s{number}") for number in range(count)]


async def test_too_many_connections_are_503_but_for_health_checks(start: Start) -> None:
    serves = await start(max_connections=3)
    wire = serves.wire
    streams = await fill(wire, 3)
    for path in ("/v1/sessions/s1", "/", "/v1/chat/stream?session_id=s1&message=Hello"):
        status, headers, problem = parsed(
            await rest(await wire.raw(b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path.encode()))
        )
        assert (503, "2", "close") == (status, headers["retry-after"], headers["connection"])
        assert ("urn:warmwire:problem:edge_full", 3) == (problem["type"], problem["limit"])
    assert 200 == (await wire.request("GET", "/healthz")).status
    await wire.ready()
    socket = await wire.raw(
        b"GET /v1/chat/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert 503 == parsed(await rest(socket))[0]
    await streams[0].leave()
    for answer in wire._answers:
        await answer.leave()
    await eventually(lambda: not serves.server.server_state.connections, "all have left")
    assert 200 == (await wire.watch("s1")).status


async def test_far_too_many_connections_are_told_so_before_they_ask(start: Start) -> None:
    serves = await start(max_connections=1, header_timeout=NEVER)
    for _ in range(1 + EXCESS):
        await serves.wire.raw(b"")
    await eventually(lambda: len(serves.server.server_state.connections) == 1 + EXCESS, "all are accepted")
    assert 503 == parsed(await rest(await serves.wire.raw(b"")))[0]


async def test_many_slow_connections_leave_room_for_a_fast_one(start: Start) -> None:
    serves = await start(max_connections=50, header_timeout=0.5 * SECONDS)
    slow = [await serves.wire.raw(b"GET /") for _ in range(50)]
    await eventually(lambda: len(serves.server.server_state.connections) < 50, "the slow ones are cut")
    assert 200 == (await serves.wire.watch("s1")).status
    assert all([b"408" in await rest(each) for each in slow])
