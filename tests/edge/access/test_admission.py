"""Who is refused, with which words, at one edge and at several; and that nothing is published then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import pytest
from websockets.asyncio.client import connect

from warmwire.edge.frames import Close

from tests.client import eventually
from tests.conftest import SECONDS
from tests.edge.conftest import Serving, Start
from tests.edge.fake_worker import FakeWorker
from tests.edge.test_problems import queued
from tests.edge.test_websocket import Line, opened
from tests.edge.wire import WITHIN, Answer, Wire

HELLO = {"session_id": "s1", "message": "Hello"}
RARE = 0.001
"""Requests per second of who is to get no more than a first one."""
ONE = {"subject_rate": RARE, "rate_burst": 1 / RARE}


async def refused(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """The problem document of an answer that must be this one, with a time to wait."""
    problem = await answer.problem()
    assert (status, f"urn:warmwire:problem:{code}") == (answer.status, problem["type"])
    assert int(answer.headers["retry-after"]) > 0
    return problem


async def test_past_the_rate_of_a_subject_it_is_429_and_nothing_is_published(
    start: Start, worker: FakeWorker
) -> None:
    wire = (await start(**ONE)).wire
    assert 200 == (await wire.post(HELLO)).status
    answer = await wire.post(HELLO)
    problem = await refused(answer, 429, "rate_limited")
    assert ("subject", RARE) == (problem["field"], problem["limit"])
    assert "1000" == answer.headers["retry-after"]
    for method, path in (
        ("POST", "/v1/sessions/s1/messages"),
        ("DELETE", "/v1/sessions/s1"),
        ("GET", "/v1/sessions/s1"),
    ):
        await refused(await wire.send(method, path, HELLO if method == "POST" else None), 429, "rate_limited")
    assert 1 == await queued(worker)
    assert 200 == (await wire.request("GET", "/healthz")).status


async def test_a_tenant_has_a_rate_of_its_own(start: Start) -> None:
    wire = (await start(tenant_rate=RARE, rate_burst=2 / RARE)).wire
    assert [200, 200] == [(await wire.post(HELLO)).status for _ in range(2)]
    problem = await refused(await wire.post(HELLO), 429, "rate_limited")
    assert ("tenant", RARE) == (problem["field"], problem["limit"])


async def test_who_resumes_is_told_to_come_later_as_a_browser_understands_it(start: Start) -> None:
    wire = (await start(**ONE)).wire
    await wire.watch("s1")
    for back in (await wire.watch("s1", "0.0.0"), await wire.resume("s1", "0.0.0")):
        assert (200, "text/event-stream; charset=utf-8") == (back.status, back.headers["content-type"])
        assert b"retry: 1000000\n\n" == await back.body()


async def test_over_a_websocket_a_frame_is_refused_with_the_time_to_wait(
    start: Start, worker: FakeWorker
) -> None:
    wire = (await start(subject_rate=RARE, rate_burst=2 / RARE)).wire
    line = await opened(wire)
    await line.send(type="watch", session_id="s1", id="1")
    assert "watching" == (await line.frame())["type"]
    await line.send(type="user_message", id="2", **HELLO)
    error = await line.frame()
    assert ("error", "2", "rate_limited", 429) == tuple(
        error[name] for name in ("type", "id", "code", "status")
    )
    assert 1000 == error["retry_after"]
    await line.send(type="ping", id="3")
    assert "pong" == (await line.frame())["type"]
    assert 0 == await queued(worker)


async def test_edges_share_a_rate(start: Start) -> None:
    edges = [await start(subject_rate=RARE, rate_burst=8 / RARE) for _ in range(2)]
    await eventually(
        lambda: all(2 == each.edge._neighbours.count for each in edges), "the edges know each other"
    )
    statuses = [(await each.wire.watch("s1")).status for each in edges for _ in range(6)]
    assert [200] * 4 + [429] * 2 == statuses[:6] == statuses[6:]
    await edges[1].edge._neighbours.stop()
    await eventually(lambda: 1 == edges[0].edge._neighbours.count, "one is alone again")


async def test_streams_of_a_subject_are_counted_while_they_are_open(start: Start, worker: FakeWorker) -> None:
    wire = (await start(subject_streams=2)).wire
    first, second = await wire.watch("s1"), await wire.post(HELLO)
    problem = await refused(
        await wire.post({"session_id": "s2", "message": "Hello"}), 429, "too_many_streams"
    )
    assert 2 == problem["limit"]
    assert 1 == await queued(worker)
    assert b"retry: 5000\n\n" == await (await wire.watch("s1", "0.0.0")).body()
    turn = await worker.next_turn()
    await turn.start()
    await turn.complete()
    await second.until("[DONE]")
    await first.leave()
    for session in ("s1", "s2"):
        assert 200 == (await after_a_place(wire, session)).status


async def after_a_place(wire: Wire, session: str) -> Answer:
    """A stream, as soon as there is a place for it."""
    while (answer := await wire.watch(session)).status == 429:
        await answer.problem()
    return answer


async def test_a_websocket_is_one_of_the_streams(start: Start) -> None:
    wire = (await start(subject_streams=1)).wire
    line = await opened(wire)
    await refused(await wire.watch("s1"), 429, "too_many_streams")
    assert Close.UNAVAILABLE.code == await (await opened(wire)).closed()
    await line.socket.close()
    assert 200 == (await after_a_place(wire, "s1")).status


@pytest.mark.parametrize("path", ["/v1/chat/ws", "/chat/ws"])
async def test_a_websocket_on_which_nothing_is_asked_is_closed(start: Start, path: str) -> None:
    wire = (await start(silent_timeout=0.1)).wire
    line = Line(await connect(f"ws://{wire.host}:{wire.port}{path}", proxy=None, open_timeout=WITHIN))
    assert Close.SILENT.code == await line.closed()


async def test_a_websocket_on_which_something_was_asked_is_not(start: Start) -> None:
    wire = (await start(silent_timeout=SECONDS)).wire
    line = await opened(wire)
    await line.send(type="watch", session_id="s1", id="1")
    await line.frame()
    assert Close.SILENT.code == await (await opened(wire)).closed()  # so much time has passed
    await line.send(type="ping", id="2")
    assert "pong" == (await line.frame())["type"]


async def test_turns_of_a_tenant_are_counted_over_all_edges(start: Start, worker: FakeWorker) -> None:
    edges = [await start(tenant_turns=2) for _ in range(2)]
    first, second = [each.wire for each in edges]
    answer = await first.post(HELLO)
    assert 202 == (await second.send("POST", "/v1/sessions/s2/messages", {"message": "Hello"})).status
    counts = edges[0].edge.admission._turns._tenants["default"].count
    await eventually(lambda: not counts.is_good(monotonic()), "the first edge's count is too old")
    for wire in (first, second):
        problem = await refused(await wire.post({"message": "Hello"}), 429, "too_many_turns")
        assert ("tenant", 2) == (problem["field"], problem["limit"])
    assert 2 == await queued(worker)
    turn = await worker.next_turn()
    await turn.start()
    await turn.complete()
    await answer.until("[DONE]")

    async def post() -> Answer:
        return await second.post({"message": "Hello"})

    assert 200 == (await until_let_in(post)).status


async def until_let_in(post: Callable[[], Awaitable[Answer]]) -> Answer:
    """What is answered once it is not refused any more."""
    while (answer := await post()).status in (429, 503):
        await answer.problem()
    return answer


async def test_many_at_once_get_no_more_than_the_limit(start: Start, worker: FakeWorker) -> None:
    wire = (await start(tenant_turns=3)).wire
    answers = await asyncio.gather(*[wire.post({"message": "Hello"}) for _ in range(10)])
    assert [200] * 3 + [429] * 7 == sorted(answer.status for answer in answers)
    assert 3 == await queued(worker)


async def test_a_full_pool_queues(start: Start, worker: FakeWorker) -> None:
    serves = await start()
    await full(serves, worker)
    answer = await serves.wire.post(HELLO)
    assert "turn_queued" == (await answer.event())[0]


async def full(serves: Serving, worker: FakeWorker) -> None:
    """Until the edge has heard that there is no free slot."""
    worker.free = 0
    await eventually(lambda: not free(serves), "the edge hears that the pool is full")


def free(serves: Serving) -> int:
    return sum(beat.free for beat in serves.edge._liveness.alive(monotonic()))


async def test_a_full_pool_rejects_before_anything_is_published(start: Start, worker: FakeWorker) -> None:
    serves = await start(admission="reject")
    wire = serves.wire
    key = {"idempotency-key": "k1"}
    assert 200 == (await wire.post(HELLO, key)).status
    await full(serves, worker)
    await refused(await wire.post(HELLO), 503, "pool_full")
    await refused(await wire.send("POST", "/v1/sessions/s1/messages", {"message": "Hello"}), 503, "pool_full")
    line = await opened(wire)
    await line.send(type="user_message", id="1", **HELLO)
    error = await line.frame()
    assert ("error", "1", "pool_full", 503, 2) == tuple(
        error[name] for name in ("type", "id", "code", "status", "retry_after")
    )
    assert 1 == await queued(worker)
    assert 200 == (await wire.post(HELLO, key)).status  # a repetition begins nothing
    assert 1 == await queued(worker)
    worker.free = 100
    assert 200 == (await until_let_in(lambda: wire.post(HELLO))).status


async def test_what_was_sent_since_the_heartbeat_takes_slots(start: Start, worker: FakeWorker) -> None:
    worker.free = 2
    serves = await start(admission="reject")
    await eventually(lambda: free(serves) == 2, "the edge hears of two slots")
    answers = await asyncio.gather(*[serves.wire.post({"message": "Hello"}) for _ in range(8)])
    statuses = sorted(answer.status for answer in answers)
    assert 2 <= statuses.count(200) < 8  # a heartbeat of the fake worker, which counts none, may come between
    assert statuses.count(200) == await queued(worker)


async def test_a_message_that_nats_would_not_take_is_413_and_names_its_limit(
    start: Start, worker: FakeWorker
) -> None:
    serves = await start(max_message_bytes=64 * 1024 * 1024)
    most = serves.edge._bus.max_payload
    answer = await serves.wire.post({"message": "x" * most})
    problem = await answer.problem()
    assert (413, "urn:warmwire:problem:message_too_large") == (answer.status, problem["type"])
    assert ("message", True) == (problem["field"], 0 < problem["limit"] < most)
    assert 200 == (await serves.wire.post({"message": "x" * (problem["limit"] - 1000)})).status
    assert 1 == await queued(worker)
