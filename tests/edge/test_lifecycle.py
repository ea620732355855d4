"""Several edge processes: on one port, and what is left to do when one of them is gone."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from warmwire.edge.app import bind

from tests.client import eventually
from tests.conftest import SECONDS, force
from tests.edge.delivery.test_watch import texts
from tests.edge.fake_worker import FakeTurn, FakeWorker, begun
from tests.edge.test_operation import ready, refused, run
from tests.edge.wire import Answer, Wire

VIEWERS = 32
"""The chance that one of two edges gets none of them is one in 2 ** 31."""
GRACE = {"disconnect_grace": str(2 * SECONDS), "drain_timeout": "0"}

Seen = list[tuple[str, dict[str, object], str]]


@asynccontextmanager
async def edge(worker: FakeWorker, nats: str, port: int, **settings: str) -> AsyncIterator[Process]:
    """An edge process on that port."""
    given = {"nats": nats, "prefix": worker.subjects.prefix, "port": str(port), **settings}
    process = await run({f"WARMWIRE_{name.upper()}": value for name, value in given.items()})
    try:
        yield process
    finally:
        if process.returncode is None:
            force(process)
        await process.communicate()


@asynccontextmanager
async def wired(port: int) -> AsyncIterator[Wire]:
    """A wire whose connections are closed afterwards, also those that the other end has cut."""
    wire = Wire("127.0.0.1", port)
    try:
        yield wire
    finally:
        await wire.close()


async def to_its_end(wire: Wire, answer: Answer, seen: Seen) -> bool:
    """All events of a viewer of a session, who comes back when its connection breaks; whether it broke."""
    broke = False
    while not seen or seen[-1][0] != "turn_completed":
        try:
            seen.append(await answer.event())
        except (asyncio.IncompleteReadError, ConnectionError):
            broke = True
            answer = await came_back(wire, seen[-1][2])
    return broke


async def came_back(wire: Wire, cursor: str) -> Answer:
    """As a browser does: again and again. The port is the dead edge's, too, for a moment."""
    async with asyncio.timeout(30 * SECONDS):
        while True:
            try:
                return await wire.watch("s1", cursor)
            except (asyncio.IncompleteReadError, ConnectionError):
                await asyncio.sleep(0.05)


async def test_two_edges_on_one_port_share_viewers_and_one_takes_over_when_the_other_is_killed(
    worker: FakeWorker, nats_server: str
) -> None:
    with bind("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        async with (
            edge(worker, nats_server, port) as one,
            edge(worker, nats_server, port) as other,
            wired(port) as wire,
        ):
            await eventually(lambda: listening(port) == 2, "both listen", deadline=30)
            await ready(wire)
            seen: list[Seen] = [[] for _ in range(VIEWERS)]
            viewers = [(await wire.watch("s1"), events) for events in seen]
            reading = [asyncio.create_task(to_its_end(wire, *viewer)) for viewer in viewers]
            assert 202 == (await wire.send("POST", "/v1/sessions/s1/messages", {"message": "Hello"})).status
            turn = await begun(worker, *words(0))
            await eventually(lambda: all(len(events) > 20 for events in seen), "all have seen a part")
            one.kill()
            for word in words(1):
                await turn.delta(word)
            await turn.complete()
            assert {True, False} == set(await asyncio.gather(*reading)), "both edges had viewers"
            assert {"".join(words(0) + words(1))} == {texts(events)[turn.id] for events in seen}
            assert other.returncode is None


def words(part: int) -> list[str]:
    """Fifty."""
    return [f"{part}.{number} " for number in range(50)]


def listening(port: int) -> int:
    """Sockets of this machine that listen on the port."""
    with open("/proc/net/tcp") as table:  # noqa: PTH123 - no file
        rows = [line.split() for line in table][1:]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


CANCEL = {"message": "Hello", "on_disconnect": "cancel"}


async def three_turns(wire: Wire, worker: FakeWorker) -> tuple[dict[str, FakeTurn], str]:
    """Turns that mind, by session; ``back`` may be come back to with the cursor, ``unseen`` has no viewer."""
    answer = await wire.post({"session_id": "back", **CANCEL})
    assert 202 == (await wire.send("POST", "/v1/sessions/unseen/messages", CANCEL)).status
    await wire.post({"session_id": "gone", **CANCEL})
    turns = {turn.session_id: turn for turn in [await worker.next_turn() for _ in range(3)]}
    for turn in turns.values():
        await turn.start()
    return turns, (await answer.until("content_block_start"))[-1][2]


@pytest.mark.parametrize(
    ("number", "before"),
    [(signal.SIGKILL, True), (signal.SIGKILL, False), (signal.SIGTERM, True)],
    ids=["killed beside another", "killed alone", "left beside another"],
)
async def test_a_turn_whose_viewers_do_not_come_back_from_an_edge_that_is_gone_is_stopped(
    worker: FakeWorker, nats_server: str, number: signal.Signals, before: bool
) -> None:
    with bind("127.0.0.1", 0) as first, bind("127.0.0.1", 0) as second:
        ports = [held.getsockname()[1] for held in (first, second)]
        async with AsyncExitStack() as stack:
            one, two = [await stack.enter_async_context(wired(port)) for port in ports]
            gone = await stack.enter_async_context(edge(worker, nats_server, ports[0], **GRACE))
            await ready(one)
            turns, cursor = await three_turns(one, worker)
            if before:
                await stack.enter_async_context(edge(worker, nats_server, ports[1], **GRACE))
                await ready(two)
            gone.send_signal(number)
            if not before:
                await gone.wait()
                await stack.enter_async_context(edge(worker, nats_server, ports[1], **GRACE))
                await ready(two)
            # At once, as browsers do: how long a process takes to end is not the viewer's time.
            assert 200 == (await two.resume("back", cursor)).status
            await eventually(lambda: worker.interrupts, "the turn that nobody sees is stopped", deadline=30)
            # The oldest come first, so the other two have been looked at.
            assert [turns["gone"].id] == worker.interrupts


async def test_the_port_is_closed_while_streams_go_on_and_another_edge_takes_who_comes(
    worker: FakeWorker, nats_server: str
) -> None:
    with bind("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        async with edge(worker, nats_server, port) as one, wired(port) as wire:
            await ready(wire)
            answer = await wire.post({"session_id": "s1", "message": "Hello"})
            turn = await worker.next_turn()
            await turn.start()
            await answer.until("content_block_start")
            one.send_signal(signal.SIGTERM)
            await refused(wire)
            async with edge(worker, nats_server, port):
                await ready(wire)
                watcher = await wire.watch("s1")
                await watcher.until("snapshot")
                await turn.complete()
                assert "turn_completed" == (await answer.until("[DONE]"))[-2][0]
                assert "turn_completed" == (await watcher.until("turn_completed"))[-1][0]
                assert 0 == await one.wait()
