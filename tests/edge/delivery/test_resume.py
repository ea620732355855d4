"""Coming back: from a cursor nothing is lost, nothing repeated, nothing submitted."""

from __future__ import annotations

import pytest

from tests.client import eventually
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeTurn, FakeWorker
from tests.edge.test_problems import queued
from tests.edge.wire import Answer, Wire


async def a_turn(wire: Wire, worker: FakeWorker, *deltas: str) -> tuple[Answer, FakeTurn]:
    """A turn that runs and has said that much."""
    answer = await wire.post({"session_id": "s1", "message": "Hello"})
    turn = await worker.next_turn()
    await turn.start()
    for delta in deltas:
        await turn.delta(delta)
    return answer, turn


def text(events: list[tuple[str, dict[str, object], str]]) -> list[str]:
    """What the deltas said."""
    return [data["delta"]["text"] for kind, data, _ in events if kind == "content_block_delta"]  # type: ignore[index]


@pytest.mark.parametrize("seen", [1, 2, 3, 4, 5, 6])
async def test_a_running_turn_goes_on_after_the_cursor(wire: Wire, worker: FakeWorker, seen: int) -> None:
    answer, turn = await a_turn(wire, worker, "one ", "two ", "three ")
    first = [await answer.event() for _ in range(seen + 1)]  # turn_queued is not of the worker
    await answer.leave()
    back = await wire.resume("s1", first[-1][2])
    await turn.delta("four")
    await turn.complete()
    rest = await back.until("[DONE]")
    kinds = [kind for kind, _, _ in first + rest]
    assert kinds == [
        "turn_queued",
        "turn_started",
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 4,
        "turn_completed",
        "[DONE]",
    ]
    assert text(first + rest) == ["one ", "two ", "three ", "four"]
    assert await queued(worker) == 1


async def test_from_the_very_first_id_the_whole_turn_comes(wire: Wire, worker: FakeWorker) -> None:
    answer, turn = await a_turn(wire, worker, "one ", "two ")
    frame = (await answer.frame()).decode()
    await answer.leave()
    back = await wire.resume("s1", frame.removeprefix("id: ").strip())
    await turn.complete()
    events = await back.until("[DONE]")
    assert text(events) == ["one ", "two "]
    assert events[0][0] == "turn_started"


async def test_a_turn_that_nobody_has_taken_yet_is_waited_for(wire: Wire, worker: FakeWorker) -> None:
    answer = await wire.post({"session_id": "s1", "message": "Hello"})
    frame = (await answer.frame()).decode()
    await answer.leave()
    back = await wire.resume("s1", frame.removeprefix("id: ").strip())
    turn = await worker.next_turn()
    await turn.start()
    await turn.delta("one")
    await turn.complete()
    assert text(await back.until("[DONE]")) == ["one"]
    assert await queued(worker) == 1


async def test_a_turn_that_has_ended_since_comes_with_its_end(wire: Wire, worker: FakeWorker) -> None:
    answer, turn = await a_turn(wire, worker, "one ")
    cursor = (await answer.until("content_block_delta"))[-1][2]
    await answer.leave()
    await turn.delta("two")
    await turn.complete()
    events = await (await wire.resume("s1", cursor)).until("[DONE]")
    assert text(events) == ["two"]
    assert [kind for kind, _, _ in events[-2:]] == ["turn_completed", "[DONE]"]


async def forgotten(start: Start, worker: FakeWorker) -> tuple[str, Wire]:
    """The middle of a turn of which its owner knows only the end, and an edge that has seen nothing."""
    first, second = await start(), await start()
    answer, turn = await a_turn(first.wire, worker, "one ")
    cursor = (await answer.until("content_block_delta"))[-1][2]
    await turn.delta("two")
    await turn.complete()
    worker.forgetful = True
    return cursor, second.wire


async def test_a_turn_whose_owner_has_forgotten_it_comes_as_gap_snapshot_and_end(
    start: Start, worker: FakeWorker
) -> None:
    cursor, elsewhere = await forgotten(start, worker)
    events = await (await elsewhere.resume("s1", cursor)).until("[DONE]")
    assert [kind for kind, _, _ in events] == ["gap", "snapshot", "turn_completed", "[DONE]"]
    assert [block["text"] for block in events[1][1]["blocks"]] == ["one two"]


async def test_a_connection_that_breaks_between_gap_and_snapshot_loses_nothing(
    start: Start, worker: FakeWorker
) -> None:
    cursor, elsewhere = await forgotten(start, worker)
    kind, _, at_gap = await (await elsewhere.resume("s1", cursor)).event()
    assert ("gap", cursor) == (kind, at_gap)
    events = await (await elsewhere.resume("s1", at_gap)).until("[DONE]")
    assert [kind for kind, _, _ in events] == ["gap", "snapshot", "turn_completed", "[DONE]"]


async def test_who_has_had_everything_is_told_204(wire: Wire, worker: FakeWorker) -> None:
    answer, turn = await a_turn(wire, worker, "one ")
    await turn.complete()
    cursor = (await answer.until("turn_completed"))[-1][2]
    back = await wire.resume("s1", cursor)
    assert (204, "s1") == (back.status, back.headers["x-session-id"])
    assert await queued(worker) == 1


@pytest.mark.parametrize("cursor", ["nonsense", "a.b.c", "x" * 300, "..", "0197.1", "<script>.1.1", "t.-1.2"])
async def test_an_unreadable_cursor_gets_gap_and_snapshot_of_what_runs(
    wire: Wire, worker: FakeWorker, cursor: str
) -> None:
    _, turn = await a_turn(wire, worker, "one ", "two ")
    back = await wire.resume("s1", cursor)
    gap, snapshot = await back.event(), await back.event()
    assert (200, "gap", "snapshot") == (back.status, gap[0], snapshot[0])
    assert [block["text"] for block in snapshot[1]["blocks"]] == ["one two "]
    await turn.delta("three")
    await turn.complete()
    assert text(await back.until("[DONE]")) == ["three"]
    assert await queued(worker) == 1


@pytest.mark.parametrize("cursor", ["nonsense", "01970000-0000-7000-8000-000000000000.1764000000000.5"])
async def test_where_nothing_runs_the_gap_is_all_and_coming_back_ends_it(wire: Wire, cursor: str) -> None:
    back = await wire.resume("s1", cursor)
    assert back.status == 200
    assert [kind for kind, _, _ in await back.until("[DONE]")] == ["gap", "[DONE]"]
    assert (await wire.resume("s1", "0.0.0")).status == 204


@pytest.mark.parametrize("ahead", [(0, 1), (0, 1000), (1, 0), (2**62, 0)])
async def test_a_cursor_from_the_future_of_a_running_turn_gets_gap_and_snapshot(
    wire: Wire, worker: FakeWorker, ahead: tuple[int, int]
) -> None:
    _, turn = await a_turn(wire, worker, "one ")
    epoch, seq = await turn.publish(b'{"type":"ping"}')
    back = await wire.resume("s1", f"{turn.id}.{epoch + ahead[0]}.{seq + ahead[1]}")
    await turn.delta("two")
    await turn.complete()
    events = await back.until("[DONE]")
    assert [kind for kind, _, _ in events[:2]] == ["gap", "snapshot"]
    seen = "".join(block["text"] for block in events[1][1]["blocks"]) + "".join(text(events))
    assert seen == "one two"


async def test_a_cursor_beyond_the_end_of_a_turn_gets_its_text_and_its_end(
    wire: Wire, worker: FakeWorker
) -> None:
    answer, turn = await a_turn(wire, worker, "one ", "two")
    await turn.complete()
    cursor = (await answer.until("turn_completed"))[-1][2]
    events = await (await wire.resume("s1", cursor + "99")).until("[DONE]")
    assert [kind for kind, _, _ in events] == ["gap", "snapshot", "turn_completed", "[DONE]"]
    assert [block["text"] for block in events[1][1]["blocks"]] == ["one two"]


async def test_a_cursor_of_another_session_shows_nothing_of_it(wire: Wire, worker: FakeWorker) -> None:
    answer, _ = await a_turn(wire, worker, "secret")
    cursor = (await answer.until("content_block_start"))[-1][2]
    events = await (await wire.resume("s2", cursor)).until("[DONE]")
    assert [kind for kind, _, _ in events] == ["gap", "[DONE]"]


async def test_the_cursor_may_come_in_the_url(wire: Wire, worker: FakeWorker) -> None:
    answer, turn = await a_turn(wire, worker, "one ", "two")
    cursor = (await answer.until("content_block_delta"))[-1][2]
    back = await wire.request("GET", f"/v1/chat/stream?session_id=s1&last_event_id={cursor}")
    await turn.complete()
    assert text(await back.until("[DONE]")) == ["two"]


# -- without a cursor


async def by_url(wire: Wire, message: str = "Hello") -> Answer:
    """As an EventSource connects for the first time."""
    return await wire.request("GET", f"/v1/chat/stream?session_id=s1&message={message}")


async def test_a_url_submits_and_streams(wire: Wire, worker: FakeWorker) -> None:
    worker.answer_all("Hi ", "there")
    answer = await by_url(wire)
    assert (200, "s1") == (answer.status, answer.headers["x-session-id"])
    events = await answer.until("[DONE]")
    assert events[0][0] == "turn_queued"
    assert text(events) == ["Hi ", "there"]


async def test_the_same_url_at_once_joins_the_turn(wire: Wire, worker: FakeWorker) -> None:
    first = await by_url(wire)
    again = await by_url(wire)
    worker.answer_all("Hi ", "there")
    events, joined = await first.until("[DONE]"), await again.until("[DONE]")
    assert events == joined
    assert await queued(worker) == 1


async def test_the_same_url_through_another_edge_joins_a_running_turn(
    start: Start, worker: FakeWorker
) -> None:
    first, second = await start(), await start()
    answer = await by_url(first.wire)
    turn = await worker.next_turn()
    await turn.start()
    await turn.delta("one ")
    await answer.until("content_block_delta")
    joined = await by_url(second.wire)
    await turn.delta("two")
    await turn.complete()
    assert text(await joined.until("[DONE]")) == ["one ", "two"]
    assert await queued(worker) == 1


async def test_another_message_is_a_turn_of_its_own(wire: Wire, worker: FakeWorker) -> None:
    await by_url(wire, "Hello")
    await by_url(wire, "Again")
    await eventually(lambda: worker.waiting == 2, "both messages are with the worker")


# -- with an idempotency key


async def test_a_repeated_key_follows_the_turn_from_its_beginning(wire: Wire, worker: FakeWorker) -> None:
    body, key = {"session_id": "s1", "message": "Hello"}, {"idempotency-key": "k1"}
    first = await wire.post(body, key)
    turn = await worker.next_turn()
    await turn.start()
    await turn.delta("one ")
    await first.until("content_block_delta")
    again = await wire.post(body, key)
    await turn.delta("two")
    await turn.complete()
    after = await wire.post(body, key)
    for answer in (again, after):
        assert text(await answer.until("[DONE]")) == ["one ", "two"]
    assert await queued(worker) == 1
