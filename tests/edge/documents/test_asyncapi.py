"""The AsyncAPI document against what travels over a real connection."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from warmwire.edge import frames, websocket
from warmwire.edge.documents import asyncapi

from tests.edge.conftest import Serving, Start
from tests.edge.fake_worker import FakeWorker
from tests.edge.test_websocket import SEND, Line, opened
from tests.edge.wire import Wire

DOCUMENT: dict[str, Any] = asyncapi.document("1")


def schema(name: str) -> Draft202012Validator:
    """What the document says of a frame, with everything that it refers to."""
    payload = DOCUMENT["components"]["messages"][name]["payload"]
    return Draft202012Validator({**payload, "components": DOCUMENT["components"]})


def refs(value: Any) -> list[str]:
    """Every reference in a document."""
    if isinstance(value, dict):
        here = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return here + [ref for each in value.values() for ref in refs(each)]
    return [ref for each in value for ref in refs(each)] if isinstance(value, list) else []


def test_every_reference_leads_somewhere() -> None:
    for ref in refs(DOCUMENT):
        found: Any = DOCUMENT
        for part in ref.removeprefix("#/").split("/"):
            found = found[part]
        assert found


@pytest.mark.parametrize("name", list(asyncapi.REQUESTS))
def test_the_example_of_what_a_client_sends_is_read_by_the_edge(name: str) -> None:
    example = asyncapi.EXAMPLES[name]
    schema(name).validate(example)
    assert isinstance(frames.read(json.dumps(example)), asyncapi.REQUESTS[name])


@pytest.mark.parametrize("name", list(asyncapi.REPLIES))
def test_the_example_of_what_a_client_is_sent_is_as_described(name: str) -> None:
    schema(name).validate(asyncapi.EXAMPLES[name])


def test_the_edge_says_nothing_that_is_not_described() -> None:
    source = Path(websocket.__file__).read_text()
    said = set(re.findall(r'(?:_confirm|frames\.answer)\(\s*"(\w+)"', source))
    assert said | {"event", "error"} == asyncapi.REPLIES.keys()


async def test_an_edge_serves_it(wire: Wire) -> None:
    answer = await wire.request("GET", "/asyncapi.json")
    served = await answer.json()
    assert DOCUMENT | {"info": served["info"]} == served


async def until(line: Line, type_: str, seen: dict[str, dict[str, Any]]) -> None:
    """Frames up to and with the first of that type; each has to be as described."""
    while True:
        frame = await line.frame()
        name = frame.get("type", "event")
        schema(name).validate(frame)
        seen[name] = frame
        if type_ in (name, frame.get("event", {}).get("type")):
            return


async def test_every_frame_of_a_real_conversation_is_as_described(start: Start, worker: FakeWorker) -> None:
    serves: Serving = await start()
    line = await opened(serves.wire)
    seen: dict[str, dict[str, Any]] = {}
    await line.send(**SEND, id="1")
    await until(line, "accepted", seen)
    turn = await worker.next_turn()
    await turn.start()
    await turn.delta("Hi")
    await until(line, "content_block_delta", seen)
    for type_ in ("interrupt", "unwatch", "watch"):
        await line.send(type=type_, session_id="s1", id=type_)
    await line.send(type="watch", session_id="s1", cursor="nonsense")
    await line.send(type="ping")
    await until(line, "pong", seen)
    await line.send(**SEND, double_texting="reject", id="2")
    await until(line, "error", seen)
    await turn.complete()
    await until(line, "turn_completed", seen)
    serves.edge.drain()
    await until(line, "reconnect", seen)
    assert asyncapi.REPLIES.keys() - {"answered"} == seen.keys()


BAD: list[dict[str, Any]] = [
    {"type": "ping", "unknown": 1},
    {"type": "watch"},
    {"type": "watch", "session_id": "s1", "cursor": "x" * 257},
    {"type": "user_message", "session_id": "a.b", "message": "Hi"},
    {"type": "user_message", "message": ""},
    {"type": "user_message", "message": "Hi", "rollup_ms": 501},
    {"type": "interrupt", "session_id": 1},
]


async def test_what_the_document_does_not_allow_the_edge_refuses(wire: Wire) -> None:
    line = await opened(wire)
    for frame in BAD:
        assert not schema(frame["type"]).is_valid(frame)
        await line.send(**frame)
        assert "error" == (await line.frame())["type"], frame
    await line.socket.close()
