"""Tenants: what each may have, and that none sees, touches or starves another."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.names import SessionKey
from warmwire.edge.access.tenants import TenantLimits, load

from tests.edge.access.test_admission import refused
from tests.edge.access.tokens import ALL, bearer, with_secret
from tests.edge.conftest import Serving, Start
from tests.edge.fake_worker import FakeTurn, FakeWorker
from tests.edge.test_websocket import opened
from tests.edge.wire import Answer, Wire

A, B = bearer("alice", tenant="acme"), bearer("alice", tenant="umbrella")
"""The same subject in two tenants: even names that are the same are of two people."""
SMALL = bearer("alice", tenant="small")
ADMIN = bearer("alice", tenant="umbrella", scope=f"{ALL} sessions:admin")


# -- the file


def written(folder: Path, text: str) -> Path:
    path = folder / "tenants.toml"
    path.write_text(text)
    return path


def test_a_file_names_tenants_and_leaves_the_rest_to_the_flags(tmp_path: Path) -> None:
    path = written(tmp_path, '[acme]\nturns = 5\n["um-brella"]\nrate = 0.0\nsessions = 7\n')
    tenants = load(path, TenantLimits(rate=2.0, turns=3))
    assert TenantLimits(rate=2.0, turns=5) == tenants.of("acme")
    assert TenantLimits(rate=0.0, turns=3, sessions=7) == tenants.of("um-brella")
    assert TenantLimits(rate=2.0, turns=3) == tenants.of("another")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[acme]\nturn = 5\n", "acme.turn: is not known"),
        ("[acme]\nturns = -1\n", "acme.turns: Input should be greater than or equal to 0"),
        ("[acme]\nsessions = 10001\n", "acme.sessions: Input should be less than or equal to 10000"),
        ("[acme]\nrate = 'much'\n", "acme.rate: Input should be a valid number"),
        ('["a.b"]\n', "a.b: a tenant has 1 to 64 characters"),
        ("acme = 5\n", "acme must be a table: [acme]"),
        ("[acme", "is not TOML"),
    ],
)
def test_a_file_that_is_not_good_is_refused_by_its_field(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadInput, match="tenants") as refusal:
        load(written(tmp_path, text), TenantLimits())
    assert says in str(refusal.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"tenants: .*none.toml cannot be read: No such file"):
        load(tmp_path / "none.toml", TenantLimits())


# -- limits


@pytest.fixture
async def serves(start: Start, tmp_path: Path) -> Serving:
    """An edge where acme may have little, and everybody else anything."""
    path = written(tmp_path, "[acme]\nturns = 2\n[small]\nsessions = 2\n[slow]\nrate = 0.001\n")
    return await start(tenants=path, **with_secret(tmp_path))


@pytest.fixture
def wire(serves: Serving) -> Wire:
    return serves.wire


async def send(wire: Wire, session: str, token: dict[str, str]) -> Answer:
    return await wire.send("POST", f"/v1/sessions/{session}/messages", {"message": "Hello"}, **token)


async def done(worker: FakeWorker) -> FakeTurn:
    """The next turn, which ends at once."""
    turn = await worker.next_turn()
    await turn.start()
    await turn.complete()
    return turn


async def test_a_full_tenant_does_not_starve_another(wire: Wire, worker: FakeWorker) -> None:
    statuses = [(await send(wire, "s1", A)).status for _ in range(2)]
    problem = await refused(await send(wire, "s1", A), 429, "too_many_turns")
    assert ([202, 202], "tenant", 2) == (statuses, problem["field"], problem["limit"])
    others = await asyncio.gather(*[send(wire, f"s{number}", B) for number in range(5)])
    assert [202] * 5 == [answer.status for answer in others]
    seen = {(await done(worker)).key.tenant for _ in range(7)}
    assert {"acme", "umbrella"} == seen


async def test_each_tenant_has_a_rate_of_its_own(wire: Wire) -> None:
    slow = bearer("alice", tenant="slow")
    statuses = [(await wire.request("GET", "/v1/sessions/s1", slow)).status for _ in range(2)]
    assert [404, 429] == statuses
    assert [404] * 5 == [(await wire.request("GET", "/v1/sessions/s1", B)).status for _ in range(5)]


async def test_past_its_number_of_sessions_a_tenant_begins_no_other(wire: Wire, worker: FakeWorker) -> None:
    for session in ("s1", "s2"):
        assert 202 == (await send(wire, session, SMALL)).status
        await done(worker)
    problem = await refused(await send(wire, "s3", SMALL), 429, "too_many_sessions")
    assert ("tenant", 2) == (problem["field"], problem["limit"])
    assert 202 == (await send(wire, "s2", SMALL)).status, "it goes on with those that it has"
    await done(worker)
    assert [202] * 3 == [(await send(wire, f"s{number}", B)).status for number in range(3)]
    line = await opened(wire, additional_headers=SMALL)
    await line.send(type="user_message", session_id="s4", message="Hello", id="1")
    error = await line.frame()
    assert ("error", "too_many_sessions", 429) == tuple(error[name] for name in ("type", "code", "status"))


async def test_sessions_that_other_edges_let_in_count_once_they_wait_or_are_kept(
    serves: Serving, worker: FakeWorker
) -> None:
    store = worker.store
    assert 0 == await store.sessions_of("acme")
    await store.append_transcript(SessionKey("acme", "kept"), b"{}", 0)
    assert 202 == (await send(serves.wire, "waits", A)).status
    assert 2 == await store.sessions_of("acme")
    assert 0 == await store.sessions_of("umbrella")


# -- isolation


@pytest.fixture
async def theirs(wire: Wire, worker: FakeWorker) -> FakeTurn:
    """A turn of acme's that runs, in a session whose id everybody knows."""
    assert 202 == (await send(wire, "s1", A)).status
    turn = await worker.next_turn()
    await turn.start()
    await turn.delta("a secret")
    return turn


ROUTES: list[tuple[str, str, Any]] = [
    ("GET", "/v1/sessions/s1", None),
    ("GET", "/v1/sessions/s1/turns", None),
    ("DELETE", "/v1/sessions/s1", None),
    ("POST", "/v1/sessions/s1/interrupt", {}),
    ("POST", "/v1/sessions/s1/permissions/r1", {"allow": True}),
]


def nothing(status: int, said: dict[str, Any]) -> bool:
    """Whether it is what is answered about a session that nobody has used, to users and to administrators."""
    if status == 404:
        kind: str = said["type"].rpartition(":")[2]
        return kind in ("unknown_session", "unknown_question")
    return said in ({"turns": [], "next": None}, {"session_id": "s1", "turn": None})


@pytest.mark.parametrize("token", [B, ADMIN], ids=["user", "administrator"])
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route[0]} {route[1]}")
async def test_another_tenant_finds_nothing_by_that_name(
    wire: Wire, theirs: FakeTurn, token: dict[str, str], route: tuple[str, str, Any]
) -> None:
    answer = await wire.send(*route, **token)
    assert nothing(answer.status, await answer.json())
    standing = await wire.request("GET", "/v1/sessions/s1", A)
    assert [theirs.id] == (await standing.json())["turns"], "theirs goes on"


async def test_another_tenant_that_watches_that_name_sees_its_own_session(
    wire: Wire, worker: FakeWorker, theirs: FakeTurn
) -> None:
    watch = await wire.request("GET", "/v1/sessions/s1/events", B)
    assert 200 == watch.status
    await theirs.delta("another secret")
    assert 202 == (await send(wire, "s1", B)).status
    ours = await worker.next_turn()
    await ours.start()
    await ours.delta("Hello")
    seen = await watch.until("content_block_delta")
    assert "Hello" == seen[-1][1]["delta"]["text"]
    assert "secret" not in json.dumps([data for _, data, _ in seen])
    assert (theirs.id, ours.id) == (theirs.id, seen[-1][2].partition(".")[0])


@pytest.mark.parametrize("path", ["/v1/sessions/s1/events", "/v1/chat/stream?session_id=s1&message=Hello"])
async def test_a_cursor_of_another_tenants_turn_shows_nothing_of_it(
    wire: Wire, theirs: FakeTurn, path: str
) -> None:
    headers = {**B, "last-event-id": f"{theirs.id}.{theirs.epoch}.3"}
    answer = await wire.request("GET", path, headers)
    said = await told(answer)
    assert "secret" not in said
    assert answer.status == 404 or theirs.id not in said or '"type":"gap"' in said


async def told(answer: Answer) -> str:
    """Everything that is said until a gap has been told, or the answer ends."""
    if "event-stream" not in answer.headers.get("content-type", ""):
        return (await answer.body()).decode()
    said = ""
    while "gap" not in said and (frame := await answer.frame()):
        said += frame.decode()
    return said


async def test_a_ticket_of_a_tenant_opens_a_session_of_that_tenant(wire: Wire, theirs: FakeTurn) -> None:
    made = await wire.send("POST", "/v1/tickets", {"session_id": "s1"}, **B)
    ticket = (await made.json())["ticket"]
    watch = await wire.request("GET", f"/v1/sessions/s1/events?ticket={ticket}")
    await theirs.delta("another secret")
    frame = await watch.frame()
    assert b"secret" not in frame


async def test_over_a_websocket_another_tenant_is_no_nearer(wire: Wire, theirs: FakeTurn) -> None:
    line = await opened(wire, additional_headers=B)
    await line.send(type="interrupt", session_id="s1", id="1")
    error = await line.frame()
    assert ("error", "unknown_session") == (error["type"], error["code"])
    await line.send(type="watch", session_id="s1", id="2")
    assert "watching" == (await line.frame())["type"]
    await theirs.delta("another secret")
    await line.send(type="ping", id="3")
    assert "pong" == (await line.frame())["type"]


async def test_the_same_session_id_in_two_tenants_is_two_sessions(wire: Wire, worker: FakeWorker) -> None:
    for token in (A, B):
        assert 202 == (await send(wire, "s1", token)).status
    turns = [await done(worker) for _ in range(2)]
    assert {SessionKey("acme", "s1"), SessionKey("umbrella", "s1")} == {turn.key for turn in turns}
    assert 204 == (await wire.request("DELETE", "/v1/sessions/s1", A)).status
    kept = await wire.request("GET", "/v1/sessions/s1/turns", B)
    assert 1 == len((await kept.json())["turns"])


async def test_the_same_idempotency_key_in_two_tenants_is_two_turns(wire: Wire) -> None:
    turns = set()
    for token in (A, B):
        headers = {**token, "idempotency_key": "k1"}
        answer = await wire.send("POST", "/v1/sessions/s1/messages", {"message": "Hello"}, **headers)
        turns.add((await answer.json())["turn"])
    assert 2 == len(turns)
