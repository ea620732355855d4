"""What the store knows of a session as a whole, against a real server."""

from __future__ import annotations

import pytest

from warmwire.broker.errors import Conflict
from warmwire.broker.nats.store import Store
from warmwire.broker.wire.messages import OwnerRecord, Started, UserMessage
from warmwire.broker.wire.names import SessionKey

from tests.broker.conftest import Broker

KEY = SessionKey("default", "s1")
OTHER = SessionKey("default", "s2")


@pytest.fixture
def store(broker: Broker) -> Store:
    return broker.store


def message(turn: str) -> UserMessage:
    """A user message."""
    return UserMessage(turn=turn, content="Hello", sent_ms=1)


async def started(store: Store, key: SessionKey, turn: str, epoch: int) -> None:
    """The record of a turn that runs."""
    await store.put_turn(key, turn, Started(attempt=1, epoch=epoch, worker="w", digest="d"))


async def test_the_queue_is_listed_in_order_and_without_other_sessions(store: Store) -> None:
    for turn in ("t2", "t1"):
        await store.submit(KEY, message(turn), {})
    await store.submit(OTHER, message("t3"), {})
    assert [queued.message.turn for queued in await store.queued(KEY)] == ["t2", "t1"]
    assert await store.queued(SessionKey("default", "unused")) == ()


async def test_only_if_idle_is_refused_while_a_message_waits_and_taken_once_it_is_acked(store: Store) -> None:
    first = await store.submit(KEY, message("t1"), {}, only_if_idle=True)
    with pytest.raises(Conflict):
        await store.submit(KEY, message("t2"), {}, only_if_idle=True)
    await store._js._bus.js.delete_msg(store._subjects.request_stream, first.sequence)
    await store.submit(KEY, message("t3"), {}, only_if_idle=True)


async def test_a_repetition_whose_acknowledgement_was_lost_is_no_conflict_with_itself(store: Store) -> None:
    await store.submit(KEY, message("t1"), {}, only_if_idle=True)
    assert (await store.submit(KEY, message("t1"), {}, only_if_idle=True)).duplicate


async def test_turn_records_come_in_pages_in_the_order_of_their_writing(store: Store) -> None:
    epoch = await store.claim(KEY, OwnerRecord(worker="w", nonce="n"), 0)
    for turn in ("c", "b", "a"):
        await started(store, KEY, turn, epoch)
    await started(store, KEY, "c", epoch)  # written again: now it is the newest
    page = await store.turns(KEY, 0, 2)
    assert [found.turn for found in page] == ["b", "a"]
    assert [found.turn for found in await store.turns(KEY, page[-1].sequence, 2)] == ["c"]
    last = await store.last_turn(KEY)
    assert last is not None
    assert last.turn == "c"
    assert await store.last_turn(OTHER) is None


async def test_a_purged_session_is_forgotten_and_no_other(store: Store) -> None:
    for key in (KEY, OTHER):
        await store.submit(key, message("t1"), {})
        epoch = await store.claim(key, OwnerRecord(worker="w", nonce="n"), 0)
        await started(store, key, "t1", epoch)
        await store.ask_interrupt(key, "t1")
        await store.append_transcript(key, b"{}\n", 0)
    await store.purge(KEY)
    assert await store.queued(KEY) == ()
    assert await store.owner(KEY) is None
    assert await store.last_turn(KEY) is None
    assert await store.transcript_end(KEY) == 0
    assert not await store.interrupt_asked(KEY, "t1")
    assert len(await store.queued(OTHER)) == 1
    assert await store.turn(OTHER, "t1") is not None
    assert await store.transcript_end(OTHER) > 0
