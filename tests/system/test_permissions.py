"""Each role does its whole job with the rights that `warmwire nats-config` gives it, and nothing else.

What is denied is the table of docs/nats.md: each of its rows is tried here.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from warmwire.broker.errors import Unavailable
from warmwire.broker.nats import streams
from warmwire.broker.nats.bus import Bus, connect
from warmwire.broker.nats.joining import join
from warmwire.broker.wire.names import Subjects
from warmwire.edge.settings import EdgeSettings
from warmwire.producer import Producer

from tests.client import eventually
from tests.compose.secured import Served, served, write
from tests.conftest import SECONDS
from tests.edge.access.tokens import bearer, with_secret
from tests.edge.conftest import serving
from tests.system.cluster import Worker as WorkerProcess
from tests.system.product import Product, end_of, ended, text_of

PAGE = (Path(__file__).parent.parent.parent / "docs" / "nats.md").read_text()
ROWS = re.findall(r"^\| `([a-z-]+)` \| (publishes|listens) \| `([^`]+)` \| (.+) \|$", PAGE, re.MULTILINE)
CLI = [sys.executable, "-m", "warmwire.compose"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMWIRE_EMULATOR_RATE", "1000")
    monkeypatch.setenv("WARMWIRE_EMULATOR_TTFT_MS", "1")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    """Of one test: afterwards its log says that nothing was denied."""
    with served(tmp_path / "nats") as server:
        yield server
        assert [] == [line for line in server.log.splitlines() if "iolation" in line]


@asynccontextmanager
async def secured(server: Served, folder: Path) -> AsyncIterator[Product]:
    """An edge, and no worker yet, each to be the user of its role."""
    async with serving(EdgeSettings(**server.settings("edge"), port=0)) as edge:
        product = Product(server.url, "ww", folder, edge.wire, edge.edge)
        product.given = server.settings("worker")
        yield product
        for worker in product.workers:
            await worker.stop()


async def operate(server: Served, *arguments: str) -> tuple[int, str]:
    """A command of the operator's; its exit code, and what it prints."""
    process = await asyncio.create_subprocess_exec(
        *CLI,
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | server.environment("operator"),
    )
    async with asyncio.timeout(30 * SECONDS):
        out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_an_edge_and_a_worker_chat_interrupt_list_and_delete(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", "hang:3")
    monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT_ON", "long")
    async with secured(server, tmp_path) as product:
        await product.work()
        assert "turn_completed" == (await product.ask("Hello"))[-1][0]
        assert "Hello" == text_of(await product.ask("recall"))
        stream = await product.chat("a long one")
        await stream.until("content_block_delta")
        assert 202 == (await product.interrupt())[0]
        assert "turn_interrupted" == (await ended(stream))[-1][0]
        turns = await (await product.wire.send("GET", "/v1/sessions/s1/turns")).json()
        assert 3 == len(turns["turns"])
        assert 200 == (await product.wire.send("GET", "/v1/sessions/s1")).status
        assert 200 == (await product.wire.send("GET", "/metrics")).status
        assert 204 == (await product.wire.send("DELETE", "/v1/sessions/s1")).status


async def test_a_message_pulled_by_another_worker_reaches_the_owner(server: Served, tmp_path: Path) -> None:
    async with secured(server, tmp_path) as product:
        for _ in range(2):
            await product.work()
        for number in range(8):  # whichever pulls, the owner answers
            assert "turn_completed" == (await product.ask(f"message {number}"))[-1][0]


async def test_a_question_is_asked_and_answered(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", "ask")
    async with secured(server, tmp_path) as product:
        await product.work()
        stream = await product.chat("Hello")
        request = (await stream.until("permission_requested"))[-1][1]["request"]
        assert 200 == (await product.permit(request, allow=True))[0]
        assert "turn_completed" == (await ended(stream))[-1][0]


async def test_with_authentication_sessions_have_users_and_tickets_open_streams(
    server: Served, tmp_path: Path
) -> None:
    settings = EdgeSettings(**server.settings("edge"), port=0, **with_secret(tmp_path))
    async with serving(settings) as edge:
        headers = {"content-type": "application/json", **bearer()}
        body = json.dumps({"session_id": "s1"}).encode()
        made = await edge.wire.request("POST", "/v1/tickets", headers, body)
        assert made.status in (200, 201), await made.body()
        ticket = (await made.json())["ticket"]
        opened = await edge.wire.request("GET", f"/v1/sessions/s1/events?ticket={ticket}")
        assert 200 == opened.status
        message = json.dumps({"session_id": "s1", "message": "Hello"}).encode()
        foreign = await edge.wire.request(
            "POST", "/v1/chat/stream", {"content-type": "application/json", **bearer("bob")}, message
        )
        assert 403 == foreign.status


async def test_a_worker_takes_over_from_one_that_was_killed(server: Served, tmp_path: Path) -> None:
    environment = server.environment("worker") | {
        "WARMWIRE_DATA": str(tmp_path / "data"),
        "WARMWIRE_EMULATOR_RATE": "5",
        "WARMWIRE_EMULATOR_DELTAS": "12",
        "WARMWIRE_SPARES": "0",
    }
    async with secured(server, tmp_path) as product:
        workers = [WorkerProcess(f"w{n}", tmp_path / f"w{n}.out", environment) for n in (1, 2)]
        try:
            assert [True, True] == [await worker.ready() for worker in workers]
            stream = await product.chat("Hello")
            (started,) = [
                data for type_, data, _ in await stream.until("turn_started") if type_ == "turn_started"
            ]
            (owner,) = [worker for worker in workers if worker.id == started["worker"]]
            owner.kill()
            product.wire.within = 30 * SECONDS
            events = await ended(stream)
            assert ("turn_completed", 2) == (events[-1][0], end_of(events)["attempt"])
        finally:
            for worker in workers:
                worker.kill()


async def test_a_producer_sends_follows_resumes_watches_and_interrupts(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with secured(server, tmp_path) as product:
        await product.work()
        for name, value in server.environment("producer").items():
            monkeypatch.setenv(name, value)
        async with Producer.connect() as producer:
            watch = await producer.watch("s1")
            turn = await producer.send("Hello", session_id="s1", idempotency_key="k")
            events = [event async for event in turn]
            assert "turn_completed" == events[-1].type
            again = await producer.send("Hello", session_id="s1", idempotency_key="k")
            assert "turn_completed" == [event async for event in again][-1].type
            rejected = await producer.send("Hello", session_id="s2", double_texting="reject")
            assert await rejected.text()
            assert await (await producer.send("Hello", session_id="s1", double_texting="interrupt")).text()
            assert await producer.interrupt("s1") is None
            assert (2, ()) == (len(await producer.past("s1")), await producer.waiting("s1"))
            assert ((), ()) == (await producer.past("unused"), await producer.waiting("unused"))
            watch.close()


async def test_an_operator_looks_interrupts_and_drains(server: Served, tmp_path: Path) -> None:
    async with secured(server, tmp_path) as product:
        worker = await product.work()
        await product.ask("Hello")
        top, doctor, listed, shown, interrupted = await asyncio.gather(  # most of it is the start of Python
            operate(server, "top", "--once", "--json"),
            operate(server, "doctor"),
            operate(server, "streams"),
            operate(server, "session", "show", "s1"),
            operate(server, "session", "interrupt", "s1"),
        )
        assert (0, [worker.id]) == (top[0], [each["worker"] for each in json.loads(top[1])["workers"]])
        assert doctor[0] == 0, doctor[1]
        assert (0, 3) == (listed[0], listed[1].count("as it is to be"))
        assert (0, worker.id) == (shown[0], json.loads(shown[1])["owner"])
        assert (1, "warmwire: there is nothing to stop\n") == interrupted
        other = await product.work()
        assert (0, f"default.s1 is at {other.id}\n") == await operate(server, "session", "move", "s1")
        assert "Hello" == text_of(await product.ask("recall"))
        assert "Hello" in (await operate(server, "session", "log", "--content", "s1"))[1]
        assert {"warmwire-edge", "warmwire-worker"} == await discovered(server)
        assert (0, f"{worker.id} drains\n") == await operate(server, "worker", "drain", worker.id)
        await eventually(worker.leave.is_set, "the worker is told")


async def discovered(server: Served) -> set[str]:
    """The services that answer an operator's ping."""
    async with user(server, "operator") as (bus, _):
        return {
            json.loads(await bus.request(f"$SRV.PING.{name}", b"", 10 * SECONDS))["name"]
            for name in ("warmwire-edge", "warmwire-worker")
        }


async def test_streams_of_an_older_version_are_brought_up_by_an_operator_and_by_nobody_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(tmp_path / "nats", "--no-tls") as server:
        async with user(server, "operator") as (operator, _), user(server, "edge") as (edge, _):
            await streams.ensure(operator, Subjects("ww"), 1, 1000)
            config = (await operator.js.stream_info("WW_STATE")).config
            older = replace(config, subjects=[each for each in config.subjects or [] if ".tkt." not in each])
            await operator.js.update_stream(older)
            with pytest.raises(Unavailable, match=r"may not publish to \$JS.API.STREAM.UPDATE.WW_STATE"):
                await join(EdgeSettings(**server.settings("edge")), "edge", "edge", consumer=False)
            assert "asking again" not in capsys.readouterr().out  # who may not is not made to wait
            code, out = await operate(server, "doctor")
            assert (1, True) == (code, "WW_STATE of an older version" in out)
            assert 0 == (await operate(server, "streams"))[0]
            await streams.ensure(edge, Subjects("ww"), 1, 1000, consumer=False)


# -- what is denied


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With two tenants that have accounts of their own; nothing of ours runs there."""
    with served(
        tmp_path_factory.mktemp("nats"), "--no-tls", "--tenant", "acme", "--tenant", "umbrella"
    ) as server:
        yield server


@asynccontextmanager
async def user(server: Served, name: str) -> AsyncIterator[tuple[Bus, list[str]]]:
    """A connection, and what the server has denied it."""
    bus = await connect(server.url, name, server.login(name))
    denied: list[str] = []
    reported = bus._client._error_cb

    async def heard(error: Exception) -> None:
        denied.append(str(error))
        await reported(error)

    bus._client._error_cb = heard
    try:
        yield bus, denied
    finally:
        await bus.close()


def test_the_table_of_what_is_denied_is_long() -> None:
    assert len(ROWS) >= 60
    assert {"edge", "worker", "producer", "operator", "edge-acme", "worker-acme", "producer-acme"} <= {
        who for who, _, _, _ in ROWS
    }


def denial(does: str, subject: str) -> str:
    """What the server says."""
    said = "publish" if does == "publishes" else "subscription"
    return f'nats: permissions violation for {said} to "{subject.lower()}"'


async def tried(server: Served, who: str) -> list[str]:
    """All that the table says of a user, tried on one connection; what the server has denied."""
    rows = [(does, subject) for user, does, subject, _ in ROWS if user == who]
    async with user(server, who) as (bus, denied):
        for does, subject in rows:
            if does == "publishes":
                await bus.publish(subject, b"{}")
            else:
                await bus.subscribe(subject, lambda _: None)
        await bus.flush()
        with suppress(AssertionError):  # which one is missing, its row says
            await eventually(lambda: len(denied) >= len(rows), "the server denies all of it")
    return denied


@pytest.fixture(scope="module")
def denied(shared: Served) -> dict[str, list[str]]:
    """What each user of the table was denied."""

    async def try_all() -> list[list[str]]:
        return await asyncio.gather(*(tried(shared, who) for who in users))

    users = sorted({who for who, _, _, _ in ROWS})
    return dict(zip(users, asyncio.run(try_all()), strict=True))


@pytest.mark.parametrize(
    ("who", "does", "subject", "why"), ROWS, ids=lambda each: str(each).replace(" ", "-")[:40]
)
def test_it_is_denied(denied: dict[str, list[str]], who: str, does: str, subject: str, why: str) -> None:
    assert why
    assert denial(does, subject) in denied[who]


async def test_who_asks_what_it_may_not_is_told_at_once(shared: Served) -> None:
    async with user(shared, "producer") as (bus, _):
        with pytest.raises(Unavailable, match=r"may not publish to \$JS.API.STREAM.DELETE.WW_REQ"):
            await bus.request("$JS.API.STREAM.DELETE.WW_REQ", b"", 60 * SECONDS)


async def test_an_answer_goes_to_who_asked_and_nowhere_else(shared: Served) -> None:
    async with user(shared, "worker") as (worker, denied), user(shared, "operator") as (operator, _):
        inboxes: list[str] = []
        await worker.subscribe("ww.ctl.t.s", lambda message: inboxes.append(message.reply))
        await worker.flush()
        with suppress(Unavailable):
            await operator.request("ww.ctl.t.s", b"{}", 0.001)
        await eventually(lambda: inboxes, "the worker is asked")
        await worker.publish(inboxes[0], b"answered")
        await worker.flush()
        assert [] == denied
        await worker.publish(f"{inboxes[0]}x", b"somebody else's")
        await eventually(lambda: denied, "the server denies it")


async def test_a_tenant_with_an_account_of_its_own_hears_and_stores_nothing_of_others(shared: Served) -> None:
    async with (
        user(shared, "worker-acme") as (acme, _),
        user(shared, "operator") as (ours, _),
        user(shared, "operator-umbrella") as (umbrella, _),
    ):
        heard: list[bytes] = []
        for other in (ours, umbrella):
            await other.subscribe("ww.>", lambda message: heard.append(message.data))
            await other.flush()
        await acme.publish("ww.evt.acme.s1", b"a secret")
        await acme.flush()
        for other in (ours, umbrella):
            await other.publish("ww.wrk.nobody.ctl", b"the end")
        await eventually(lambda: len(heard) == 2, "what came after it")
        assert {b"the end"} == set(heard)
        assert 0 == (await umbrella.js.account_info()).streams


async def test_only_the_system_user_sees_the_servers_themselves(shared: Served) -> None:
    async with user(shared, "system") as (system, denied):
        answer = json.loads(await system.request("$SYS.REQ.SERVER.PING", b"", 10 * SECONDS))
        assert "warmwire" == answer["server"]["name"]
        assert [] == denied


async def test_a_changed_password_counts_at_once_for_those_who_are_connected(tmp_path: Path) -> None:
    with served(tmp_path / "nats", "--no-tls") as server:
        async with user(server, "edge") as (bus, _):
            ends: list[None] = []
            bus.on_reconnect(lambda: ends.append(None))
            before = (server.folder / "users" / "edge.password").read_text()
            (server.folder / "users" / "edge.password").unlink()
            port = server.url.rsplit(":", 1)[1]
            write(server.folder, "--no-tls", "--port", port)
            assert before != (server.folder / "users" / "edge.password").read_text()
            os.kill(server.pid, signal.SIGHUP)  # read the configuration again
            await eventually(lambda: ends, "connected again, with the new password")
            await bus.flush()
