"""Viewers that do not read, over real sockets: bounded, harmless to others, whole once they read again."""

from __future__ import annotations

import asyncio
import socket

from tests.client import eventually
from tests.edge.conftest import Serving, Start
from tests.edge.delivery.test_watch import texts
from tests.edge.fake_worker import FakeTurn, FakeWorker
from tests.edge.test_sessions import running
from tests.edge.wire import Answer

SMALL = 4096
"""Bytes that a slow viewer's own socket takes."""


async def slow_viewer(serves: Serving, path: str) -> Answer:
    """A viewer whose connection holds little, and who reads only when told."""
    end = socket.socket()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    end.setblocking(False)
    await asyncio.get_running_loop().sock_connect(end, (serves.wire.host, serves.wire.port))
    reader, writer = await asyncio.open_connection(sock=end, limit=SMALL)
    answer = Answer(reader, writer, serves.wire.within)
    serves.wire._answers.append(answer)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    return await answer.head()


async def flood(turn: FakeTurn, other: Answer, size: int) -> None:
    """Deltas of that many bytes in all; another viewer sees each of them as it is made."""
    for number in range(size // 1000):
        await turn.delta(f"{number:07} " + "x" * 992)
        while (await other.event())[0] != "content_block_delta":
            pass


async def test_a_viewer_that_does_not_read_costs_little_and_gets_everything_when_it_reads(
    start: Start, worker: FakeWorker
) -> None:
    serves = await start(viewer_bytes=16 * 1024)
    turn = await running(serves.wire, worker)
    slow = await slow_viewer(serves, "/v1/sessions/s1/events")
    other = await serves.wire.watch("s1")
    await other.until("snapshot")
    await flood(turn, other, 1_000_000)
    kept = [each._bytes for each in serves.edge._leaving]
    assert max(kept) <= 16 * 1024 + 2000
    assert any(each._behind for each in serves.edge._leaving)
    await turn.complete()
    events = await slow.until("turn_completed")
    assert len(texts(events)[turn.id]) == 1_000_000
    assert any("from" in data or kind == "snapshot" for kind, data, _ in events)


async def test_a_stream_of_one_turn_that_fell_behind_ends_with_done(start: Start, worker: FakeWorker) -> None:
    serves = await start(viewer_bytes=16 * 1024)
    turn = await running(serves.wire, worker)
    slow = await slow_viewer(serves, f"/v1/chat/stream?session_id=s1&last_event_id={turn.id}.0.0")
    other = await serves.wire.watch("s1")
    await other.until("snapshot")
    await flood(turn, other, 1_000_000)
    await turn.complete()
    await other.until("turn_completed")
    events = await slow.until("[DONE]")
    assert events[-2][0] == "turn_completed"
    assert len(texts(events[:-1])[turn.id]) == 1_000_000


async def test_who_reads_nothing_for_too_long_is_disconnected_and_resumes(
    start: Start, worker: FakeWorker
) -> None:
    serves = await start(viewer_bytes=16 * 1024, viewer_patience=0.3, keepalive=0.1)
    turn = await running(serves.wire, worker)
    await slow_viewer(serves, "/v1/sessions/s1/events")
    other = await serves.wire.watch("s1")
    cursor = (await other.until("snapshot"))[-1][2]
    await flood(turn, other, 1_000_000)
    await eventually(lambda: serves.edge.viewers == 1, "the viewer that reads nothing is cut")
    await turn.complete()
    back = await serves.wire.watch("s1", cursor)
    assert len(texts(await back.until("turn_completed"))[turn.id]) == 1_000_000


async def test_a_viewer_that_reads_a_byte_at_a_time_costs_little_and_has_the_right_text_in_the_end(
    start: Start, worker: FakeWorker
) -> None:
    limit = 16 * 1024
    serves = await start(viewer_bytes=limit)
    turn = await running(serves.wire, worker)
    slow = await slow_viewer(serves, "/v1/sessions/s1/events")
    others = [await serves.wire.watch("s1") for _ in range(5)]
    for other in others:
        await other.until("snapshot")
    had, most = b"", 0
    for _ in range(100):
        await flood(turn, others[0], 10_000)
        had += await slow._reader.readexactly(1)
        most = max(most, *[each._bytes for each in serves.edge._leaving])
    await turn.complete()
    assert most <= limit + 2000
    assert 100 == len(had)
    slow._reader = again(had, slow._reader)
    shown = [texts(await each.until("turn_completed"))[turn.id] for each in (slow, *others[1:])]
    assert {shown[0]} == set(shown)
    assert 1_000_000 == len(shown[0])


def again(had: bytes, rest: asyncio.StreamReader) -> asyncio.StreamReader:
    """A reader that begins with what was read already."""
    rest._buffer[:0] = had  # type: ignore[attr-defined]
    return rest
