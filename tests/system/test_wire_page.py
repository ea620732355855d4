"""The commands of docs/reference/wire.md, as plain NATS messages to a real worker; and what its page says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import nats
import pytest
from jsonschema_rs import validator_for
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.client import eventually
from tests.conftest import SECONDS
from tests.system.product import producing

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "wire.md").read_text()
SCHEMAS = {
    name: json.loads(schema)
    for name, schema in re.findall(r"#### `(\w+)`\n.*?```json\n(.*?)\n```", PAGE, re.DOTALL)
}
EVENTS = {
    schema["properties"]["type"]["const"]: schema
    for schema in SCHEMAS.values()
    if "const" in schema["properties"].get("type", {})
}


def commands(kind: str) -> list[list[str]]:
    """The page's ``nats`` commands of one kind, without their first two words."""
    lines = re.findall(rf"^nats {kind} (.*?)(?: &)?$", PAGE, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def test_the_page_has_a_schema_for_each_event_of_ours() -> None:
    assert {
        "turn_queued",
        "turn_started",
        "turn_completed",
        "turn_failed",
        "snapshot",
        "gap",
    } <= EVENTS.keys()


@pytest.mark.slow
async def test_the_commands_of_the_page_are_a_whole_turn(nats_server: str, tmp_path: Path) -> None:
    async with producing(nats_server, tmp_path) as product:
        await product.work()
        prefix = product.given["prefix"]
        client = await nats.connect(nats_server)
        ours = {name: text.replace("ww.", f"{prefix}.", 1) for name, text in _subjects().items()}
        heard = await hearing(client, ours)
        (asked, body, _, header), *controls = commands("req")
        name, _, value = header.partition(":")
        validator_for(SCHEMAS["UserMessage"]).validate(json.loads(body))
        told = await client.request(ours[asked], body.encode(), headers={name: value}, timeout=10 * SECONDS)
        accepted = json.loads(told.data)
        assert {"stream": f"{prefix.upper()}_REQ", "seq": 1} == {k: accepted[k] for k in ("stream", "seq")}
        await eventually(lambda: heard and b'"turn_completed"' in heard[-1].data, "the end of the turn")
        check([json.loads(message.data) for message in heard])
        replies = ("OwnerView", "InterruptReply")
        for (subject, request), reply in zip(controls, replies, strict=True):
            answer = await client.request(ours[subject], request.encode(), timeout=10 * SECONDS)
            validator_for(SCHEMAS[reply]).validate(json.loads(answer.data))
        ((_, _, record),) = commands("stream get")
        found = await client.jetstream().get_last_msg(f"{prefix.upper()}_STATE", ours[record])
        finished = json.loads(found.data or b"")
        validator_for(SCHEMAS["Finished"]).validate(finished)
        assert heard[-1].data.decode() == finished["envelope"]
        await client.close()


async def hearing(client: Client, ours: dict[str, str]) -> list[Msg]:
    """What the page's ``nats sub`` hears from now on; ``ours`` are its subjects in this test."""
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    ((followed,),) = commands("sub")
    await client.subscribe(ours[followed], cb=hear)
    await client.flush()
    return heard


def check(envelopes: list[dict[str, Any]]) -> None:
    """What was published is one turn, as the page has it."""
    assert [*range(1, len(envelopes) + 1)] == [each["seq"] for each in envelopes]
    assert {("t-1", 1)} == {(each["turn"], each["v"]) for each in envelopes}
    for each in envelopes:
        if each["event"]["type"] in EVENTS:
            validator_for(EVENTS[each["event"]["type"]]).validate(each["event"])


def _subjects() -> dict[str, str]:
    """Those that the commands name."""
    return {subject: subject for subject in re.findall(r"ww\.[a-z]+\.default\.s1(?:\.t-1)?", PAGE)}
