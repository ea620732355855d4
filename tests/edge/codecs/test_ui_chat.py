"""The AI SDK's UI-message stream; clients/js/test/ui-chat.test.tsx reads it with `useChat`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmwire.broker.reading.reader import Item, Lost, Shown
from warmwire.broker.wire.envelope import Envelope, Position
from warmwire.broker.wire.events import Block, Snapshot, TurnCompleted, TurnFailed, TurnInterrupted, TurnReset
from warmwire.edge.codecs.ui_message import INPUT_LIMIT, UiMessage

from tests.client import eventually
from tests.edge.access import tokens
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeWorker, begun
from tests.edge.wire import Answer, Wire

TURN = "t"
HELLO = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}


def event(type_: str, **fields: Any) -> dict[str, Any]:
    """An event of the CLI's."""
    return {"type": type_, **fields}


def began(index: int, **block: Any) -> dict[str, Any]:
    """A block begins."""
    return event("content_block_start", index=index, content_block=block)


def said(text: str, index: int = 0, kind: str = "text") -> dict[str, Any]:
    """A delta of text or thinking."""
    return event("content_block_delta", index=index, delta={"type": f"{kind}_delta", kind: text})


def given_input(text: str, index: int) -> dict[str, Any]:
    """A delta of a tool's input."""
    delta = {"type": "input_json_delta", "partial_json": text}
    return event("content_block_delta", index=index, delta=delta)


MESSAGE = event("message_start", message={})
TEXT = began(0, type="text", text="")
STOP = event("content_block_stop", index=0)
STOP_1 = event("content_block_stop", index=1)
OVER = event("message_stop")


def ours(event_: Any) -> dict[str, Any]:
    """An event of ours."""
    parsed: dict[str, Any] = json.loads(event_.encode())
    return parsed


COMPLETED = ours(TurnCompleted(turn=TURN, attempt=1, duration_ms=1, stop_reason="end_turn"))


def reset(message: int = 0) -> dict[str, Any]:
    """It is said again from a message on."""
    return ours(TurnReset(turn=TURN, attempt=2, reason="worker_lost", message=message))


def snapshot(*texts: str, kind: str = "text", **fields: Any) -> Shown:
    """A snapshot with a message of one block for each text."""
    blocks = tuple(Block(message=n, index=0, kind=kind, text=text) for n, text in enumerate(texts))
    shown = Snapshot(turn=TURN, attempt=1, blocks=blocks, **fields)
    return Shown(TURN, Position(1, 1), shown.encode())


LOST = Lost(Position(1, 1), Position(1, 9))


def chunks(*items: dict[str, Any] | Item) -> list[dict[str, Any]]:
    """What becomes of events."""
    shape = UiMessage(TURN)
    frames = [shape.begin()]
    for seq, item in enumerate(items):
        if isinstance(item, dict):
            raw = json.dumps(item, separators=(",", ":")).encode()
            frames.append(shape.add(Envelope(1, seq + 1, TURN, 1, item["type"], raw)))
        else:
            frames.append(shape.add(item))
    return parsed(b"".join(frames))


def parsed(frames: bytes) -> list[dict[str, Any]]:
    """The chunks in frames."""
    return [json.loads(frame.removeprefix(b"data: ")) for frame in frames.split(b"\n\n") if frame]


def text_of(found: Sequence[dict[str, Any]], kind: str = "text") -> str:
    """The text that they add up to."""
    return "".join(chunk["delta"] for chunk in found if chunk["type"] == f"{kind}-delta")


def types(found: Sequence[dict[str, Any]]) -> str:
    """Their types, in one line."""
    return " ".join(chunk["type"] for chunk in found)


ONE = [MESSAGE, TEXT, said("one "), said("two"), STOP, OVER, COMPLETED]


def test_an_answer_is_a_message_of_one_step() -> None:
    found = chunks(*ONE)
    expected = "start start-step text-start text-delta text-delta text-end finish-step finish"
    assert (expected, "one two") == (types(found), text_of(found))
    assert (TURN, "stop") == (found[0]["messageId"], found[-1]["finishReason"])
    assert found[-1]["messageMetadata"]["usage"]["output_tokens"] == 0


THOUGHT = [began(0, type="thinking", thinking=""), said("hm", kind="thinking"), STOP]
CALLED = [
    began(1, type="tool_use", id="c1", name="Bash", input={}),
    given_input('{"command":', 1),
    given_input('"ls"}', 1),
    STOP_1,
]
DONE = [
    event("tool_started", id="c1", name="Bash", summary="ls", turn=TURN),
    event("tool_finished", id="c1", is_error=False, summary="a b", turn=TURN),
]


def test_thinking_and_tools() -> None:
    found = chunks(MESSAGE, *THOUGHT, *CALLED, OVER, *DONE, *ONE)
    assert types(found) == (
        "start start-step reasoning-start reasoning-delta reasoning-end tool-input-start tool-input-delta"
        " tool-input-delta tool-input-available finish-step tool-output-available"
        " start-step text-start text-delta text-delta text-end finish-step finish"
    )
    available = next(chunk for chunk in found if chunk["type"] == "tool-input-available")
    output = next(chunk for chunk in found if chunk["type"] == "tool-output-available")
    assert ("c1", "Bash", {"command": "ls"}) == (
        available["toolCallId"],
        available["toolName"],
        available["input"],
    )
    assert ("c1", "a b") == (output["toolCallId"], output["output"])


def test_an_input_that_is_large_has_its_deltas_alone_and_one_that_is_no_json_an_error() -> None:
    call = began(1, type="tool_use", id="c1", name="Write", input={})
    large = chunks(MESSAGE, call, given_input('"' + "x" * INPUT_LIMIT, 1), given_input('"', 1), STOP_1)
    assert types(large) == "start start-step tool-input-start tool-input-delta tool-input-delta"
    assert "tool-input-error" in types(chunks(MESSAGE, call, given_input('{"a', 1), STOP_1))
    deep = given_input("[" * 10_000 + "]" * 10_000, 1)
    assert "tool-input-error" in types(chunks(MESSAGE, call, deep, STOP_1))
    failed = event("tool_finished", id="c1", is_error=True, summary="no", turn=TURN)
    assert chunks(MESSAGE, call, STOP_1, failed)[-1]["errorText"] == "no"


def test_what_came_of_a_call_that_was_not_seen_is_not_told_for_its_client_would_break() -> None:
    found = chunks(
        LOST, snapshot("one"), event("tool_finished", id="c1", is_error=False, summary="ls", turn=TURN)
    )
    assert types(found) == "start start-step text-start text-delta"
    started = event("tool_started", id="c2", name="Bash", summary="ls", turn=TURN)
    assert chunks(MESSAGE, started)[-1]["input"] == {"summary": "ls"}


def test_questions_are_data_parts_that_change() -> None:
    asked = event("permission_requested", request="q", tool="Bash", summary="ls", within_ms=9, turn=TURN)
    resolved = event("permission_resolved", request="q", outcome="denied", turn=TURN)
    progress = event("turn_progress", elapsed_ms=5000, doing="Bash", turn=TURN)
    first, second, third = chunks(asked, resolved, progress)[1:]
    assert ("data-permission", "q", "q") == (first["type"], first["id"], second["id"])
    assert (None, "denied", "Bash") == (
        first["data"]["outcome"],
        second["data"]["outcome"],
        second["data"]["tool"],
    )
    assert third["transient"]


def test_a_failure_is_an_error_and_an_interrupt_an_abort() -> None:
    failed = TurnFailed(
        turn=TURN, attempt=1, duration_ms=1, code="overloaded", message="Too much.", retryable=True
    )
    stopped = TurnInterrupted(turn=TURN, attempt=1, duration_ms=1)
    found = chunks(MESSAGE, TEXT, said("so far"), ours(failed))
    assert (["text-end", "finish-step", "error"], "overloaded: Too much.") == (
        types(found).split()[-3:],
        found[-1]["errorText"],
    )
    assert "abort" == chunks(MESSAGE, TEXT, said("so far"), ours(stopped))[-1]["type"]


@given(
    st.lists(st.text(min_size=1), max_size=6),
    st.integers(0, 6),
    st.sampled_from(["reset", "snapshot", "gap"]),
    st.integers(0, 6),
)
def test_what_is_said_again_is_told_once(texts: list[str], at: int, how: str, ahead: int) -> None:
    texts = [text.encode(errors="ignore").decode() for text in texts]
    before = [MESSAGE, TEXT, *map(said, texts[:at])]
    seen = "".join(texts[: max(at, ahead)])
    again: dict[str, list[Any]] = {
        "reset": [reset(), MESSAGE, TEXT, *map(said, texts)],
        "snapshot": [snapshot(seen), *map(said, texts[max(at, ahead) :])],
        "gap": [LOST, said("lost"), snapshot(seen), *map(said, texts[max(at, ahead) :])],
    }
    found = chunks(*before, *again[how], STOP, OVER, COMPLETED)
    assert ("".join(texts), "finish") == (text_of(found), found[-1]["type"])


@pytest.mark.parametrize(
    "again",
    [
        pytest.param([reset(), MESSAGE, TEXT, said("two and more"), COMPLETED], id="other text"),
        pytest.param([reset(), MESSAGE, TEXT, said("on"), COMPLETED], id="less text"),
        pytest.param([snapshot("on")], id="less in a snapshot"),
        pytest.param([snapshot("one and", truncated=True)], id="more than is kept"),
        pytest.param([LOST, COMPLETED], id="a part is lost"),
        pytest.param([reset(), MESSAGE, began(0, type="tool_use", id="c", name="Bash")], id="a tool now"),
    ],
)
def test_what_cannot_be_taken_back_is_an_error_after_which_nothing_comes(again: list[Any]) -> None:
    found = chunks(MESSAGE, TEXT, said("one"), *again, *ONE)
    assert "one" == text_of(found).removesuffix(" and")  # a beginning that goes further is told
    assert "error" == found[-1]["type"]
    assert found[-1]["errorText"].startswith("text_void: ")


def test_an_attempt_that_went_on_from_a_tool_says_its_last_message_again() -> None:
    call = began(0, type="tool_use", id="c1", name="Bash", input={})
    tool = [MESSAGE, call, STOP, OVER, event("tool_finished", id="c1", is_error=False, summary="", turn=TURN)]
    found = chunks(*tool, MESSAGE, TEXT, said("one"), reset(1), *ONE)
    assert ("one two", "finish") == (text_of(found), found[-1]["type"])
    voided = chunks(*tool, MESSAGE, TEXT, said("one"), reset(0), *ONE)
    assert "error" == voided[-1]["type"]


def test_thinking_that_is_thought_again_is_told_once_and_a_record_keeps_none() -> None:
    thought = [MESSAGE, began(0, type="thinking", thinking=""), said("hm", kind="thinking")]
    found = chunks(*thought, reset(), *thought, said("?", kind="thinking"))
    assert text_of(found, "reasoning") == "hm?"
    recorded = chunks(*thought, STOP, LOST, snapshot("one"), COMPLETED)
    assert ("hm", "one", "finish") == (
        text_of(recorded, "reasoning"),
        text_of(recorded),
        recorded[-1]["type"],
    )


# -- the routes


async def post(wire: Wire, session: str = "s1", **more: Any) -> Answer:
    """Send as ``DefaultChatTransport`` does."""
    body = {"id": session, "messages": [HELLO], "trigger": "submit-message", **more}
    return await wire.send("POST", "/v1/ui/chat", body)


async def resume(wire: Wire, session: str = "s1", **headers: str) -> Answer:
    """Come back as it does."""
    return await wire.send("GET", f"/v1/ui/chat/{session}/stream", **headers)


async def told(answer: Answer) -> list[dict[str, Any]]:
    """The chunks of a response that has ended."""
    body = await answer.body()
    assert body.endswith(b"data: [DONE]\n\n")
    return parsed(body.removesuffix(b"data: [DONE]\n\n"))


async def test_a_message_is_sent_and_answered(wire: Wire, worker: FakeWorker) -> None:
    answer = await post(wire, model="opus", messages=[{"role": "assistant", "parts": []}, HELLO])
    turn = await begun(worker, "one ", "two")
    await turn.complete()
    assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
    found = await told(answer)
    assert ("one two", turn.id, "finish") == (text_of(found), found[0]["messageId"], found[-1]["type"])
    options = turn.message.options
    assert ("s1", "Hello", "opus", "cancel") == (
        turn.session_id,
        turn.message.content,
        options.model,
        options.on_disconnect,
    )


async def test_files_are_content_blocks(wire: Wire, worker: FakeWorker) -> None:
    parts = [
        {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AAAA"},
        {"type": "file", "mediaType": "application/pdf", "url": "data:application/pdf;base64,BBBB"},
        {"type": "text", "text": "Look"},
    ]
    await post(wire, messages=[{"role": "user", "parts": parts}])
    content: Any = (await worker.next_turn()).message.content
    assert ["image", "document", "text"] == [block["type"] for block in content]
    assert content[0]["source"] == {"type": "base64", "media_type": "image/png", "data": "AAAA"}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"trigger": "regenerate-message"}, "trigger"),
        ({"messageId": "m1"}, "messageId"),
        ({"messages": []}, "messages"),
        ({"messages": [HELLO, {"id": "m2", "role": "assistant", "parts": []}]}, "messages.1"),
        ({"messages": [{"role": "user", "parts": [{"type": "data-x", "data": 1}]}]}, "messages.0"),
        ({"messages": [{"role": "user", "parts": [{"type": "file", "url": "http://a/b.png"}]}]}, "messages"),
        ({"messages": [{"role": "user", "parts": [{"type": "text", "text": " "}]}]}, "message"),
        ({"temperature": 1}, "temperature"),
        ({"session_id": "s2"}, "session_id"),
        ({"rollup_ms": 501}, "rollup_ms"),
        ({"id": "a.b"}, "session_id"),
    ],
)
async def test_what_cannot_be_done_is_refused(
    wire: Wire, worker: FakeWorker, given: dict[str, Any], field: str
) -> None:
    answer = await post(wire, **given)
    problem = await answer.problem()
    assert (422, field) == (answer.status, problem["field"])
    assert worker.waiting == 0


async def test_who_comes_back_is_told_the_turn_that_runs_from_its_beginning(
    wire: Wire, worker: FakeWorker
) -> None:
    assert 204 == (await resume(wire)).status
    answer = await post(wire)
    turn = await begun(worker, "one ")
    await answer.leave()
    again = await resume(wire)
    await turn.delta("two")
    worker.forgetful = True
    late = await resume(wire)  # from a snapshot
    await turn.delta(" three")
    await turn.complete()
    for each in (await told(again), await told(late)):
        assert ("one two three", turn.id, "finish") == (
            text_of(each),
            each[0]["messageId"],
            each[-1]["type"],
        )
    assert 204 == (await resume(wire)).status


async def test_a_stream_that_broke_is_owed_the_turn_though_it_has_ended(
    start: Start, worker: FakeWorker
) -> None:
    serves = await start()
    answer = await post(serves.wire)
    turn = await begun(worker, "one ")
    await answer.leave()
    await eventually(lambda: serves.edge.viewers == 0, "its viewer has left")
    await turn.complete()
    found = await told(await resume(serves.wire))
    assert ("one ", "finish") == (text_of(found), found[-1]["type"])
    assert 204 == (await resume(serves.wire)).status


async def test_who_stopped_is_not_told_again(start: Start, worker: FakeWorker) -> None:
    serves = await start(disconnect_grace=0)
    answer = await post(serves.wire)
    turn = await begun(worker, "one ")
    await answer.leave()
    await eventually(lambda: worker.interrupts == [turn.id], "nobody sees it, so it stops")
    await turn.interrupted()
    assert 204 == (await resume(serves.wire)).status
    assert serves.edge.viewers == 0


async def test_an_edge_that_leaves_says_so(start: Start, worker: FakeWorker) -> None:
    serves = await start()
    answer = await post(serves.wire)
    turn = await begun(worker, "one ")
    serves.edge.end_streams()
    assert (await told(answer))[-1]["errorText"].startswith("edge_leaving: ")
    await turn.complete()


async def test_void_text_ends_the_stream_and_the_turn_goes_on(wire: Wire, worker: FakeWorker) -> None:
    answer = await post(wire)
    turn = await begun(worker, "one ")
    await turn.publish(TurnReset(turn=turn.id, attempt=2, reason="worker_lost").encode())
    await turn.publish(json.dumps(MESSAGE).encode())
    await turn.publish(json.dumps(TEXT).encode())
    await turn.delta("another")
    assert (await told(answer))[-1]["errorText"].startswith("text_void: ")
    again = await resume(wire)
    await turn.complete()
    found = await told(again)
    assert ("another", "finish") == (text_of(found)[-7:], found[-1]["type"])
    assert worker.interrupts == []


async def test_a_slow_viewer_is_brought_up_to_date_and_has_each_word_once(
    start: Start, worker: FakeWorker
) -> None:
    serves = await start(viewer_bytes=2048)
    answer = await post(serves.wire)
    turn = await begun(worker)
    words = [f"{number} é " * 50 for number in range(2000)]
    for word in words:
        await turn.delta(word)
    await turn.complete()
    assert "".join(words) == text_of(await told(answer))


async def test_a_session_is_its_users(start: Start, worker: FakeWorker, tmp_path: Path) -> None:
    serves = await start(**tokens.with_secret(tmp_path))
    wire = serves.wire
    assert 401 == (await post(wire)).status
    body = {"id": "s1", "messages": [HELLO]}
    mine, other = ({"authorization": f"Bearer {tokens.token(sub=user)}"} for user in ("me", "somebody else"))
    assert 204 == (await resume(wire, **mine)).status
    answer = await wire.send("POST", "/v1/ui/chat", body, **mine)
    turn = await begun(worker, "one")
    assert (403, 204) == (
        (await wire.send("POST", "/v1/ui/chat", body, **other)).status,
        (await resume(wire, **other)).status,
    )
    again = await resume(wire, **mine)
    await turn.complete()
    assert "one" == text_of(await told(answer)) == text_of(await told(again))
