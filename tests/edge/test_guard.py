"""Which pages and names may ask, and where an edge without authentication listens (docs/security.md)."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from warmwire.edge.guard import check_exposure, is_foreign, is_ours
from warmwire.edge.settings import EdgeSettings

from tests.edge.access.test_auth import code
from tests.edge.access.tokens import bearer, with_secret
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeWorker
from tests.edge.test_problems import queued

EVIL, FRIEND = "https://evil.example", "https://chat.example"


async def test_a_websocket_of_another_origin_is_refused(start: Start) -> None:
    wire = (await start(allowed_origins=FRIEND)).wire
    for path in ("/v1/chat/ws", "/chat/ws"):
        for origin in (EVIL, "null", f"http://127.0.0.1:{wire.port + 1}", f"http://localhost:{wire.port}"):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{wire.port}{path}", proxy=None, origin=Origin(origin))
            assert refused.value.response.status_code == 403
    for origin in (FRIEND, f"http://127.0.0.1:{wire.port}"):
        url = f"ws://127.0.0.1:{wire.port}/v1/chat/ws"
        async with connect(url, proxy=None, origin=Origin(origin)) as socket:
            await socket.send('{"type":"ping"}')
            assert json.loads(await socket.recv())["type"] == "pong"


async def test_a_post_of_another_origin_is_refused(start: Start, worker: FakeWorker) -> None:
    wire = (await start()).wire
    simple = "/chat/stream?session_id=s1&message=Hello"
    body = {"session_id": "s1", "message": "Hello"}
    answers = [
        await wire.post(body, {"origin": EVIL}),
        await wire.request("POST", simple, {"origin": EVIL, "content-type": "text/plain"}),
        await wire.request("POST", simple, {"origin": "null"}),
        await wire.request("POST", simple, {"sec-fetch-site": "cross-site"}),
        await wire.request("GET", simple, {"sec-fetch-site": "same-site"}),  # an image's source
        await wire.request(
            "OPTIONS", "/v1/chat/stream", {"origin": EVIL, "access-control-request-method": "POST"}
        ),
    ]
    assert [await code(answer) for answer in answers] == [(403, "foreign_origin")] * 6
    assert [answer for answer in answers if "access-control-allow-origin" in answer.headers] == []
    assert await queued(worker) == 0


async def test_pages_of_allowed_origins_may_ask(start: Start, tmp_path: Path) -> None:
    wire = (await start(**with_secret(tmp_path), allowed_origins=f"{FRIEND}, http://a.example:81")).wire
    preflight = {"origin": FRIEND, "access-control-request-method": "POST"}
    asked = await wire.request("OPTIONS", "/v1/chat/stream", preflight)
    assert (204, FRIEND) == (asked.status, asked.headers["access-control-allow-origin"])
    assert {"authorization", "idempotency-key", "last-event-id"} <= set(
        asked.headers["access-control-allow-headers"].split(", ")
    )
    answer = await wire.post({"session_id": "s1", "message": "Hello"}, {"origin": FRIEND} | bearer())
    assert (200, FRIEND) == (answer.status, answer.headers["access-control-allow-origin"])
    assert "x-session-id" in answer.headers["access-control-expose-headers"]
    refused = await wire.post({"session_id": "s1", "message": "Hello"}, {"origin": FRIEND})
    assert (401, FRIEND) == (refused.status, refused.headers["access-control-allow-origin"])


@pytest.mark.parametrize(
    ("origin", "host", "foreign"),
    [
        ("http://localhost:8080", "localhost:8080", False),
        ("https://Chat.example", "chat.example", False),
        ("https://chat.example", "chat.example:443", False),
        ("http://[::1]:8080", "[::1]:8080", False),
        ("http://localhost:8080", "localhost:8081", True),
        ("https://chat.example", "chat.example:80", True),
        ("https://chat.example.evil.example", "chat.example", True),
        ("null", "chat.example", True),
        ("https://", "", True),
        ("https://a:b", "a:b", True),
    ],
)
def test_an_origin_is_ours_when_it_names_host_and_port(origin: str, host: str, foreign: bool) -> None:
    assert foreign is is_foreign({"origin": origin, "host": host}, frozenset())


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost:8080", True),
        ("LOCALHOST", True),
        ("a.localhost", True),
        ("127.0.0.1:8080", True),
        ("10.1.2.3", True),
        ("[::1]:8080", True),
        ("chat.example", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("chat.example@evil.example", False),
        ("", False),
        ("a:b:c", False),
    ],
)
def test_a_host_is_ours_by_address_or_name(host: str, ours: bool) -> None:
    assert ours is is_ours(host, frozenset({"chat.example"}))


async def test_a_name_that_somebody_lets_point_here_is_refused(start: Start, worker: FakeWorker) -> None:
    wire = (await start(allowed_hosts="chat.example")).wire
    evil = {"host": f"evil.example:{wire.port}", "origin": f"http://evil.example:{wire.port}"}
    for path in ("/", "/v1/sessions/s1", "/openapi.json"):
        assert await code(await wire.request("GET", path, evil)) == (403, "foreign_host")
    assert await code(await wire.post({"message": "Hello"}, evil)) == (403, "foreign_host")
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://evil.example:{wire.port}/v1/chat/ws", proxy=None, host="127.0.0.1")
    assert refused.value.response.status_code == 403
    assert (await wire.request("GET", "/", {"host": "chat.example"})).status == 200
    await wire.ready(evil)
    assert await queued(worker) == 0


ANYWHERE = "0.0.0.0"  # noqa: S104 - what must not be listened on


@pytest.mark.parametrize("module", ["warmwire.edge", "warmwire.compose up --data {data}"])
async def test_without_authentication_only_loopback_is_listened_on(
    nats_server: str, prefix: str, tmp_path: Path, module: str
) -> None:
    words = module.format(data=tmp_path).split()
    settings = {"WARMWIRE_NATS": nats_server, "WARMWIRE_PREFIX": prefix}
    settings |= {"WARMWIRE_HOST": ANYWHERE, "WARMWIRE_PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *words, env=os.environ | settings, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    assert (2, b"") == (process.returncode, out)
    assert err.decode().count("\n") == 1
    assert "authentication is off" in err.decode()
    assert "--insecure-no-auth" in err.decode()


def test_who_wants_it_otherwise_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for settings, ip in ((EdgeSettings(**with_secret(tmp_path)), ANYWHERE), (EdgeSettings(), "::1")):
        check_exposure(settings, ip)
    assert capfd.readouterr().out == ""
    check_exposure(EdgeSettings(insecure_no_auth=True), ANYWHERE)
    assert "authentication is off" in capfd.readouterr().out
