"""Tickets: one stream each, for browsers that can send no header."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from warmwire.broker.wire.messages import TicketRecord
from warmwire.edge.access.auth import _digest

from tests.edge.access.test_auth import code
from tests.edge.access.tokens import bearer, with_secret
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeWorker
from tests.edge.test_websocket import opened
from tests.edge.wire import Answer, Wire

EVENTS = "/v1/sessions/s1/events"
CHAT = "/v1/chat/stream?session_id=s1&message=Hello"


@pytest.fixture
async def wire(start: Start, tmp_path: Path) -> Wire:
    """A wire in front of an edge that wants tokens."""
    return (await start(**with_secret(tmp_path))).wire


async def ticket(wire: Wire, sub: str = "alice", session: str = "s1", **claims: Any) -> str:
    """A ticket."""
    answer = await wire.send("POST", "/v1/tickets", {"session_id": session}, **bearer(sub, **claims))
    assert answer.status == 201
    made: str = (await answer.json())["ticket"]
    return made


async def watch(wire: Wire, ticket: str, cursor: str = "") -> Answer:
    """A watch by a ticket."""
    return await wire.request("GET", f"{EVENTS}?ticket={ticket}", {"last-event-id": cursor} if cursor else {})


async def chat(wire: Wire, ticket: str, cursor: str = "") -> Answer:
    """A message by a ticket, or its stream again."""
    return await wire.request("GET", f"{CHAT}&ticket={ticket}", {"last-event-id": cursor} if cursor else {})


async def test_a_ticket_opens_one_stream(start: Start, tmp_path: Path) -> None:
    one, two = (await start(**with_secret(tmp_path))).wire, (await start(**with_secret(tmp_path))).wire
    used = await ticket(one)
    assert (await watch(two, used)).status == 200
    assert await code(await watch(one, used)) == (401, "invalid_ticket")
    assert await code(await chat(two, used)) == (401, "invalid_ticket")
    at_once = await ticket(one)
    answers = await asyncio.gather(*(watch(wire, at_once) for wire in (one, two, one, two)))
    assert sorted(answer.status for answer in answers) == [200, 401, 401, 401]


async def test_a_ticket_resumes_the_turn_that_it_has_opened_and_no_other(
    wire: Wire, worker: FakeWorker
) -> None:
    used = await ticket(wire)
    first = await chat(wire, used)
    turn = await worker.next_turn()
    await turn.start()
    await turn.delta("Hi ")
    _, _, cursor = (await first.until("content_block_delta"))[-1]
    await first.leave()
    again = await chat(wire, used, cursor)
    await turn.delta("there")
    await turn.complete()
    assert [data["delta"]["text"] for _, data, _ in await again.until("content_block_delta")] == ["there"]
    assert await code(await chat(wire, used)) == (401, "invalid_ticket")
    assert await code(await chat(wire, used, "0.0.0")) == (401, "invalid_ticket")
    assert await code(await watch(wire, used, cursor)) == (401, "invalid_ticket")


async def test_a_new_ticket_resumes_an_old_stream(wire: Wire, worker: FakeWorker) -> None:
    worker.answer_all("Hi")
    events = await (await chat(wire, await ticket(wire))).until("turn_completed")
    resumed = await chat(wire, await ticket(wire), f"{events[0][1]['turn']}.0.0")
    assert (await resumed.until("[DONE]"))[-2][0] == "turn_completed"


async def test_a_ticket_that_joins_the_turn_of_the_same_message_resumes_that(
    wire: Wire, worker: FakeWorker
) -> None:
    first = await chat(wire, await ticket(wire))
    turn = await worker.next_turn()
    await turn.start()
    used = await ticket(wire)
    joined = await chat(wire, used)
    _, _, cursor = await joined.event()
    await joined.leave()
    assert (await chat(wire, used, cursor)).status == 200
    assert cursor.startswith(turn.id)
    assert first.status == 200


async def test_a_watch_is_resumed_with_its_ticket_and_a_cursor(wire: Wire) -> None:
    used = await ticket(wire)
    first = await watch(wire, used)
    frame = (await first.frame()).decode()
    while "id: " not in frame:
        frame = (await first.frame()).decode()
    cursor = frame.partition("id: ")[2].split("\n")[0]
    assert (await watch(wire, used, cursor)).status == 200
    assert await code(await watch(wire, used, "no cursor")) == (401, "invalid_ticket")


async def test_a_ticket_is_for_its_session_alone(wire: Wire) -> None:
    used = await ticket(wire, session="s2")
    assert await code(await watch(wire, used)) == (403, "foreign_session")
    line = await opened(wire, f"?ticket={await ticket(wire, session='s2', sessions=['s1', 's2'])}")
    await line.send(type="watch", session_id="s1")
    assert (await line.frame())["code"] == "foreign_session"
    await line.send(type="watch", session_id="s2", id="w")
    assert (await line.frame())["type"] == "watching"
    await line.socket.close()


async def test_a_ticket_opens_one_websocket(wire: Wire) -> None:
    used = await ticket(wire)
    line = await opened(wire, f"?ticket={used}")
    await line.send(type="ping")
    assert (await line.frame())["type"] == "pong"
    assert await (await opened(wire, f"?ticket={used}")).closed() == 4600
    await line.socket.close()


async def test_a_ticket_gives_no_more_than_its_token(wire: Wire) -> None:
    reader = await ticket(wire, scope="chat:read")
    assert await code(await chat(wire, reader)) == (403, "missing_scope")
    assert (await watch(wire, reader)).status == 200


@pytest.mark.parametrize("made_up", ["", "wwt_", "wwt_" + "A" * 43, "*", "A" * 5000])
async def test_a_forged_ticket_is_refused(wire: Wire, made_up: str) -> None:
    assert await code(await watch(wire, made_up)) == (401, "invalid_ticket")


async def test_an_expired_ticket_is_refused(wire: Wire, worker: FakeWorker) -> None:
    scopes = ("chat:read",)
    record = TicketRecord(tenant="acme", subject="alice", scopes=scopes, session="s1", expires=1.0)
    expired = "wwt_" + "e" * 43
    await worker.store.put_ticket(_digest(expired), record, 0, 60)
    assert await code(await watch(wire, expired)) == (401, "invalid_ticket")


async def test_a_ticket_does_not_make_tickets_or_stand_for_a_token_elsewhere(wire: Wire) -> None:
    used = await ticket(wire)
    made = await wire.send("POST", f"/v1/tickets?ticket={used}", {"session_id": "s1"})
    assert await code(made) == (401, "unauthenticated")
    assert await code(await wire.request("GET", f"/v1/sessions/s1?ticket={used}")) == (401, "unauthenticated")


async def test_there_is_no_ticket_to_a_foreign_session(wire: Wire) -> None:
    assert (
        await wire.send("POST", "/v1/sessions/s1/messages", {"message": "Hello"}, **bearer())
    ).status == 202
    refused = await wire.send("POST", "/v1/tickets", {"session_id": "s1"}, **bearer("bob"))
    assert await code(refused) == (403, "foreign_session")
    refused = await wire.send("POST", "/v1/tickets", {"session_id": "a.b"}, **bearer("bob"))
    assert await code(refused) == (422, "invalid_field")


async def test_with_authentication_off_a_ticket_is_given_and_not_asked_for(start: Start) -> None:
    wire = (await start()).wire
    made = await wire.send("POST", "/v1/tickets", {"session_id": "s1"})
    assert made.status == 201
    assert (await watch(wire, (await made.json())["ticket"])).status == 200
    assert (await watch(wire, "anything")).status == 200
