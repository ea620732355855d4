"""The client library against a real NATS server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from warmwire.broker.errors import BadInput, QueueFull, Unavailable
from warmwire.broker.nats.store import Store
from warmwire.broker.wire.events import TurnCompleted
from warmwire.producer import (
    KeyReused,
    Lagging,
    MessageTooLarge,
    Producer,
    SessionBusy,
    Turn,
    TurnFailed,
)

from tests.client import eventually
from tests.edge.fake_worker import FakeWorker


async def test_the_text_of_an_answer(producer: Producer, worker: FakeWorker) -> None:
    worker.answer_all("Hello, ", "world")
    turn = await producer.send("Hi")
    assert await turn.text() == "Hello, world"


async def test_events_come_typed_in_order_and_end_with_the_terminal_one(
    producer: Producer, worker: FakeWorker
) -> None:
    worker.answer_all("one", "two")
    turn = await producer.send("Hi", session_id="s1")
    events = [event async for event in turn]
    assert [event.type for event in events] == [
        "turn_queued",
        "turn_started",
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "turn_completed",
    ]
    assert events[0].cursor is None
    assert events[0].data == {"type": "turn_queued", "turn": turn.id, "session_id": "s1"}
    assert events[4].data["delta"]["text"] == events[4].text == "one"
    assert all(event.cursor and event.cursor.startswith(turn.id) for event in events[1:])
    assert [event async for event in turn] == []


async def test_what_was_sent_is_what_the_worker_gets(producer: Producer, worker: FakeWorker) -> None:
    content: list[dict[str, Any]] = [
        {"type": "text", "text": "Look"},
        {"type": "image", "source": {"type": "base64"}},
    ]
    await producer.send(content, session_id="s1", model="opus", on_worker_loss="fail")
    message = (await worker.next_turn()).message
    assert message.content == tuple(content)
    assert ("opus", "fail", "enqueue") == (
        message.options.model,
        message.options.on_worker_loss,
        message.options.double_texting,
    )


async def test_without_a_session_a_new_one_begins_each_time(producer: Producer) -> None:
    first, second = await producer.send("Hi"), await producer.send("Hi")
    assert first.session_id != second.session_id


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"message": ""}, "message"),
        ({"message": [{"type": "text", "text": " "}]}, "message"),
        ({"message": "half \ud83d"}, "message"),
        ({"message": b"Hi"}, "message"),
        ({"message": [{"type": "text", "text": "Hi", "when": {1, 2}}]}, "message"),
        ({"message": "Hi", "session_id": "a.b"}, "session_id"),
        ({"message": "Hi", "session_id": ""}, "session_id"),
        ({"message": "Hi", "tenant": "*"}, "tenant"),
        ({"message": "Hi", "session_id": "s1", "idempotency_key": ""}, "idempotency_key"),
    ],
)
async def test_a_bad_request_names_its_field_and_publishes_nothing(
    producer: Producer, worker: FakeWorker, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(BadInput) as caught:
        await producer.send(**arguments)
    assert caught.value.field == field
    stream = await worker.bus.js.stream_info(worker.subjects.request_stream)
    assert stream.state.last_seq == 0


async def test_a_message_larger_than_the_limit_is_refused_with_both_numbers(producer: Producer) -> None:
    with pytest.raises(MessageTooLarge) as caught:
        await producer.send("é" * 600_000)
    assert (1_200_000, 1_048_576) == (caught.value.size, caught.value.limit)


async def test_a_failed_turn_raises_what_it_failed_of_and_keeps_the_text(
    producer: Producer, worker: FakeWorker
) -> None:
    turn = await producer.send("Hi")
    theirs = await worker.next_turn()
    await theirs.start()
    await theirs.delta("so far")
    await theirs.fail("overloaded", "The API is overloaded.")
    with pytest.raises(TurnFailed) as caught:
        await turn.text()
    assert ("overloaded", "so far", True) == (caught.value.code, caught.value.text, caught.value.retryable)


async def test_an_interrupt_reaches_the_owner(producer: Producer, worker: FakeWorker) -> None:
    turn = await producer.send("Hi")
    theirs = await worker.next_turn()
    await theirs.start()
    await turn.interrupt()
    assert worker.interrupts == [turn.id]
    await theirs.interrupted()
    assert await turn.text() == ""


async def test_an_interrupt_before_anybody_owns_the_session_waits_for_its_turn(
    producer: Producer, worker: FakeWorker
) -> None:
    turn = await producer.send("Hi", session_id="s1")
    await turn.interrupt()
    assert await worker.store.interrupt_asked(turn._key, turn.id)


async def test_an_interrupt_meets_no_turn_whose_end_is_told_though_it_is_queued_still(
    producer: Producer, worker: FakeWorker
) -> None:
    turn = await producer.send("Hi", session_id="s1")
    theirs = await worker.next_turn()
    await theirs.start()
    await theirs.tell_end(TurnCompleted(turn=turn.id, attempt=1, duration_ms=1, stop_reason="end_turn"))
    assert await turn.text() == ""
    assert await producer.interrupt("s1") is None
    assert not await worker.store.interrupt_asked(turn._key, turn.id)
    await theirs.ack()


async def test_an_interrupt_of_a_turn_that_waits_behind_another_is_kept_for_it(
    producer: Producer, worker: FakeWorker
) -> None:
    await producer.send("first", session_id="s1")
    await (await worker.next_turn()).start()
    second = await producer.send("second", session_id="s1")
    await second.interrupt()
    assert await worker.store.interrupt_asked(second._key, second.id)


async def test_resume_continues_after_the_cursor(producer: Producer, worker: FakeWorker) -> None:
    turn = await producer.send("Hi", session_id="s1")
    theirs = await worker.next_turn()
    await theirs.start()
    await theirs.delta("one ")
    async for event in turn:
        if event.type == "content_block_delta":
            break
    again = await turn.resume(turn.cursor)
    await theirs.delta("two")
    await theirs.complete()
    assert [event.text for event in [event async for event in again]] == ["two", None]
    assert [event async for event in turn] == []


async def test_resume_from_the_end_has_nothing_more(producer: Producer, worker: FakeWorker) -> None:
    worker.answer_all("Hi")
    turn = await producer.send("Hi", session_id="s1")
    await turn.text()
    again = await producer.resume("s1", turn.cursor)
    assert [event async for event in again] == []


async def test_resume_wants_a_cursor(producer: Producer) -> None:
    with pytest.raises(BadInput, match="cursor"):
        await producer.resume("s1", "nonsense")


async def test_the_same_key_is_the_same_turn(producer: Producer, worker: FakeWorker) -> None:
    first = await producer.send("Hi", session_id="s1", idempotency_key="k1")
    second = await producer.send("Hi", session_id="s1", idempotency_key="k1")
    theirs = await worker.next_turn()
    await theirs.start()
    await theirs.delta("Hello")
    await theirs.complete()
    third = await producer.send("Hi", session_id="s1", idempotency_key="k1")
    assert first.id == second.id == third.id
    assert [await turn.text() for turn in (first, second, third)] == ["Hello"] * 3
    assert worker.waiting == 0


async def test_the_same_key_of_two_tenants_is_two_turns(producer: Producer, worker: FakeWorker) -> None:
    worker.answer_all("Hello")
    one = await producer.send("Hi", session_id="s1", tenant="one", idempotency_key="k1")
    two = await producer.send("Hi", session_id="s1", tenant="two", idempotency_key="k1")
    assert one.id != two.id
    assert [await turn.text() for turn in (one, two)] == ["Hello", "Hello"]


async def test_the_same_key_hours_later_is_the_same_turn(producer: Producer, worker: FakeWorker) -> None:
    first = await producer.send("Hi", session_id="s1", idempotency_key="k1")
    theirs = await worker.next_turn()
    await theirs.start()
    await theirs.delta("Hello")
    await theirs.complete()
    js, stream = worker.bus.js, worker.subjects.request_stream
    config = (await js.stream_info(stream)).config
    await js.delete_stream(stream)  # the server remembers message ids for minutes, and now not at all
    await js.add_stream(config)
    second = await producer.send("Hi", session_id="s1", idempotency_key="k1")
    assert first.id == second.id
    assert await second.text() == "Hello"
    assert (await js.stream_info(stream)).state.last_seq == 0


async def test_the_same_key_with_another_message_is_refused(producer: Producer, worker: FakeWorker) -> None:
    worker.answer_all("Hello")
    await (await producer.send("Hi", session_id="s1", idempotency_key="k1")).text()
    with pytest.raises(KeyReused):
        await producer.send("Good bye", session_id="s1", idempotency_key="k1")


async def test_a_busy_session_can_be_refused(producer: Producer, worker: FakeWorker) -> None:
    await producer.send("one", session_id="s1")
    with pytest.raises(SessionBusy):
        await producer.send("two", session_id="s1", double_texting="reject")
    worker.answer_all("Hello")
    await (await producer.send("three", session_id="s1")).text()
    await producer.send("four", session_id="s1", double_texting="reject")


async def test_a_full_session_is_refused(producer: Producer) -> None:
    for _ in range(16):
        await producer.send("Hi", session_id="s1")
    with pytest.raises(QueueFull):
        await producer.send("Hi", session_id="s1")


async def test_what_is_not_read_in_time_ends_with_a_cursor_that_loses_nothing(
    nats_server: str, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMWIRE_TURN_BUFFER_BYTES", "2000")
    async with Producer.connect(nats_server, worker.subjects.prefix) as producer:
        turn = await producer.send("Hi", session_id="s1")
        theirs = await worker.next_turn()
        await theirs.start()
        for number in range(100):
            await theirs.delta(f"{number} ")
        await theirs.complete()
        await eventually(lambda: turn._inbox.done, "the buffer is full")
        texts: list[str] = []
        while (cursor := await read(turn, texts)) is not None:
            turn = await producer.resume("s1", cursor)
    assert texts == [f"{number} " for number in range(100)]


async def read(turn: Turn, texts: list[str]) -> str | None:
    """Read to the end; returns the cursor to go on from, if that was not the end."""
    try:
        async for event in turn:
            texts += [event.text] if event.text else []
    except Lagging as lagging:
        return lagging.cursor
    return None


async def test_two_tries_are_one_acceptance(
    producer: Producer, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, calls = Store.submit, []

    async def answer_lost(store: Store, *arguments: Any, **options: Any) -> object:
        calls.append(await submit(store, *arguments, **options))
        if len(calls) == 1:
            raise Unavailable("the answer was lost")
        return calls[-1]

    monkeypatch.setattr(Store, "submit", answer_lost)
    worker.answer_all("Hello")
    assert await (await producer.send("Hi")).text() == "Hello"
    assert [False, True] == [accepted.duplicate for accepted in calls]


async def test_nobody_there_is_said_at_once() -> None:
    with pytest.raises(Unavailable, match="no NATS server answers"):
        await Producer.connect("nats://127.0.0.1:1")


async def test_a_bad_prefix_is_refused_before_connecting() -> None:
    with pytest.raises(BadInput, match="prefix"):
        await Producer.connect("nats://127.0.0.1:1", "a.b")


async def test_closing_ends_iterations(nats_server: str, worker: FakeWorker) -> None:
    producer = await Producer.connect(nats_server, worker.subjects.prefix)
    turn = await producer.send("Hi")
    reading = asyncio.create_task(turn.text())
    await eventually(lambda: not turn._inbox._waiting, "the iteration waits")
    await producer.close()
    assert await reading == ""


async def test_a_turn_left_early_is_followed_no_longer(producer: Producer, worker: FakeWorker) -> None:
    async with await producer.send("Hi", session_id="s1") as turn:
        pass
    theirs = await worker.next_turn()
    await theirs.start()
    await theirs.complete()
    again = await producer.resume("s1", f"{turn.id}.0.0")
    assert [event.type async for event in again][-1] == "turn_completed"
    assert [event.type async for event in turn] == ["turn_queued"]
