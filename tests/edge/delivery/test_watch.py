"""Watching a session over real HTTP: from now on, from a cursor, at any edge, without a hole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.client import eventually
from tests.conftest import SECONDS
from tests.edge.conftest import Serving, Start
from tests.edge.fake_worker import FakeWorker
from tests.edge.test_sessions import answered, running
from tests.edge.wire import Wire

Events = list[tuple[str, dict[str, Any], str]]


def texts(events: Events) -> dict[str, str]:
    """What the events add up to: the text per turn. The claims on cursors are made on the way."""
    text: dict[str, str] = {}
    here = (0, 0)
    for kind, data, cursor in events:
        turn, epoch, seq = cursor.split(".")
        place = (int(epoch), int(seq))
        if kind in ("gap", "snapshot"):
            if kind == "snapshot":
                text[turn] = "".join(block["text"] for block in data["blocks"])
        else:
            first = (place[0], int(data.get("from", cursor).split(".")[2]))  # several may come in one
            follows = first == (here[0], here[1] + 1) or (first[0] > here[0] and first[1] == 1)
            assert follows or here == (0, 0), f"{first} after {here}"
        here = place
        if kind == "content_block_delta":
            text[turn] = text.get(turn, "") + data["delta"]["text"]
    return text


async def test_a_session_that_nobody_has_used_is_waited_for(wire: Wire, worker: FakeWorker) -> None:
    viewer = await wire.watch("s1")
    assert viewer.status == 200
    assert viewer.headers["x-session-id"] == "s1"
    assert await viewer.frame() == b"retry: 1000\n\n"
    assert await viewer.frame() == b"id: 0.0.0\n\n"  # a reconnect has a cursor
    turn = await answered(wire, worker, "Hello")
    events = await viewer.until("turn_completed")
    assert events[0][0] == "turn_started"
    assert texts(events) == {turn.id: "Hello"}


async def test_every_turn_is_shown_and_the_stream_stays_open(wire: Wire, worker: FakeWorker) -> None:
    viewer = await wire.watch("s1")
    expected = {}
    for text in ("one", "two", "three"):
        expected[(await answered(wire, worker, text)).id] = text
    events = [event for _ in range(3) for event in await viewer.until("turn_completed")]
    assert expected == texts(events)


async def test_who_comes_late_gets_a_snapshot_and_then_what_follows(wire: Wire, worker: FakeWorker) -> None:
    turn = await running(wire, worker)
    await turn.delta("early ")
    viewer = await wire.watch("s1")
    kind, data, cursor = await viewer.event()
    assert ("snapshot", "early ") == (kind, data["blocks"][0]["text"])
    assert cursor.startswith(f"{turn.id}.")
    await turn.delta("late")
    await turn.complete()
    rest = await viewer.until("turn_completed")
    assert ["content_block_delta", "turn_completed"] == [kind for kind, _, _ in rest]
    assert texts([("snapshot", data, cursor), *rest]) == {turn.id: "early late"}


async def test_viewers_that_come_at_any_time_at_any_edge_all_have_the_whole_text(
    start: Start, worker: FakeWorker
) -> None:
    wires = [(await start()).wire, (await start()).wire]
    turn = await running(wires[0], worker)
    viewers: list[asyncio.Task[Events]] = []

    async def view(wire: Wire) -> Events:
        return await (await wire.watch("s1")).until("turn_completed")

    words = [f"word{number} " for number in range(200)]
    for number, word in enumerate(words):
        await turn.delta(word)
        if number % 10 == 0:
            viewers.append(asyncio.create_task(view(wires[number // 10 % 2])))
            await asyncio.sleep(0)  # it begins while the deltas go on
    await turn.delta("end")
    joined = [await wires[0].watch("s1"), await wires[1].watch("s1")]
    await turn.complete()
    for events in [*await asyncio.gather(*viewers), *[await each.until("turn_completed") for each in joined]]:
        assert texts(events)[turn.id] == "".join(words) + "end"


@pytest.mark.parametrize("by", ["header", "query"])
async def test_a_watch_goes_on_from_its_cursor_across_turns(wire: Wire, worker: FakeWorker, by: str) -> None:
    viewer = await wire.watch("s1")
    first = await running(wire, worker)
    await first.delta("a")
    cursor = (await viewer.until("content_block_delta"))[-1][2]
    await viewer.leave()
    await first.delta("b")
    await first.complete()
    second = await answered(wire, worker, "c")
    back = await (
        wire.watch("s1", cursor) if by == "header" else wire.watch("s1", None, f"?last_event_id={cursor}")
    )
    events = [event for _ in range(2) for event in await back.until("turn_completed")]
    assert {first.id: "b", second.id: "c"} == texts(events)


async def test_who_comes_after_an_idle_time_without_an_owner_is_shown_nothing_old(
    start: Start, worker: FakeWorker
) -> None:
    wire = (await start()).wire
    old = await answered(wire, worker, "old")
    await worker.store.release(old.key, old.epoch, "n")
    await worker.leave(old.key)
    other = (await start(keepalive=0.1)).wire
    viewer = await other.watch("s1")
    await viewer.frame()
    cursor = (await viewer.frame()).decode().removeprefix("id: ").strip()
    await viewer.leave()
    back = await other.watch("s1", cursor)
    new = await answered(wire, worker, "new")
    assert texts(await back.until("turn_completed")) == {new.id: "new"}


async def test_turns_that_ended_while_a_viewer_was_away_and_the_owner_left_are_shown_whole(
    start: Start, worker: FakeWorker
) -> None:
    wire = (await start()).wire
    viewer = await wire.watch("s1")
    first = await running(wire, worker)
    await first.delta("a")
    cursor = (await viewer.until("content_block_delta"))[-1][2]
    await first.delta("b")
    await first.complete()
    second = await answered(wire, worker, "c")
    await worker.store.release(first.key, first.epoch, "n")
    await worker.leave(first.key)
    elsewhere = (await start()).wire
    back = await elsewhere.watch("s1", cursor)
    events = [event for _ in range(2) for event in await back.until("turn_completed")]
    assert ["gap", "snapshot", "turn_completed", "snapshot", "turn_completed"] == [
        kind for kind, _, _ in events
    ]
    assert {first.id: "ab", second.id: "c"} == texts(events)


@pytest.mark.parametrize("cursor", ["nonsense", "x" * 300, "t.99999999999999.7", "../etc.1.1"])
async def test_a_cursor_of_nobody_is_told_in_the_stream(wire: Wire, worker: FakeWorker, cursor: str) -> None:
    turn = await running(wire, worker)
    await turn.delta("so far")
    viewer = await wire.watch("s1", cursor)
    assert viewer.status == 200
    events = await viewer.until("snapshot")
    assert ["gap", "snapshot"] == [kind for kind, _, _ in events]
    assert events[1][1]["blocks"][0]["text"] == "so far"
    await turn.delta("!")
    assert (await viewer.event())[1]["delta"]["text"] == "!"
    assert worker.waiting == 0


async def test_a_viewer_is_sent_back_at_its_maximum_age_with_a_time_to_wait(start: Start) -> None:
    wire = (await start(max_age=0.2)).wire
    viewer = await wire.watch("s1")
    frames = []
    while frame := await viewer.frame():
        frames.append(frame)
    assert frames[-1].startswith(b"retry: ")
    assert b"[DONE]" not in b"".join(frames)


async def test_a_post_stays_to_the_end_of_its_turn(start: Start, worker: FakeWorker) -> None:
    wire = (await start(max_age=0.1)).wire
    post = await wire.post({"session_id": "s1", "message": "Hello"})
    turn = await worker.next_turn()
    for _ in range(2):
        await (await wire.watch("s1")).body()  # begun later, and over
    await turn.complete()
    await post.until("[DONE]")


async def test_deltas_are_gathered_for_who_asks_but_the_first_is_not(wire: Wire, worker: FakeWorker) -> None:
    viewer = await wire.watch("s1", None, "?rollup_ms=500")
    turn = await running(wire, worker)
    await viewer.until("content_block_start")
    await turn.delta("first")
    assert (await viewer.event())[1]["delta"]["text"] == "first"
    for number in range(5):
        await turn.delta(f" {number}")
    gathered = [await viewer.event()]
    while not gathered[-1][2].endswith(".9"):
        gathered.append(await viewer.event())
    assert texts(gathered) == {turn.id: " 0 1 2 3 4"}
    assert len(gathered) < 5  # a machine that stalls for as long as a delta may wait sends some apart
    await turn.delta(" x")
    await turn.complete()  # what is no delta goes at once, and what waits goes before it
    assert [" x", None] == [
        data.get("delta", {}).get("text") for _, data, _ in await viewer.until("turn_completed")
    ]


@pytest.mark.parametrize("query", ["?rollup_ms=501", "?rollup_ms=-1", "?rollup_ms=soon", "?unknown=1"])
async def test_a_watch_that_cannot_be_is_refused(wire: Wire, query: str) -> None:
    assert (await wire.watch("s1", None, query)).status == 422


async def test_a_turn_that_minds_stops_once_its_last_viewer_at_any_edge_has_left(
    start: Start, worker: FakeWorker
) -> None:
    one, two = await start(disconnect_grace=SECONDS), await start(disconnect_grace=SECONDS)
    post = await one.wire.post({"session_id": "s1", "message": "Hello", "on_disconnect": "cancel"})
    turn = await worker.next_turn()
    await turn.start()
    await post.until("turn_started")
    other = await two.wire.watch("s1")
    await other.until("snapshot")
    await post.leave()
    await judged(one)
    assert worker.interrupts == []  # somebody sees it, elsewhere
    await other.leave()
    await eventually(lambda: two.edge.viewers == 0, "the other edge has noticed")
    back = await one.wire.resume("s1", f"{turn.id}.0.0")
    await judged(two)
    assert worker.interrupts == []  # somebody came back in time
    await back.leave()
    await eventually(lambda: worker.interrupts == [turn.id], "the turn is stopped")


async def judged(serves: Serving) -> None:
    """Wait until an edge has no viewer, and has thought about what that means."""
    await eventually(lambda: serves.edge.viewers == 0, "the edge has noticed")
    await eventually(lambda: not serves.edge._tasks._running, "the edge has judged")
