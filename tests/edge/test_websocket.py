"""``/v1/chat/ws`` over a real connection."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from warmwire.broker.wire.messages import PermissionReply
from warmwire.edge.frames import Close
from warmwire.edge.websocket import SESSIONS_LIMIT

from tests.client import eventually
from tests.edge.conftest import Start
from tests.edge.delivery.test_watch import texts
from tests.edge.fake_worker import FakeTurn, FakeWorker
from tests.edge.test_sessions import running
from tests.edge.wire import WITHIN, Wire

SEND = {"type": "user_message", "session_id": "s1", "message": "Hello"}


class Line:
    """A connection, frame by frame."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, **frame: Any) -> None:
        """A frame."""
        await self.socket.send(json.dumps(frame))

    async def frame(self) -> dict[str, Any]:
        """The next frame."""
        frame: dict[str, Any] = json.loads(await self.socket.recv())
        return frame

    async def until(self, type_: str) -> list[tuple[str, dict[str, Any], str]]:
        """Events up to and with the first of that type; as a stream shows them."""
        events: list[tuple[str, dict[str, Any], str]] = []
        while not events or events[-1][0] != type_:
            frame = await self.frame()
            assert {"session_id", "cursor", "event"} == frame.keys()
            events.append((frame["event"]["type"], frame["event"], frame["cursor"]))
        return events

    async def _read_all(self) -> None:
        while True:
            await self.socket.recv()

    async def closed(self) -> int:
        """Read until it is closed; the code."""
        with pytest.raises(ConnectionClosed):
            await self._read_all()
        assert self.socket.close_code is not None
        return self.socket.close_code


async def opened(wire: Wire, query: str = "", **options: Any) -> Line:
    """A connection to an edge."""
    url = f"ws://{wire.host}:{wire.port}/v1/chat/ws{query}"
    return Line(await connect(url, proxy=None, open_timeout=WITHIN, **options))


@pytest.fixture
async def line(wire: Wire) -> Any:
    """A connection to an edge with the usual settings."""
    line = await opened(wire)
    yield line
    await line.socket.close()


async def asked(line: Line, worker: FakeWorker, session: str = "s1") -> FakeTurn:
    """A turn that was asked for over the line, and runs."""
    await line.send(**SEND | {"session_id": session})
    turn = await worker.next_turn()
    await turn.start()
    return turn


async def test_a_message_is_answered_with_its_events(line: Line, worker: FakeWorker) -> None:
    turn = await asked(line, worker)
    await turn.delta("Hi")
    await turn.complete()
    first = await line.frame()
    queued = {"type": "turn_queued", "turn": turn.id, "session_id": "s1"}
    assert {"session_id": "s1", "cursor": f"{turn.id}.0.0", "event": queued} == first
    events = await line.until("turn_completed")
    assert events[0][0] == "turn_started"
    assert texts(events) == {turn.id: "Hi"}


async def test_one_line_carries_several_sessions(line: Line, worker: FakeWorker) -> None:
    one, two = await asked(line, worker, "s1"), await asked(line, worker, "s2")
    await one.delta("1")
    await two.delta("2")
    await one.complete()
    await two.complete()
    seen: dict[str, str] = {}
    ends = 0
    while ends < 2:
        frame = await line.frame()
        event = frame["event"]
        ends += event["type"] == "turn_completed"
        if event["type"] == "content_block_delta":
            seen[frame["session_id"]] = event["delta"]["text"]
    assert {"s1": "1", "s2": "2"} == seen


async def test_a_watch_from_a_cursor_goes_on_and_one_without_shows_a_snapshot(
    wire: Wire, worker: FakeWorker
) -> None:
    turn = await running(wire, worker)
    await turn.delta("early ")
    line = await opened(wire)
    await line.send(type="watch", session_id="s1")
    ((_, shown, cursor),) = await line.until("snapshot")
    assert shown["blocks"][0]["text"] == "early "
    await line.socket.close()
    await turn.delta("late")
    line = await opened(wire)
    await line.send(type="watch", session_id="s1", cursor=cursor, id="w1")
    # Whether the delta has reached the edge by then is open: it comes before the frame, or live after it.
    frames = [await line.frame() for _ in range(2)]
    (late,) = [frame["event"] for frame in frames if "event" in frame]
    assert late["delta"]["text"] == "late"
    (watching,) = [frame for frame in frames if "event" not in frame]
    assert ("watching", "w1", "s1") == (watching["type"], watching["id"], watching["session_id"])
    await line.socket.close()


@pytest.mark.parametrize("cursor", ["nonsense", "t.99999999999999.1"])
async def test_a_cursor_of_nobody_is_told_as_a_gap_and_a_snapshot(
    line: Line, wire: Wire, worker: FakeWorker, cursor: str
) -> None:
    turn = await running(wire, worker)
    await turn.delta("so far")
    await line.send(type="watch", session_id="s1", cursor=cursor)
    assert ["gap", "snapshot"] == [kind for kind, _, _ in await line.until("snapshot")]


async def test_an_interrupt_stops_the_turn(line: Line, worker: FakeWorker) -> None:
    turn = await asked(line, worker)
    await line.until("content_block_start")
    await line.send(type="interrupt", session_id="s1", id="i1")
    assert {"type": "interrupting", "id": "i1", "session_id": "s1", "turn": turn.id} == await line.frame()
    assert worker.interrupts == [None]  # the one at hand


async def test_a_question_of_the_cli_is_answered(line: Line, worker: FakeWorker) -> None:
    await asked(line, worker)
    await line.until("content_block_start")
    answer = {"type": "permission", "session_id": "s1", "request": "7-1", "allow": True, "id": "a"}
    await line.send(**answer, input={"command": "ls"})
    assert {"type": "answered", "id": "a", "session_id": "s1", "request": "7-1"} == await line.frame()
    (taken,) = worker.answers
    assert (True, b'{"command": "ls"}') == (taken.allow, taken.instead)
    worker.outcome = PermissionReply(outcome="closed")
    await line.send(**answer)
    refused = await line.frame()
    assert ("question_closed", "a") == (refused["code"], refused["id"])


async def test_a_ping_is_answered(line: Line) -> None:
    await line.send(type="ping")
    await line.send(type="ping", id="7")
    assert [{"type": "pong"}, {"type": "pong", "id": "7"}] == [await line.frame(), await line.frame()]


async def test_a_repeated_key_is_the_same_turn(line: Line, worker: FakeWorker) -> None:
    for _ in range(2):
        await line.send(**SEND, idempotency_key="k1", id="m")
    frames = [await line.frame() for _ in range(4)]
    assert len({frame["turn"] for frame in frames if frame.get("type") == "accepted"}) == 1
    await worker.next_turn()
    assert worker.waiting == 0


@pytest.mark.parametrize(
    ("text", "code", "field"),
    [
        ("{", "not_json", None),
        ("[]", "invalid_field", None),
        ("{}", "invalid_field", "type"),
        ('{"type":"permit"}', "invalid_field", "type"),
        ('{"type":"permission","session_id":"s1","request":"1-1"}', "invalid_field", "allow"),
        ('{"type":"permission","session_id":"s1","request":"a.b","allow":true}', "invalid_field", "request"),
        ('{"type":"user_message","session_id":"s1"}', "invalid_field", "message"),
        ('{"type":"user_message","session_id":"s1","message":" "}', "invalid_field", "message"),
        ('{"type":"user_message","session_id":"a.b","message":"Hi"}', "invalid_field", "session_id"),
        ('{"type":"user_message","message":"Hi","x":1}', "unknown_field", "x"),
        ('{"type":"watch","session_id":">"}', "invalid_field", "session_id"),
        ('{"type":"watch"}', "invalid_field", "session_id"),
        ('{"type":"interrupt","session_id":"s1","turn":"*"}', "invalid_field", "turn"),
        ('{"type":"ping","id":7}', "invalid_field", "id"),
        ("[" * 100_000, "not_json", None),
    ],
)
async def test_a_bad_frame_gets_an_error_that_names_the_field_and_the_line_goes_on(
    line: Line, text: str, code: str, field: str | None
) -> None:
    await line.socket.send(text)
    error = await line.frame()
    assert ("error", code, field) == (error["type"], error["code"], error.get("field"))
    await line.send(type="ping")
    assert (await line.frame())["type"] == "pong"


async def test_a_binary_frame_is_an_error(line: Line) -> None:
    await line.socket.send(b"\x00")
    assert (await line.frame())["code"] == "not_json"


async def test_a_refused_message_is_an_error_with_the_sessions_name(line: Line, worker: FakeWorker) -> None:
    await asked(line, worker)
    await line.until("content_block_start")
    await line.send(**SEND, double_texting="reject", id="m2")
    error = await line.frame()
    assert ("session_busy", 409, "s1", "m2") == (
        error["code"],
        error["status"],
        error["session_id"],
        error["id"],
    )


async def test_nothing_but_bad_frames_ends_the_line_for_good(line: Line) -> None:
    for _ in range(30):
        await line.socket.send("{")
    assert await line.closed() == Close.BAD_FRAMES.code >= 4500


async def test_a_frame_that_is_too_large_ends_the_line(start: Start) -> None:
    line = await opened((await start(max_message_bytes=100)).wire)
    await line.socket.send("x" * 200_000)
    assert await line.closed() == 1009


async def test_at_its_maximum_age_it_is_told_to_connect_again(start: Start) -> None:
    line = await opened((await start(max_age=0.2)).wire)
    frame = await line.frame()
    assert frame["type"] == "reconnect"
    assert 500 <= frame["retry_ms"] <= 3000
    assert await line.closed() == Close.ROTATE.code < 4500


async def test_an_edge_that_leaves_says_so(start: Start) -> None:
    serves = await start()
    line = await opened(serves.wire)
    await line.send(type="ping")
    await line.frame()
    serves.edge.drain()
    assert await line.closed() == Close.LEAVING.code


async def test_who_leaves_is_no_viewer_any_more(start: Start, worker: FakeWorker) -> None:
    serves = await start(disconnect_grace=0)
    line = await opened(serves.wire)
    await line.send(**SEND, on_disconnect="cancel")
    turn = await worker.next_turn()
    await turn.start()
    await line.until("content_block_start")
    assert serves.edge.presence.here(turn.key) == 1
    await line.socket.close()
    await eventually(lambda: serves.edge.presence.here(turn.key) == 0, "the edge has noticed")
    await eventually(lambda: worker.interrupts == [turn.id], "the turn is stopped")


async def test_who_does_not_read_is_brought_up_to_date_when_it_does(start: Start, worker: FakeWorker) -> None:
    serves = await start(viewer_bytes=16 * 1024)
    line = await opened(serves.wire, max_queue=1)
    turn = await asked(line, worker)
    await line.until("content_block_start")
    other = await serves.wire.watch("s1")
    await other.until("snapshot")
    for _ in range(2_000):
        await turn.delta("x" * 1_000)
        while (await other.event())[0] != "content_block_delta":
            pass
    assert any(outbox._behind for outbox in serves.edge._leaving)
    assert max(outbox._bytes for outbox in serves.edge._leaving) <= 16 * 1024 + 2000
    await turn.complete()
    assert len(texts(await line.until("turn_completed"))[turn.id]) == 2_000_000
    await line.socket.close()


async def test_who_reads_nothing_for_too_long_is_cut(start: Start, worker: FakeWorker) -> None:
    serves = await start(viewer_bytes=16 * 1024, viewer_patience=0.3)
    line = await opened(serves.wire, max_queue=1)
    turn = await asked(line, worker)
    other = await serves.wire.watch("s1")
    await other.until("snapshot")
    for _ in range(100):  # 5 MB: more than sockets hold, less than the turn's record may
        await turn.delta("x" * 50_000)
        while (await other.event())[0] != "content_block_delta":
            pass
    await eventually(lambda: serves.edge.viewers == 1, "it is cut")
    await turn.complete()
    await other.until("turn_completed")
    assert 1006 == await line.closed()


async def test_one_line_watches_so_many_sessions_and_no_more(wire: Wire) -> None:
    line = await opened(wire)
    for number in range(SESSIONS_LIMIT + 1):
        await line.send(type="watch", session_id=f"s{number}", id=str(number))
    while (frame := await line.frame()).get("type") != "error":
        pass
    assert ("invalid_field", "session_id", SESSIONS_LIMIT, str(SESSIONS_LIMIT)) == (
        frame["code"],
        frame["field"],
        frame["limit"],
        frame["id"],
    )
    await line.send(type="watch", session_id="s0")  # it watches that already
    await line.send(type="unwatch", session_id="s1")
    await line.send(type="watch", session_id="s-new")
    await line.send(type="ping")
    while (frame := await line.frame()).get("type") != "pong":
        assert "error" != frame.get("type")
    await line.socket.close()


async def test_deltas_are_gathered_for_a_line_that_asks(wire: Wire, worker: FakeWorker) -> None:
    line = await opened(wire, "?rollup_ms=500")
    turn = await asked(line, worker)
    for text in ("first", " a", " b"):
        await turn.delta(text)
        if text == "first":
            await line.until("content_block_delta")
    assert (await line.frame())["event"]["delta"]["text"] == " a b"
    await line.socket.close()
