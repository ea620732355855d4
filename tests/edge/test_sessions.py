"""The routes of a session as a whole, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from warmwire.broker.errors import Unavailable
from warmwire.broker.wire.messages import ANSWER_LIMIT, REASON_LIMIT, PermissionReply
from warmwire.broker.wire.names import SessionKey

from tests.client import eventually
from tests.conftest import SECONDS
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeTurn, FakeWorker
from tests.edge.wire import Answer, Wire

MESSAGES = "/v1/sessions/s1/messages"
INTERRUPT = "/v1/sessions/s1/interrupt"
KEY = SessionKey("default", "s1")


async def running(wire: Wire, worker: FakeWorker, message: str = "Hello") -> FakeTurn:
    """A turn that runs in session s1."""
    assert (await wire.send("POST", MESSAGES, {"message": message})).status == 202
    turn = await worker.next_turn()
    await turn.start()
    return turn


async def answered(wire: Wire, worker: FakeWorker, text: str) -> FakeTurn:
    """A turn that has ended in session s1."""
    turn = await running(wire, worker)
    await turn.delta(text)
    await turn.complete()
    return turn


# -- messages


async def test_a_message_is_accepted_with_its_turn(wire: Wire, worker: FakeWorker) -> None:
    answer = await wire.send("POST", MESSAGES, {"message": "Hello", "model": "sonnet"})
    assert answer.status == 202
    turn = await worker.next_turn()
    assert {"turn": turn.id, "session_id": "s1"} == await answer.json()
    assert ("Hello", "sonnet") == (turn.message.content, turn.message.options.model)


async def test_a_repeated_key_gets_the_identical_answer_and_sends_nothing(
    wire: Wire, worker: FakeWorker
) -> None:
    bodies = []
    for _ in range(2):
        answer = await wire.send("POST", MESSAGES, {"message": "Hello"}, idempotency_key="k1")
        assert answer.status == 202
        bodies.append(await answer.body())
    turn = await worker.next_turn()
    await turn.start()
    await turn.complete()
    answer = await wire.send("POST", MESSAGES, {"message": "Hello"}, idempotency_key="k1")
    assert [await answer.body()] * 2 == bodies
    assert worker.waiting == 0


@pytest.mark.parametrize("ended", [False, True])
async def test_a_key_that_comes_with_another_message_is_422(
    wire: Wire, worker: FakeWorker, ended: bool
) -> None:
    await wire.send("POST", MESSAGES, {"message": "Hello"}, idempotency_key="k1")
    if ended:
        turn = await worker.next_turn()
        await turn.start()
        await turn.complete()
    answer = await wire.send("POST", MESSAGES, {"message": "Bye"}, idempotency_key="k1")
    assert answer.status == 422
    assert (await answer.problem())["type"] == "urn:warmwire:problem:key_reused"


async def test_a_body_that_names_another_session_is_refused(wire: Wire, worker: FakeWorker) -> None:
    answer = await wire.send("POST", MESSAGES, {"message": "Hello", "session_id": "s2"})
    assert (422, "session_id") == (answer.status, (await answer.problem())["field"])
    assert worker.waiting == 0


async def test_of_many_rejecting_messages_at_once_over_two_edges_one_gets_in(
    start: Start, worker: FakeWorker
) -> None:
    wires = [(await start()).wire, (await start()).wire]
    body = {"message": "Hello", "double_texting": "reject"}
    tries = [wires[number % 2].send("POST", MESSAGES, body) for number in range(12)]
    statuses = sorted(answer.status for answer in await asyncio.gather(*tries))
    assert [202] + [409] * 11 == statuses
    await worker.next_turn()
    assert worker.waiting == 0


async def test_double_texting_interrupt_stops_what_runs_and_what_waits(
    wire: Wire, worker: FakeWorker
) -> None:
    first = await running(wire, worker)
    waiting = (await (await wire.send("POST", MESSAGES, {"message": "Two"})).json())["turn"]
    await wire.send("POST", MESSAGES, {"message": "Three", "double_texting": "interrupt"})
    assert {waiting, first.id} == set(worker.interrupts)
    assert await worker.store.interrupt_asked(KEY, waiting)


# -- interrupt


async def test_an_interrupt_stops_the_turn_at_hand_however_often_it_is_sent(
    wire: Wire, worker: FakeWorker
) -> None:
    turn = await running(wire, worker)
    for _ in range(2):
        answer = await wire.send("POST", INTERRUPT, {})
        assert answer.status == 202
        assert {"session_id": "s1", "turn": turn.id} == await answer.json()
    await turn.interrupted()
    answer = await wire.send("POST", INTERRUPT, {"turn": turn.id})
    assert (200, None) == (answer.status, (await answer.json())["turn"])


async def test_an_interrupt_before_the_start_waits_for_its_turn(wire: Wire, worker: FakeWorker) -> None:
    turn = (await (await wire.send("POST", MESSAGES, {"message": "Hello"})).json())["turn"]
    answer = await wire.send("POST", INTERRUPT, {})
    assert (202, turn) == (answer.status, (await answer.json())["turn"])
    assert await worker.store.interrupt_asked(KEY, turn)


async def test_an_interrupt_of_a_turn_that_has_ended_does_not_hit_the_next(
    wire: Wire, worker: FakeWorker
) -> None:
    first = await answered(wire, worker, "Hi")
    second = await running(wire, worker)
    answer = await wire.send("POST", INTERRUPT, {"turn": first.id})
    assert (200, None) == (answer.status, (await answer.json())["turn"])
    assert second.id not in worker.interrupts
    assert not await worker.store.interrupt_asked(KEY, second.id)


async def test_an_interrupt_of_nothing_is_fine(wire: Wire) -> None:
    bodies: tuple[dict[str, str] | None, ...] = ({}, None)
    for body in bodies:
        answer = await wire.send("POST", INTERRUPT, body)
        assert (200, None) == (answer.status, (await answer.json())["turn"])


# -- looking


async def test_a_session_that_nobody_has_used_is_404(wire: Wire) -> None:
    for method in ("GET", "DELETE"):
        answer = await wire.send(method, "/v1/sessions/s1")
        assert answer.status == 404
        assert (await answer.problem())["type"] == "urn:warmwire:problem:unknown_session"


async def test_a_session_that_nobody_has_used_is_idle_for_who_says_that_it_may_be_new(wire: Wire) -> None:
    for given, status in (("true", 200), ("false", 404), ("perhaps", 422)):
        answer = await wire.send("GET", f"/v1/sessions/s1?may_be_new={given}")
        assert answer.status == status
    found = await (await wire.send("GET", "/v1/sessions/s1?may_be_new=true")).json()
    assert found == {"session_id": "s1", "state": "idle", "turns": [], "messages": [], "viewers": 0}


async def test_a_session_shows_what_runs_and_waits_and_then_that_it_is_idle(
    wire: Wire, worker: FakeWorker
) -> None:
    turn = await running(wire, worker)
    waiting = (await (await wire.send("POST", MESSAGES, {"message": "Two"})).json())["turn"]
    expected = {
        "session_id": "s1",
        "state": "running",
        "turns": [turn.id, waiting],
        "messages": [
            {"turn": turn.id, "message": "Hello", "message_truncated": False},
            {"turn": waiting, "message": "Two", "message_truncated": False},
        ],
        "viewers": 0,
    }
    assert expected == await (await wire.send("GET", "/v1/sessions/s1")).json()
    await turn.complete()
    await (await worker.next_turn()).complete()
    shown = await (await wire.send("GET", "/v1/sessions/s1")).json()
    assert ("idle", []) == (shown["state"], shown["turns"])


async def test_viewers_are_counted_over_all_edges(start: Start) -> None:
    wires = [(await start()).wire, (await start()).wire]
    viewers = [await wire.watch("s1") for wire in wires for _ in range(2)]
    await wires[0].watch("s2")
    await wires[0].send("POST", MESSAGES, {"message": "Hello"})
    for wire in wires:
        assert (await (await wire.send("GET", "/v1/sessions/s1")).json())["viewers"] == 4
    await viewers[0].leave()

    async def count() -> int:
        return int((await (await wires[1].send("GET", "/v1/sessions/s1")).json())["viewers"])

    async with asyncio.timeout(10 * SECONDS):
        while await count() != 3:
            pass


async def test_ended_turns_are_listed_in_order_and_in_pages(wire: Wire, worker: FakeWorker) -> None:
    made = [await answered(wire, worker, text) for text in ("one", "two", "three")]
    runs = await running(wire, worker)
    first = await (await wire.send("GET", "/v1/sessions/s1/turns?limit=2")).json()
    second = await (await wire.send("GET", f"/v1/sessions/s1/turns?after={first['next']}")).json()
    assert second["next"] is None
    listed = first["turns"] + second["turns"]
    assert [(turn.id, text) for turn, text in zip(made, ("one", "two", "three"), strict=True)] == [
        (turn["turn"], turn["text"]) for turn in listed
    ]
    assert {"completed"} == {turn["ending"] for turn in listed}
    assert {("Hello", False)} == {(turn["message"], turn["message_truncated"]) for turn in listed}
    assert listed[0]["event"]["type"] == "turn_completed"
    assert runs.id not in {turn["turn"] for turn in listed}


@pytest.mark.parametrize(("query", "field"), [("limit=0", "limit"), ("after=x", "after"), ("page=1", "page")])
async def test_a_list_that_cannot_be_had_names_the_field(wire: Wire, query: str, field: str) -> None:
    answer = await wire.send("GET", f"/v1/sessions/s1/turns?{query}")
    assert (422, field) == (answer.status, (await answer.problem())["field"])


# -- deleting


async def test_a_deleted_session_stops_closes_and_is_forgotten(wire: Wire, worker: FakeWorker) -> None:
    turn = await running(wire, worker)
    viewer = await wire.watch("s1")
    await viewer.until("snapshot")
    deleting = asyncio.create_task(wire.send("DELETE", "/v1/sessions/s1"))
    await eventually(lambda: turn.id in worker.interrupts, "the turn is interrupted")
    await turn.interrupted()
    await viewer.until("turn_interrupted")
    answer: Answer = await deleting
    assert answer.status == 204
    assert worker.closed == ["s1"]
    assert (await wire.send("GET", "/v1/sessions/s1")).status == 404
    assert (await (await wire.send("GET", "/v1/sessions/s1/turns")).json())["turns"] == []


async def test_a_deleted_session_begins_anew_even_with_the_same_key(wire: Wire, worker: FakeWorker) -> None:
    for _ in range(2):
        answer = await wire.send("POST", MESSAGES, {"message": "Hello"}, idempotency_key="k1")
        assert answer.status == 202
        turn = await worker.next_turn()
        await turn.start()
        await turn.complete()
        assert (await wire.send("DELETE", "/v1/sessions/s1")).status == 204


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/sessions/a.b"),
        ("GET", "/v1/sessions/%2A"),
        ("GET", "/v1/sessions/%3E/events"),
        ("GET", "/v1/sessions/a%2Eb/turns"),
        ("DELETE", "/v1/sessions/" + "x" * 65),
        ("POST", "/v1/sessions/*/interrupt"),
    ],
)
async def test_a_session_id_that_could_reach_others_is_refused(wire: Wire, method: str, path: str) -> None:
    answer = await wire.send(method, path, {} if method == "POST" else None)
    assert (422, "session_id") == (answer.status, (await answer.problem())["field"])


async def test_a_queue_that_does_not_answer_is_503(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    serves = await start()

    async def silent(*_: object) -> None:
        raise Unavailable("no answer")

    monkeypatch.setattr(serves.edge.management._store, "queued", silent)
    answer = await serves.wire.send("GET", "/v1/sessions/s1")
    assert (503, "2") == (answer.status, answer.headers["retry-after"])


# -- questions of the CLI


@pytest.mark.parametrize(
    "verdict",
    [{"allow": True}, {"allow": True, "input": {"command": "ls"}}, {"allow": False, "reason": "no"}],
)
async def test_a_question_is_answered(wire: Wire, worker: FakeWorker, verdict: dict[str, Any]) -> None:
    turn = await running(wire, worker)
    answer = await wire.send("POST", "/v1/sessions/s1/permissions/7-1", verdict | {"turn": turn.id})
    expected = {"session_id": "s1", "request": "7-1", "allow": verdict["allow"]}
    assert (200, expected) == (answer.status, await answer.json())
    (taken,) = worker.answers
    assert (turn.id, verdict["allow"], verdict.get("reason")) == (taken.turn, taken.allow, taken.reason)
    assert verdict.get("input") == (taken.instead and json.loads(taken.instead))


@pytest.mark.parametrize(
    ("outcome", "status", "kind"),
    [("closed", 409, "question_closed"), ("unknown", 404, "unknown_question")],
)
async def test_an_answer_that_is_not_taken_says_why(
    wire: Wire, worker: FakeWorker, outcome: Any, status: int, kind: str
) -> None:
    await running(wire, worker)
    worker.outcome = PermissionReply(outcome=outcome)
    answer = await wire.send("POST", "/v1/sessions/s1/permissions/7-1", {"allow": True})
    assert (status, f"urn:warmwire:problem:{kind}") == (answer.status, (await answer.problem())["type"])


async def test_an_answer_to_a_session_that_nobody_owns_meets_no_question(wire: Wire) -> None:
    answer = await wire.send("POST", "/v1/sessions/s1/permissions/7-1", {"allow": True})
    assert (404, "urn:warmwire:problem:unknown_question") == (answer.status, (await answer.problem())["type"])


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("7-1", {}, "allow"),
        ("7-1", {"allow": "yes"}, "allow"),
        ("7-1", {"allow": True, "x": 1}, "x"),
        ("7-1", {"allow": False, "input": {}}, "input"),
        ("7-1", {"allow": True, "input": []}, "input"),
        ("7-1", {"allow": True, "input": {"command": "x" * ANSWER_LIMIT}}, "input"),
        ("7-1", {"allow": True, "reason": "because"}, "reason"),
        ("7-1", {"allow": False, "reason": "x" * (REASON_LIMIT + 1)}, "reason"),
        ("a.b", {"allow": True}, "request"),
    ],
)
async def test_an_answer_that_cannot_be_names_the_field(
    wire: Wire, worker: FakeWorker, path: str, body: dict[str, Any], field: str
) -> None:
    answer = await wire.send("POST", f"/v1/sessions/s1/permissions/{path}", body)
    assert (422, field) == (answer.status, (await answer.problem())["field"])
    assert [] == worker.answers
