"""Edges that hear each other, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from warmwire.broker.nats.bus import connect
from warmwire.broker.wire.names import Subjects
from warmwire.edge.access.neighbours import Neighbours

from tests.client import eventually

Join = Callable[[str], Awaitable[Neighbours]]


@pytest.fixture
def gone() -> list[str]:
    """Who was told that an edge has gone, each time."""
    return []


@pytest.fixture
async def join(nats_server: str, prefix: str, gone: list[str]) -> AsyncIterator[Join]:
    """Starts an edge of that name, with a connection of its own."""
    async with AsyncExitStack() as stack:

        async def joined(name: str) -> Neighbours:
            bus = await connect(nats_server, name)
            stack.push_async_callback(bus.close)
            edge = Neighbours(bus, Subjects(prefix), name, lambda: 0, lambda: gone.append(name))
            await edge.start()
            stack.push_async_callback(edge.stop)
            return edge

        yield joined


async def test_one_of_those_that_stay_is_told_of_who_leaves(join: Join, gone: list[str]) -> None:
    edges = [await join(name) for name in ("a", "b", "c")]
    await eventually(lambda: [3, 3, 3] == [edge.count for edge in edges], "they know each other")
    await edges[2].stop()
    await eventually(lambda: [2, 2] == [edge.count for edge in edges[:2]], "two are left")
    await edges[0].stop()
    await eventually(lambda: 1 == edges[1].count, "one is left")
    assert ["a", "b"] == gone


async def test_one_that_falls_silent_is_dead_after_a_while(join: Join, gone: list[str]) -> None:
    edges = [await join(name) for name in ("a", "b", "c")]
    await eventually(lambda: [3, 3, 3] == [edge.count for edge in edges], "they know each other")
    await edges[0]._tasks.stop()
    await eventually(lambda: [2, 2] == [edge.count for edge in edges[1:]], "it is not counted any more")
    await eventually(lambda: gone, "it is held dead")
    assert ["b"] == gone


async def test_one_that_begins_alone_looks_after_what_was_before(join: Join, gone: list[str]) -> None:
    await join("a")
    await eventually(lambda: gone, "it has listened for long enough")
    assert ["a"] == gone


async def test_what_is_no_heartbeat_is_passed_over(join: Join, nats_server: str, prefix: str) -> None:
    edge = await join("a")
    bus = await connect(nats_server, "stranger")
    for data in (b"", b"{}", b'{"edge": 7, "viewers": 0}'):
        await bus.publish(Subjects(prefix).edge_heartbeat("x"), data)
    await bus.close()
    other = await join("b")
    await eventually(lambda: 2 == edge.count == other.count, "they know each other")
