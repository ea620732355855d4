"""NATS's service discovery, with real requests; the answers are read by nats-py's own models."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import nats
import pytest
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats

from warmwire.broker.nats.discovery import VERBS, Handled, Service, announce
from warmwire.broker.tasks import Tasks
from warmwire.broker.wire.names import Subjects

from tests.broker.conftest import Connect
from tests.conftest import SECONDS

MODELS: dict[str, Any] = {"PING": ServicePing, "INFO": ServiceInfo, "STATS": ServiceStats}
HANDLED = Handled(4, 1, 10_000, "cli_failed")


def service(number: int, prefix: str) -> Service:
    return Service(
        f"kind-{prefix}", f"id-{number}", "does", {"turns": f"{prefix}.req.*.*"}, lambda _: HANDLED
    )


async def answers(url: str, subject: str, expected: int) -> list[dict[str, Any]]:
    """What comes back to one question, as `nats micro` asks it."""
    client = await nats.connect(url)
    found = asyncio.Queue[bytes]()

    async def came(message: Any) -> None:
        found.put_nowait(message.data)

    inbox = client.new_inbox()
    try:
        await client.subscribe(inbox, cb=came)
        await client.publish(subject, reply=inbox)
        async with asyncio.timeout(10 * SECONDS):
            return [json.loads(await found.get()) for _ in range(expected)]
    finally:
        await client.close()


@pytest.mark.parametrize("verb", VERBS)
async def test_every_question_is_answered_by_whom_it_names(
    verb: str, nats_server: str, connect_to: Connect
) -> None:
    prefix = f"t{uuid4().hex[:12]}"
    bus, tasks = (await connect_to(nats_server)).bus, Tasks()
    for number in (1, 2):
        await announce(bus, Subjects(prefix), service(number, prefix), tasks)
    await bus.flush()
    name = f"$SRV.{verb}.kind-{prefix}"
    both, one = await answers(nats_server, name, 2), await answers(nats_server, f"{name}.id-2", 1)
    assert {"id-1", "id-2"} == {each["id"] for each in both}
    assert ["id-2"] == [each["id"] for each in one]
    read = MODELS[verb].from_dict(one[0])
    assert (f"kind-{prefix}", "id-2", {"prefix": prefix}) == (read.name, read.id, read.metadata)
    assert f"io.nats.micro.v1.{verb.lower()}_response" == one[0]["type"]
    await tasks.stop()


def test_stats_say_what_was_handled() -> None:
    told = service(1, "ww").answer("STATS", "ww", "2026-01-01T00:00:00Z")
    turns = {
        "name": "turns",
        "subject": "ww.req.*.*",
        "queue_group": "",
        "num_requests": 4,
        "num_errors": 1,
        "last_error": "cli_failed",
        "processing_time": 10_000,
        "average_processing_time": 2_500,
        "data": {},
    }
    assert [turns] == told["endpoints"]


def test_nothing_handled_has_no_average() -> None:
    assert 0 == Handled(0, 0, 0).average
