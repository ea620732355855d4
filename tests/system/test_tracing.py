"""One turn is one trace, through every role and over a worker's death, and holds nothing that was said."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
from nats.aio.msg import Msg
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from warmwire.worker.cli.program import find_claude

from tests.compose.running import Running, running
from tests.conftest import SECONDS, require, wait_for
from tests.otlp import Receiver, receiving
from tests.standin.messages_api import Behaviour, in_thread

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

CANARY = f"canary-{secrets.token_hex(12)}"
CALLER = "b7ad6b7169203331"
Trace = list[tuple[str, Span]]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def up(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "WARMWIRE_EMULATOR_RATE": "20",
        "WARMWIRE_EMULATOR_DELTAS": "40",
        "WARMWIRE_EMULATOR_FAULT": "tool",
        "WARMWIRE_EMULATOR_FAULT_ON": "tools",
    }
    with running(tmp_path_factory.mktemp("tracing") / "up", environment=environment) as up:
        up.wait_until_ready()
        yield up


def ask(up: Running, message: str, trace: str, dying: bool = False) -> list[dict[str, Any]]:
    """The events of a turn; ``dying``: its worker is killed at the first delta."""
    body = {"session_id": secrets.token_hex(4), "message": message}
    headers = {"traceparent": f"00-{trace}-{CALLER}-01"}
    events: list[dict[str, Any]] = []
    url, patience = f"{up.url}/v1/chat/stream", 60 * SECONDS
    with httpx.stream("POST", url, json=body, headers=headers, timeout=patience) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                events.append(json.loads(line.removeprefix("data: ")))
                if dying and events[-1]["type"] == "content_block_delta":
                    os.kill(up.child("warmwire.worker"), signal.SIGKILL)
                    dying = False
    return events


def whole(receiver: Receiver, trace: str) -> Trace:
    """The trace, once all of it is here."""
    ended = {"deliver turn", "commit", "POST /v1/chat/stream"}
    wait_for(lambda: ended <= {span.name for _, span in receiver.trace(trace)}, "the whole trace", 30)
    wait_for(
        lambda: any(
            "warmwire.ending" in about(span) for _, span in named(receiver.trace(trace), "process ww.req")
        ),
        "the span of the attempt",
        30,
    )
    return receiver.trace(trace)


def named(trace: Trace, name: str) -> Trace:
    return [each for each in trace if each[1].name == name]


def one(trace: Trace, name: str) -> Span:
    ((_, span),) = named(trace, name)
    return span


def about(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


def test_a_turn_is_one_trace_through_all_roles(up: Running, receiver: Receiver) -> None:
    trace_id = secrets.token_hex(16)
    events = ask(up, f"{CANARY} tools", trace_id)
    trace = whole(receiver, trace_id)
    names = ("POST /v1/chat/stream", "send ww.req", "deliver turn", "process ww.req")
    request, send, deliver, process = (one(trace, name) for name in names)
    (provided,) = [span.name for _, span in trace if span.name.endswith(" process")]
    children = {span.name: span.parent_span_id for _, span in trace}
    assert {
        "POST /v1/chat/stream": bytes.fromhex(CALLER),
        "send ww.req": request.span_id,
        "deliver turn": request.span_id,
        "wait": send.span_id,
        "process ww.req": send.span_id,
        provided: process.span_id,
        "chat": process.span_id,
        "commit": process.span_id,
    } == children
    assert {"warmwire-edge", "warmwire-worker"} == {service for service, _ in trace}
    (ending,) = [event for event in events if event["type"] == "turn_completed"]
    assert ending["traceparent"] == f"00-{trace_id}-{process.span_id.hex()}-01"
    assert [process.span_id] == [link.span_id for link in deliver.links]


def test_the_spans_of_a_turn_tell_what_happened_and_end_in_order(up: Running, receiver: Receiver) -> None:
    trace_id = secrets.token_hex(16)
    ask(up, f"{CANARY} tools", trace_id)
    trace = whole(receiver, trace_id)
    request, deliver, chat = (one(trace, name) for name in ("POST /v1/chat/stream", "deliver turn", "chat"))
    told = sorted(chat.events, key=lambda event: event.time_unix_nano)
    assert ["first delta", "tool started", "tool finished"] == [event.name for event in told]
    assert ["accepted", "first delta", "end"] == [event.name for event in deliver.events]
    (provided,) = [span.name for _, span in trace if span.name.endswith(" process")]
    ends = [one(trace, name).end_time_unix_nano for name in ("wait", provided, "chat", "commit")]
    assert ends == sorted(ends)
    assert request.end_time_unix_nano >= deliver.end_time_unix_nano > chat.start_time_unix_nano


def test_a_takeover_is_in_the_same_trace_and_linked(up: Running, receiver: Receiver) -> None:
    trace_id = secrets.token_hex(16)
    events = ask(up, CANARY, trace_id, dying=True)
    assert "turn_completed" == events[-1]["type"]
    trace = whole(receiver, trace_id)
    lost, again = [event["traceparent"] for event in events if event["type"] == "turn_started"]
    send = one(trace, "send ww.req")
    (process,) = [span for _, span in named(trace, "process ww.req") if about(span)["warmwire.attempt"] == 2]
    assert process.parent_span_id == send.span_id
    assert again == f"00-{trace_id}-{process.span_id.hex()}-01"
    assert [lost] == [f"00-{link.trace_id.hex()}-{link.span_id.hex()}-01" for link in process.links]
    assert about(process)["warmwire.takeover"] is True
    known = {span.span_id.hex() for _, span in trace} | {CALLER, lost.split("-")[2]}
    assert {span.parent_span_id.hex() for _, span in trace} <= known


def test_a_watcher_is_linked_and_not_part_of_the_trace(up: Running, receiver: Receiver) -> None:
    watching, asking, session = secrets.token_hex(16), secrets.token_hex(16), secrets.token_hex(4)
    headers = {"traceparent": f"00-{watching}-{CALLER}-01"}
    url, patience = f"{up.url}/v1/sessions/{session}", 30 * SECONDS
    with httpx.stream("GET", f"{url}/events", headers=headers, timeout=patience) as answer:
        lines = answer.iter_lines()
        next(lines)
        sent = {"traceparent": f"00-{asking}-{CALLER}-01"}
        assert 202 == httpx.post(f"{url}/messages", json={"message": CANARY}, headers=sent).status_code
        assert any(line == "event: turn_completed" for line in lines)
    wait_for(lambda: receiver.trace(watching), "the watcher's span")
    ((_, watcher),) = receiver.trace(watching)
    assert [asking] == [link.trace_id.hex() for link in watcher.links]
    assert not named(receiver.trace(asking), "GET /v1/sessions/{session_id}/events")


def test_who_comes_back_is_linked_and_the_turn_stays_one_trace(up: Running, receiver: Receiver) -> None:
    asking, returning, session = secrets.token_hex(16), secrets.token_hex(16), secrets.token_hex(4)
    body, url = {"session_id": session, "message": CANARY}, f"{up.url}/v1/chat/stream"
    sent, patience = {"traceparent": f"00-{asking}-{CALLER}-01"}, 60 * SECONDS
    with httpx.stream("POST", url, json=body, headers=sent, timeout=patience) as answer:
        seen = first_id(answer.iter_lines())
    again = {"traceparent": f"00-{returning}-{CALLER}-01", "last-event-id": seen}
    url = f"{up.url}/v1/sessions/{session}/events"
    with httpx.stream("GET", url, headers=again, timeout=patience) as answer:
        assert any(line == "event: turn_completed" for line in answer.iter_lines())
    wait_for(lambda: receiver.trace(returning), "the span of who came back")
    ((_, back),) = receiver.trace(returning)
    assert [asking] == [link.trace_id.hex() for link in back.links]
    wait_for(lambda: named(receiver.trace(asking), "commit"), "the turn's last span")
    assert 1 == len(named(receiver.trace(asking), "process ww.req"))


def first_id(lines: Iterator[str]) -> str:
    """The cursor of the first delta."""
    seen = ""
    for line in lines:
        if line.startswith("id: "):
            seen = line.removeprefix("id: ")
        if line == "event: content_block_delta" and seen:
            return seen
    raise AssertionError("no delta has come")


def test_a_forwarded_turn_is_one_trace_below_its_sending(receiver: Receiver, tmp_path: Path) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "WARMWIRE_WORKERS": "2",
        "WARMWIRE_EMULATOR_RATE": "1000",
    }
    with running(tmp_path / "up", environment=environment) as up:
        up.wait_until_ready()
        trace_id = asyncio.run(forwarded(up))
        trace = whole(receiver, trace_id)
    send, process = one(trace, "send ww.req"), one(trace, "process ww.req")
    assert process.parent_span_id == send.span_id
    assert about(process)["warmwire.takeover"] is False
    assert 1 == len(named(trace, "wait"))


async def forwarded(up: Running) -> str:
    """Turns in one session until one comes to its owner by way of the other worker; that one's trace."""
    found = re.search(r"NATS at (nats://\S+)", up.stderr)
    assert found is not None
    client, seen = await nats.connect(found[1]), list[str]()

    async def came(message: Msg) -> None:
        seen.append(json.loads(message.data)["headers"]["traceparent"].split("-")[1])

    await client.subscribe("ww.fwd.>", cb=came)
    await client.flush()
    for _ in range(50):
        trace_id, body = secrets.token_hex(16), {"session_id": "forwarded", "message": CANARY}
        headers = {"traceparent": f"00-{trace_id}-{CALLER}-01"}
        async with httpx.AsyncClient(timeout=60 * SECONDS) as http:
            (await http.post(f"{up.url}/v1/chat/stream", json=body, headers=headers)).raise_for_status()
        await client.flush()
        if trace_id in seen:
            await client.close()
            return trace_id
    raise AssertionError("of 50 turns none was pulled by the other worker")


def test_a_failed_turn_says_so(receiver: Receiver, tmp_path: Path) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "WARMWIRE_EMULATOR_FAULT": "error:400",
    }
    trace_id = secrets.token_hex(16)
    with running(tmp_path / "up", environment=environment) as failing:
        failing.wait_until_ready()
        (end,) = [event for event in ask(failing, CANARY, trace_id) if event["type"] == "turn_failed"]
        trace = whole(receiver, trace_id)
    for name in ("process ww.req", "deliver turn"):
        span = one(trace, name)
        assert Status.STATUS_CODE_ERROR == span.status.code
        assert end["code"] == about(span)["error.type"]


def with_claude(receiver: Receiver, api: str, folder: Path) -> dict[str, str]:
    """The environment of a `warmwire up` whose CLIs may use a shell, and send spans."""
    profiles = folder / "profiles.toml"
    profiles.write_text('[default]\ntools = ["Bash"]\nallowed_tools = ["Bash"]\n')
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "WARMWIRE_CLI": "claude",
        "WARMWIRE_CLI_TRACES": receiver.url,
        "WARMWIRE_SPARES": "0",
        "WARMWIRE_MAX_SPARES": "0",
        "WARMWIRE_PROFILES": str(profiles),
        "ANTHROPIC_API_KEY": f"{CANARY}-key",
        "ANTHROPIC_BASE_URL": api,
    }


@pytest.mark.claude
def test_the_spans_of_a_cli_that_is_started_for_a_turn_are_below_its_chat(
    receiver: Receiver, tmp_path: Path
) -> None:
    require(find_claude(), "claude CLI (pip install 'warmwire[claude]')")
    trace_id = secrets.token_hex(16)
    with in_thread(Behaviour(text=CANARY, tool=f"echo {CANARY}")) as api:
        environment = with_claude(receiver, api.url, tmp_path)
        with running(tmp_path / "up", environment=environment) as up:
            up.wait_until_ready()
            assert "turn_completed" == ask(up, CANARY, trace_id)[-1]["type"]
            chat = one(whole(receiver, trace_id), "chat")
            wait_for(
                lambda: named(receiver.trace(trace_id), "claude_code.interaction"), "the CLI's spans", 30
            )
    trace = receiver.trace(trace_id)
    interaction = one(trace, "claude_code.interaction")
    assert chat.span_id == interaction.parent_span_id
    requests = named(trace, "claude_code.llm_request")
    assert [interaction.span_id] * 2 == [span.parent_span_id for _, span in requests]
    assert "claude_code.tool" in {span.name for _, span in trace}


def test_no_span_holds_what_was_said(up: Running, receiver: Receiver) -> None:
    trace_id = secrets.token_hex(16)
    ask(up, f"{CANARY} tools", trace_id)
    assert whole(receiver, trace_id)
    assert CANARY.encode() not in receiver.raw
