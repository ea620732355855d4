"""What somebody may try, one test for each attempt: the table is in docs/security.md."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from warmwire.broker.wire.names import SessionKey
from warmwire.edge.access.tokens import LEEWAY

from tests.edge.access.test_auth import code, sent
from tests.edge.access.tokens import SECRET, bearer, pem, rsa_key, token, with_secret
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeTurn, FakeWorker
from tests.edge.test_problems import queued
from tests.edge.test_websocket import opened
from tests.edge.wire import WITHIN, Answer, Wire

S1 = "/v1/sessions/s1"
OPEN_TO_ALL = {"/healthz", "/readyz"}


@pytest.fixture
async def wire(start: Start, tmp_path: Path) -> Wire:
    """A wire in front of an edge that wants tokens."""
    return (await start(**with_secret(tmp_path))).wire


@pytest.fixture
async def hers(wire: Wire, worker: FakeWorker) -> FakeTurn:
    """Alice's turn in her session s1, which runs and has said something."""
    assert (await sent(wire, "alice")).status == 202
    turn = await worker.next_turn()
    await turn.start()
    await turn.delta("a secret")
    return turn


def lasting(seconds: int) -> int:
    """An ``exp`` after which a stream that begins now lasts about that long."""
    return int(time()) - LEEWAY + seconds


# -- without a token


async def test_every_route_of_the_api_wants_a_token(wire: Wire) -> None:
    paths = json.loads(await (await wire.request("GET", "/openapi.json")).body())["paths"]
    asked = 0
    for path, operations in paths.items():
        for method in operations:
            answer = await wire.send(method.upper(), re.sub(r"\{\w+\}", "s1", path))
            if path in OPEN_TO_ALL:
                assert answer.status == 200, path
                continue
            assert await code(answer) == (401, "unauthenticated"), path
            assert answer.headers["www-authenticate"] == 'Bearer realm="warmwire"'
            asked += 1
    assert asked >= 12
    for path in ("/v1/chat/ws", "/chat/ws"):
        url = f"ws://{wire.host}:{wire.port}{path}"
        async with connect(url, proxy=None, open_timeout=WITHIN) as socket:
            await asyncio.wait_for(socket.wait_closed(), WITHIN)
            assert socket.close_code == 4600, path


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b", "Bearer a.b.c", "Bearer ."]
)
async def test_what_is_no_token_is_refused(wire: Wire, given: str) -> None:
    assert (await wire.request("GET", S1, {"authorization": given})).status == 401


# -- foreign sessions


async def test_a_foreign_session_cannot_be_read(wire: Wire, hers: FakeTurn) -> None:
    paths = ["", "/turns"]
    for path in paths:
        foreign = await wire.request("GET", S1 + path, bearer("bob"))
        unknown = await wire.request("GET", f"/v1/sessions/s9{path}", bearer("bob"))
        told, expected = await foreign.problem(), await unknown.problem()
        assert foreign.status == 404
        assert told == expected | {"detail": expected["detail"].replace("s9", "s1")}
    resumed = await wire.request(
        "GET", "/v1/chat/stream?session_id=s1", bearer("bob") | {"last-event-id": f"{hers.id}.0.0"}
    )
    assert await code(resumed) == (404, "unknown_session")
    guides = f"/chat/stream?session_id=s1&last_event_id={hers.id}.0.0"
    assert await code(await wire.request("GET", guides, bearer("bob"))) == (404, "unknown_session")


async def test_a_foreign_session_cannot_be_watched(wire: Wire, hers: FakeTurn) -> None:
    answer = await wire.request("GET", f"{S1}/events", bearer("bob"))
    assert await code(answer) == (403, "foreign_session")
    assert hers.session_id == "s1"


async def test_a_foreign_session_cannot_be_written_to(wire: Wire, hers: FakeTurn, worker: FakeWorker) -> None:
    message = {"session_id": "s1", "message": "Hello"}
    query = "session_id=s1&message=Hello"
    answers = [
        await sent(wire, "bob"),
        await wire.post(message, bearer("bob")),
        await wire.request("GET", f"/v1/chat/stream?{query}", bearer("bob")),
        await wire.request("POST", f"/chat/stream?{query}", bearer("bob")),
        await wire.request("GET", f"/chat/stream?{query}", bearer("bob")),
    ]
    assert [await code(answer) for answer in answers] == [(403, "foreign_session")] * 5
    assert await queued(worker) == 1
    assert hers.session_id == "s1"


async def test_a_foreign_session_cannot_be_interrupted(
    wire: Wire, hers: FakeTurn, worker: FakeWorker
) -> None:
    for body in ({}, {"turn": hers.id}):
        answer = await wire.send("POST", f"{S1}/interrupt", body, **bearer("bob"))
        assert await code(answer) == (404, "unknown_session")
    assert worker.interrupts == []
    assert (await wire.send("POST", f"{S1}/interrupt", {}, **bearer("alice"))).status == 202


async def test_a_foreign_session_cannot_be_deleted(wire: Wire, hers: FakeTurn, worker: FakeWorker) -> None:
    assert await code(await wire.send("DELETE", S1, **bearer("bob"))) == (404, "unknown_session")
    assert worker.interrupts == worker.closed == []
    assert await worker.store.head(hers.key) is not None


async def test_a_foreign_session_is_no_nearer_over_a_websocket(wire: Wire, hers: FakeTurn) -> None:
    line = await opened(wire, additional_headers=bearer("bob"))
    for frame in (
        {"type": "watch", "session_id": "s1"},
        {"type": "watch", "session_id": "s1", "cursor": f"{hers.id}.0.0"},
        {"type": "user_message", "session_id": "s1", "message": "Hello"},
    ):
        await line.send(**frame)
        assert (await line.frame())["code"] == "foreign_session"
    await line.send(type="interrupt", session_id="s1")
    assert (await line.frame())["code"] == "unknown_session"
    await line.socket.close()
    url = f"ws://{wire.host}:{wire.port}/chat/ws"
    async with connect(url, proxy=None, additional_headers=bearer("bob")) as guide:
        await guide.send("s1")
        await asyncio.wait_for(guide.wait_closed(), WITHIN)
        assert guide.close_code == 4502


@pytest.mark.parametrize("session", ["*", "%3E", "a.b", "s1.*", "..", "s*"])
async def test_a_wildcard_is_no_session_id(wire: Wire, worker: FakeWorker, session: str) -> None:
    answers = [
        await sent(wire, session=session),
        await wire.request("GET", f"/v1/sessions/{session}/events", bearer()),
        await wire.request("GET", f"/v1/sessions/{session}", bearer()),
        await wire.request("GET", f"/v1/chat/stream?session_id={session}&message=Hello", bearer()),
        await wire.send("POST", "/v1/tickets", {"session_id": session}, **bearer()),
    ]
    assert [answer.status for answer in answers] == [422] * 5
    assert await queued(worker) == 0


@pytest.mark.parametrize("tenant", ["*", ">", "acme.s1", ""])
async def test_a_wildcard_is_no_tenant(wire: Wire, hers: FakeTurn, tenant: str) -> None:
    answer = await wire.request("GET", S1, bearer("alice", tenant=tenant))
    assert await code(answer) == (403, "unusable_token")
    assert hers.session_id == "s1"


async def test_a_forged_cursor_shows_nothing(wire: Wire, hers: FakeTurn) -> None:
    assert (await sent(wire, "bob", "s2")).status == 202
    for cursor in (f"{hers.id}.{hers.epoch}.1", "ww-evt-acme-s1.1.1", "*.1.1", "0.99999999999999999.1"):
        watched = await wire.request(
            "GET", "/v1/sessions/s2/events", bearer("bob") | {"last-event-id": cursor}
        )
        type_, data, _ = await watched.event()
        assert type_ == "gap"
        assert "a secret" not in json.dumps(data)
        await watched.leave()


async def test_a_cursor_of_a_foreign_session_shows_nothing_of_it(wire: Wire, hers: FakeTurn) -> None:
    assert (await sent(wire, "bob", "s2")).status == 202
    headers = bearer("bob") | {"last-event-id": f"{hers.id}.0.0"}
    answer = await wire.request("GET", "/v1/chat/stream?session_id=s2", headers)
    type_, _, _ = await answer.event()
    assert type_ == "gap"
    await hers.delta("another secret")
    await hers.complete()
    await answer.leave()
    assert b"secret" not in b"".join(answer.chunks)


# -- forged tokens


async def read(wire: Wire, given: str) -> tuple[int, str]:
    """What a token comes to."""
    return await code(await wire.request("GET", S1, {"authorization": f"Bearer {given}"}))


async def test_an_expired_token_is_refused(wire: Wire) -> None:
    assert await read(wire, token(exp=lasting(-1))) == (401, "token_expired")


def part(value: object) -> str:
    """A part of a token."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


CLAIMS = {"sub": "alice", "tenant": "acme", "scope": "chat:read", "exp": 4_000_000_000}


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None])
async def test_a_token_without_a_signature_is_refused(wire: Wire, alg: str | None) -> None:
    for signature in ("", part(b"\0" * 32)):
        forged = f"{part({'alg': alg, 'typ': 'JWT'})}.{part(CLAIMS)}.{signature}"
        assert await read(wire, forged) == (401, "invalid_token")


async def test_a_public_key_is_no_secret(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem(rsa_key()))
    wire = (await start(auth="jwt", jwt_public_key_file=path)).wire
    signed = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(CLAIMS)}"
    for secret in (pem(rsa_key()), pem(rsa_key()).strip()):
        forged = f"{signed}.{part(hmac.digest(secret, signed.encode(), sha256))}"
        assert await read(wire, forged) == (401, "invalid_token")
    assert await read(wire, token(key=rsa_key(), alg="RS256")) == (404, "unknown_session")


async def test_a_wrong_signature_is_refused(wire: Wire) -> None:
    good = token()
    head, claims, signature = good.split(".")
    others = part(CLAIMS | {"sub": "bob"})
    forged = [f"{head}.{others}.{signature}", token(key="x" * 32), good[:-4] + "AAAA", f"{head}.{claims}."]
    forged += [f"{head}.{claims}", "x" * 9000]
    assert [await read(wire, each) for each in forged] == [(401, "invalid_token")] * 6


async def test_a_token_for_somebody_else_is_refused(start: Start, tmp_path: Path) -> None:
    wire = (await start(**with_secret(tmp_path), jwt_audience="chat", jwt_issuer="us")).wire
    for claims in ({"aud": "mail", "iss": "us"}, {"aud": "chat", "iss": "them"}, {}):
        assert await read(wire, token(**claims)) == (401, "invalid_token")
    assert await read(wire, token(aud="chat", iss="us")) == (404, "unknown_session")


async def test_a_scope_allows_what_it_says(wire: Wire, hers: FakeTurn, worker: FakeWorker) -> None:
    reader, writer = bearer(scope="chat:read"), bearer(scope="chat:write")
    refused = [
        await sent(wire, scope="chat:read"),
        await wire.send("POST", f"{S1}/interrupt", {}, **reader),
        await wire.send("DELETE", S1, **reader),
        await wire.request("GET", S1, writer),
        await wire.request("GET", f"{S1}/events", writer),
        await wire.request("GET", S1, bearer(scope=None)),
    ]
    assert [await code(answer) for answer in refused] == [(403, "missing_scope")] * 6
    assert (await wire.request("GET", S1, reader)).status == 200
    assert (await sent(wire, scope="chat:write")).status == 202
    assert await queued(worker) == 2
    assert hers.session_id == "s1"


# -- tokens that expire while they are used


async def while_good(begin: Callable[[int], Awaitable[Any]]) -> Any:
    """What ``begin`` makes with a token that expires soon, but not before it is there."""
    for seconds in (2, 4, 8, 16, 32):
        begun = await begin(lasting(seconds))
        if begun is not None:
            return begun
    pytest.fail("no token lived long enough")


async def test_a_stream_ends_with_its_token(wire: Wire, hers: FakeTurn) -> None:
    async def watched(exp: int) -> Answer | None:
        answer = await wire.request("GET", f"{S1}/events", bearer(exp=exp))
        return answer if answer.status == 200 else None

    answer: Answer = await while_good(watched)
    answer._seconds = 3 * WITHIN
    events = await answer.until("error")
    assert events[-1][1]["code"] == "token_expired"
    assert await answer.body() == b""
    await hers.complete()


async def test_a_websocket_ends_with_its_token(wire: Wire) -> None:
    async def connected(exp: int) -> Any:
        line = await opened(wire, additional_headers=bearer(exp=exp))
        await line.send(type="ping")
        frame = json.loads(await line.socket.recv())
        return line if frame["type"] == "pong" else None

    line = await while_good(connected)
    assert (await line.frame())["code"] == "token_expired"
    assert await line.closed() == 4601


async def test_the_guides_websocket_ends_with_its_token(wire: Wire, worker: FakeWorker) -> None:
    turns: list[FakeTurn] = []

    async def answer() -> None:
        while True:
            turns.append(await worker.next_turn())
            await turns[-1].start()
            await turns[-1].delta("a word")

    async def answered(exp: int) -> ClientConnection | None:
        url = f"ws://{wire.host}:{wire.port}/chat/ws"
        try:
            line = await connect(url, proxy=None, additional_headers=bearer(exp=exp))
            await line.send(f"s{exp}")  # of each try its own, whatever became of the one before
            await line.send("Hello")
            assert "a word" == json.loads(await line.recv())["delta"]["text"]
        except (InvalidStatus, ConnectionClosed):
            return None
        return line

    answering = asyncio.create_task(answer())
    line: ClientConnection = await while_good(answered)
    with pytest.raises(ConnectionClosed):
        await line.recv()
    assert 4601 == line.close_code
    await turns[-1].complete()
    answering.cancel()


async def test_a_browser_brings_its_token_as_a_subprotocol(wire: Wire, worker: FakeWorker) -> None:
    offered = ["warmwire", f"warmwire.bearer.{token()}"]
    line = await opened(wire, subprotocols=offered)
    assert line.socket.subprotocol == "warmwire"
    await line.send(type="user_message", session_id="s1", message="Hello")
    assert (await worker.next_turn()).key == SessionKey("acme", "s1")
    await line.socket.close()


async def test_tokens_and_tickets_are_not_logged(
    wire: Wire, hers: FakeTurn, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    good, bad = token("alice"), token("alice", key="y" * 32)
    made = await wire.send("POST", "/v1/tickets", {"session_id": "s1"}, authorization=f"Bearer {good}")
    ticket = (await made.json())["ticket"]
    bodies = [json.dumps(made.headers)]
    for given in (f"Bearer {good}", f"Bearer {bad}"):
        answer = await wire.request("GET", S1, {"authorization": given})
        bodies.append(json.dumps(answer.headers) + (await answer.body()).decode())
    for _ in range(2):
        answer = await wire.request("GET", f"{S1}/events?ticket={ticket}")
        bodies.append(json.dumps(answer.headers))
    line = await opened(wire, subprotocols=["warmwire", f"warmwire.bearer.{bad}"])
    assert await line.closed() == 4600
    bodies.append(str(line.socket.close_reason))
    captured = capfd.readouterr()
    everything = captured.out + captured.err + caplog.text + "".join(bodies)
    for secret in (good, bad, ticket, SECRET, good.split(".")[2]):
        assert secret not in everything
    assert hers.session_id == "s1"


# -- what a request may look like


@pytest.mark.parametrize("ending", ["\r\nx-evil: 1", "\n x-evil: 1", "\0", "%0d%0ax-evil:%201"])
async def test_no_header_can_be_injected(wire: Wire, worker: FakeWorker, ending: str) -> None:
    message = {"session_id": f"s1{ending}", "message": "Hello"}
    by_body = await wire.post(message, bearer())
    assert by_body.status == 422
    query = (
        f"/v1/chat/stream?session_id=s1{'%0d%0ax-evil:%201' if ending[0] != '%' else ending}&message=Hello"
    )
    by_url = await wire.request("GET", query, bearer())
    assert by_url.status == 422
    path = await wire.request("GET", "/v1/sessions/s1%0d%0ax-evil:%201", bearer())
    by_claim = await wire.request("GET", S1, bearer(f"alice{ending}" if ending[0] != "%" else "a\r\nb"))
    assert (path.status, by_claim.status) == (422, 403)
    for answer in (by_body, by_url, path, by_claim):
        assert "x-evil" not in answer.headers
    keyed = f"POST /v1/chat/stream HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k{ending}\r\n\r\n"
    refused = await (await wire.raw(keyed.encode())).head()
    assert refused.status in (400, 401)
    assert await queued(worker) == 0


async def test_an_oversize_body_is_refused(start: Start, worker: FakeWorker, tmp_path: Path) -> None:
    wire = (await start(**with_secret(tmp_path), max_message_bytes=1000)).wire
    answer = await wire.post({"message": "x" * 100_000}, bearer())
    assert await code(answer) == (413, "message_too_large")
    made = await wire.request(
        "POST", "/v1/tickets", {**bearer(), "content-type": "application/json"}, b" " * 100_000
    )
    assert await code(made) == (413, "message_too_large")
    assert await queued(worker) == 0


def test_each_test_that_the_table_names_is_there() -> None:
    here = Path(__file__).parent
    page = (here.parents[1] / "docs" / "security.md").read_text()
    tests = "".join(each.read_text() for each in here.rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) >= 25
    assert [name for name in named if f"def {name}(" not in tests] == []
