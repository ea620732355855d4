"""The stream of a turn over real HTTP: every byte of it."""

from __future__ import annotations

import asyncio
import uuid

from uvicorn.protocols.http.flow_control import FlowControl

from warmwire.edge.delivery.stream import Direct, Writes

from tests.client import eventually
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeWorker
from tests.edge.wire import Wire


async def test_a_turn_streams_as_exactly_these_bytes(wire: Wire, worker: FakeWorker) -> None:
    answer = await wire.post({"session_id": "s1", "message": "Hello"})
    turn = await worker.next_turn()
    t = turn.id.encode()
    assert await answer.frame() == b"id: %b.0.0\n\n" % t
    assert await answer.frame() == b"retry: 1000\n\n"
    queued = b'{"type":"turn_queued","turn":"%b","session_id":"s1"}' % t
    assert await answer.frame() == b"event: turn_queued\ndata: %b\nid: %b.0.0\n\n" % (queued, t)
    text = b"\\u00e9 \xf0\x9f\x99\x82"  # an escape stays one, an emoji stays four bytes
    delta = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}' % text
    epoch, _ = await turn.publish(delta)
    assert await answer.frame() == b"event: content_block_delta\ndata: %b\nid: %b.%d.1\n\n" % (
        delta,
        t,
        epoch,
    )
    await turn.complete()
    end = await answer.frame()
    assert end.startswith(b'event: turn_completed\ndata: {"type":"turn_completed","turn":"%b",' % t)
    assert end.endswith(b"\nid: %b.%d.2\n\n" % (t, epoch))
    assert await answer.frame() == b"data: [DONE]\n\n"
    assert await answer.frame() == b""


async def test_the_headers_keep_proxies_from_gathering_the_stream(wire: Wire) -> None:
    answer = await wire.post({"session_id": "s1", "message": "Hello"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache, no-transform"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-length" not in answer.headers
    assert "content-encoding" not in answer.headers


async def test_each_delta_is_a_chunk_of_its_own_as_soon_as_it_is_made(wire: Wire, worker: FakeWorker) -> None:
    answer = await wire.post({"session_id": "s1", "message": "Hello"})
    turn = await worker.next_turn()
    await turn.start()
    await answer.until("content_block_start")
    before = len(answer.chunks)
    for number in range(5):
        await turn.delta(f"word {number} ")
        _, data, _ = await answer.event()  # arrives though nothing follows it
        assert data["delta"]["text"] == f"word {number} "
    assert len(answer.chunks) == before + 5


async def test_line_ends_inside_an_event_do_not_break_its_frame(wire: Wire, worker: FakeWorker) -> None:
    answer = await wire.post({"session_id": "s1", "message": "Hello"})
    turn = await worker.next_turn()
    await turn.publish(b'{"type":"ping",\r\n "n": 1,\n\n"m":\r2}')
    events = await answer.until("ping")
    assert events[-1][1] == {"type": "ping", "n": 1, "m": 2}


async def test_a_type_that_would_forge_a_field_goes_without_an_event_line(
    wire: Wire, worker: FakeWorker
) -> None:
    answer = await wire.post({"session_id": "s1", "message": "Hello"})
    turn = await worker.next_turn()
    await answer.until("turn_queued")
    await turn.publish(b'{"type":"a\\ndata: forged\\n\\n"}')
    assert (await answer.frame()).startswith(b'data: {"type":"a\\ndata: forged\\n\\n"}\nid: ')


async def test_the_session_is_told_and_made_when_absent(wire: Wire) -> None:
    given = await wire.post({"session_id": "my-session_1", "message": "Hello"})
    made = await wire.post({"message": "Hello"})
    assert given.headers["x-session-id"] == "my-session_1"
    session = made.headers["x-session-id"]
    assert str(uuid.UUID(session)) == session
    events = await made.until("turn_queued")
    assert events[-1][1]["session_id"] == session


async def test_silence_is_filled_with_comments(start: Start) -> None:
    wire = (await start(keepalive=0.05)).wire
    answer = await wire.post({"session_id": "s1", "message": "Hello"})
    await answer.until("turn_queued")
    assert [b":\n", b":\n"] == [await answer.chunk(), await answer.chunk()]


async def test_two_viewers_of_two_turns_of_one_session_each_get_their_own(
    wire: Wire, worker: FakeWorker
) -> None:
    first = await wire.post({"session_id": "s1", "message": "one"})
    second = await wire.post({"session_id": "s1", "message": "two"})
    for text in ("first", "second"):
        turn = await worker.next_turn()
        await turn.start()
        await turn.delta(text)
        await turn.complete()
    texts = [
        [data["delta"]["text"] for kind, data, _ in await answer.until("[DONE]") if "delta" in kind]
        for answer in (first, second)
    ]
    assert texts == [["first"], ["second"]]


async def test_a_hole_is_repaired_without_the_viewer_noticing(wire: Wire, worker: FakeWorker) -> None:
    answer = await wire.post({"session_id": "s1", "message": "Hello"})
    turn = await worker.next_turn()
    await turn.start()
    await turn.lose("one ")
    await turn.delta("two ")
    await turn.complete()
    events = await answer.until("[DONE]")
    assert "".join(data["delta"]["text"] for kind, data, _ in events if "delta" in kind) == "one two "


async def test_what_cannot_be_repaired_is_a_gap_and_a_snapshot(wire: Wire, worker: FakeWorker) -> None:
    answer = await wire.post({"session_id": "s1", "message": "Hello"})
    turn = await worker.next_turn()
    await turn.start()
    await answer.until("content_block_start")
    worker.forgetful = True
    await turn.lose("one ")
    await turn.delta("two ")
    gap, snapshot = await answer.event(), await answer.event()
    assert ("gap", "snapshot") == (gap[0], snapshot[0])
    assert gap[1]["after"].endswith(".3")
    assert gap[1]["after"] == gap[2]  # who loses the line between the two is told both again
    assert gap[1]["until"] == snapshot[2]
    assert [block["text"] for block in snapshot[1]["blocks"]] == ["one two "]
    await turn.complete()
    assert [kind for kind, _, _ in await answer.until("[DONE]")] == ["turn_completed", "[DONE]"]


async def test_a_client_that_leaves_is_followed_no_longer(start: Start, worker: FakeWorker) -> None:
    serves = await start()
    answer = await serves.wire.post({"session_id": "s1", "message": "Hello"})
    await answer.until("turn_queued")
    assert serves.edge.viewers == 1
    await answer.leave()
    await eventually(lambda: serves.edge.viewers == 0, "the edge has noticed")
    assert worker.interrupts == []


async def test_on_disconnect_cancel_interrupts_the_turn(start: Start, worker: FakeWorker) -> None:
    serves = await start(disconnect_grace=0.1)
    answer = await serves.wire.post({"session_id": "s1", "message": "Hello", "on_disconnect": "cancel"})
    turn = await worker.next_turn()
    await turn.start()
    await answer.until("turn_started")
    await answer.leave()
    await eventually(lambda: worker.interrupts == [turn.id], "the turn is interrupted")


class Transport(asyncio.Transport):
    """A connection's end in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing


async def test_what_one_pass_of_the_loop_brings_for_a_connection_is_one_write_after_it() -> None:
    writes, one, two = Writes(), Transport(), Transport()
    for data in (b"a", b"b"):
        writes.add(one, data)
        writes.add(two, data.upper())
    assert [] == one.written
    await asyncio.sleep(0)
    assert ([b"ab"], [b"AB"]) == (one.written, two.written)
    writes.add(one, b"c")
    await asyncio.sleep(0)
    assert [b"ab", b"c"] == one.written


async def test_what_is_written_past_that_comes_after_it() -> None:
    writes, transport = Writes(), Transport()
    direct = Direct(transport, FlowControl(transport), writes)
    assert direct.write_soon(b"one")
    direct.write(b"two")
    await asyncio.sleep(0)
    assert [b"3\r\none\r\n", b"3\r\ntwo\r\n"] == transport.written


async def test_nothing_is_written_soon_while_earlier_parts_wait() -> None:
    transport = Transport()
    direct = Direct(transport, FlowControl(transport), Writes())
    direct.flow.write_paused = True
    assert not direct.write_soon(b"one")
    await asyncio.sleep(0)
    assert [] == transport.written


async def test_a_connection_that_has_closed_meanwhile_is_written_nothing() -> None:
    writes, transport = Writes(), Transport()
    writes.add(transport, b"late")
    transport.closing = True
    await asyncio.sleep(0)
    writes.add(transport, b"later")
    writes.flush(transport)
    assert [] == transport.written
