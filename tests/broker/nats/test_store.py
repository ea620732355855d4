"""The store: what is acknowledged is kept, and only its owner writes a session's records."""

from __future__ import annotations

import asyncio
from typing import Any

import nats.errors
import pytest
from nats.js import JetStreamContext, api

from warmwire.broker.errors import BadInput, Conflict, QueueFull, StoreFull, Unavailable
from warmwire.broker.nats.store import (
    DELETED_KEPT,
    INTERRUPT_KEPT,
    LOOKED_AT_KEPT,
    TOMBSTONE_KEPT,
    TURN_KEPT,
    Accepted,
    Owned,
    Store,
)
from warmwire.broker.nats.streams import QUEUED_PER_SESSION
from warmwire.broker.wire.messages import OwnerRecord, SessionRecord, Started, TicketRecord, UserMessage
from warmwire.broker.wire.names import SessionKey

from tests.broker.conftest import Broker, Connect
from tests.broker.made import ended, finished

MINE = OwnerRecord(worker="w1", nonce="n1")
OTHER = OwnerRecord(worker="w2", nonce="n2")


def message(turn: str) -> UserMessage:
    return UserMessage(turn=turn, content="Hello", sent_ms=1)


def record(epoch: int, attempt: int = 1) -> Started:
    return Started(attempt=attempt, epoch=epoch, worker="w1", digest="d")


async def kept_for(broker: Broker, subject: str) -> str | None:
    """The time-to-live that a record carries."""
    found = await broker.bus.js.get_last_msg(broker.subjects.state_stream, subject)
    return (found.headers or {}).get("Nats-TTL")


class TestTheQueue:
    async def test_accepts_a_message_once(self, broker: Broker) -> None:
        assert Accepted(1, duplicate=False) == await broker.store.submit(broker.key, message("t1"), {})
        assert Accepted(1, duplicate=True) == await broker.store.submit(broker.key, message("t1"), {})

    async def test_takes_the_same_turn_id_in_another_session_for_another_turn(self, broker: Broker) -> None:
        await broker.store.submit(broker.key, message("t1"), {})
        for key in (SessionKey("acme", "other"), SessionKey("other", "s")):
            assert not (await broker.store.submit(key, message("t1"), {})).duplicate

    async def test_holds_so_many_messages_of_a_session_and_no_more(self, broker: Broker) -> None:
        for number in range(QUEUED_PER_SESSION):
            await broker.store.submit(broker.key, message(f"t{number}"), {})
        with pytest.raises(QueueFull) as caught:
            await broker.store.submit(broker.key, message("one more"), {})
        assert (broker.key.session, QUEUED_PER_SESSION) == (caught.value.session, caught.value.limit)
        assert caught.value.retryable
        await broker.store.submit(SessionKey("acme", "other"), message("t1"), {})

    async def test_knows_a_repeated_message_even_when_it_is_full(self, broker: Broker) -> None:
        for number in range(QUEUED_PER_SESSION):
            await broker.store.submit(broker.key, message(f"t{number}"), {})
        assert (await broker.store.submit(broker.key, message("t3"), {})).duplicate

    async def test_tells_a_full_store_from_a_full_session(self, bare: Broker) -> None:
        small = api.StreamConfig(
            name=bare.subjects.request_stream,
            subjects=[f"{bare.subjects.prefix}.req.*.*"],
            max_bytes=1000,
            discard=api.DiscardPolicy.NEW,
            discard_new_per_subject=True,
            max_msgs_per_subject=QUEUED_PER_SESSION,
        )
        await bare.bus.js.add_stream(small)
        large = UserMessage(turn="t1", content="x" * 1000, sent_ms=1)
        with pytest.raises(StoreFull) as caught:
            await bare.store.submit(bare.key, large, {})
        assert caught.value.retryable

    async def test_keeps_the_headers(self, broker: Broker) -> None:
        await broker.store.submit(broker.key, message("t1"), {"traceparent": "00-1-2-01"})
        found = await broker.bus.js.get_msg(broker.subjects.request_stream, seq=1)
        assert "00-1-2-01" == (found.headers or {})["traceparent"]

    async def test_knows_the_first_message_of_each_session(self, broker: Broker) -> None:
        other = SessionKey("acme", "other")
        assert await broker.store.head(broker.key) is None
        await broker.store.submit(other, message("t1"), {})
        first = await broker.store.submit(broker.key, message("t1"), {})
        second = await broker.store.submit(broker.key, message("t2"), {})
        assert first.sequence == await broker.store.head(broker.key)
        await broker.bus.js.delete_msg(broker.subjects.request_stream, first.sequence)
        assert second.sequence == await broker.store.head(broker.key)

    async def test_has_a_head_after_what_is_known_to_be_acked(self, broker: Broker) -> None:
        first = await broker.store.submit(broker.key, message("t1"), {})
        second = await broker.store.submit(broker.key, message("t2"), {})
        assert first.sequence == await broker.store.head(broker.key, first.sequence - 1)
        assert second.sequence == await broker.store.head(broker.key, first.sequence)
        assert await broker.store.head(broker.key, second.sequence) is None

    async def test_refuses_a_message_that_the_server_cannot_carry(self, broker: Broker) -> None:
        huge = UserMessage(turn="t1", content="x" * (9 * 1024 * 1024), sent_ms=1)
        with pytest.raises(BadInput, match="max_payload"):
            await broker.store.submit(broker.key, huge, {})


class TestOwnership:
    async def test_begins_with_nobody(self, broker: Broker) -> None:
        assert await broker.store.owner(broker.key) is None

    async def test_is_claimed_and_known_by_its_epoch(self, broker: Broker) -> None:
        epoch = await broker.store.claim(broker.key, MINE, 0)
        assert Owned(MINE, epoch) == await broker.store.owner(broker.key)

    async def test_goes_to_exactly_one_of_many(self, broker: Broker) -> None:
        claims = [OwnerRecord(worker=f"w{number}", nonce=f"n{number}") for number in range(20)]
        outcomes = await asyncio.gather(
            *(broker.store.claim(broker.key, claim, 0) for claim in claims), return_exceptions=True
        )
        won = [outcome for outcome in outcomes if isinstance(outcome, int)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
        assert (1, 19) == (len(won), len(lost))

    async def test_can_be_taken_over_by_who_knows_the_last_epoch(self, broker: Broker) -> None:
        first = await broker.store.claim(broker.key, MINE, 0)
        second = await broker.store.claim(broker.key, OTHER, first)
        assert second > first
        with pytest.raises(Conflict):
            await broker.store.claim(broker.key, OwnerRecord(worker="w3", nonce="n3"), first)

    async def test_is_released_by_a_tombstone_that_goes_away(self, broker: Broker) -> None:
        epoch = await broker.store.claim(broker.key, MINE, 0)
        await broker.store.release(broker.key, epoch, "n1")
        owned = await broker.store.owner(broker.key)
        assert owned is not None
        assert owned.record.worker is None
        assert owned.sequence > epoch
        assert str(TOMBSTONE_KEPT) == await kept_for(broker, broker.subjects.owner(broker.key))
        assert await broker.store.claim(broker.key, OTHER, owned.sequence) > owned.sequence

    async def test_cannot_be_released_by_who_has_lost_it(self, broker: Broker) -> None:
        epoch = await broker.store.claim(broker.key, MINE, 0)
        await broker.store.claim(broker.key, OTHER, epoch)
        with pytest.raises(Conflict):
            await broker.store.release(broker.key, epoch, "n1")

    async def test_that_was_claimed_before_is_recognised_by_its_nonce(self, broker: Broker) -> None:
        epoch = await broker.store.claim(broker.key, MINE, 0)
        assert epoch == await broker.store.claim(broker.key, MINE, 0)

    async def test_that_was_released_before_is_recognised_by_its_nonce(self, broker: Broker) -> None:
        epoch = await broker.store.claim(broker.key, MINE, 0)
        await broker.store.release(broker.key, epoch, "n1")
        await broker.store.release(broker.key, epoch, "n1")


class TestTurnRecords:
    async def test_are_read_as_they_were_written(self, broker: Broker) -> None:
        epoch = await broker.store.claim(broker.key, MINE, 0)
        assert await broker.store.turn(broker.key, "t1") is None
        for written in (record(epoch), finished(ended(epoch, 9))):
            await broker.store.put_turn(broker.key, "t1", written)
            assert written == await broker.store.turn(broker.key, "t1")
        assert str(TURN_KEPT) == await kept_for(broker, broker.subjects.turn(broker.key, "t1"))

    async def test_can_be_written_again_when_the_answer_was_lost(self, broker: Broker) -> None:
        epoch = await broker.store.claim(broker.key, MINE, 0)
        for _ in range(2):
            await broker.store.put_turn(broker.key, "t1", record(epoch))

    @pytest.mark.parametrize("since", ["another claim", "a release", "the owner's record is gone"])
    async def test_cannot_be_written_by_who_has_lost_the_session(self, broker: Broker, since: str) -> None:
        epoch = await broker.store.claim(broker.key, MINE, 0)
        await broker.store.put_turn(broker.key, "t1", record(epoch))
        if since == "another claim":
            await broker.store.claim(broker.key, OTHER, epoch)
        elif since == "a release":
            await broker.store.release(broker.key, epoch, "n1")
        else:
            await broker.bus.js.delete_msg(broker.subjects.state_stream, epoch)
        with pytest.raises(Conflict):
            await broker.store.put_turn(broker.key, "t1", record(epoch, attempt=2))
        assert record(epoch) == await broker.store.turn(broker.key, "t1")

    async def test_of_another_session_s_owner_do_not_count(self, broker: Broker) -> None:
        epoch = await broker.store.claim(SessionKey("acme", "other"), MINE, 0)
        with pytest.raises(Conflict):
            await broker.store.put_turn(broker.key, "t1", record(epoch))


class TestInterrupts:
    async def test_wait_for_their_turn(self, broker: Broker) -> None:
        await broker.store.ask_interrupt(broker.key, "t1")
        assert await broker.store.interrupt_asked(broker.key, "t1")
        assert not await broker.store.interrupt_asked(broker.key, "t2")
        assert str(INTERRUPT_KEPT) == await kept_for(broker, broker.subjects.interrupt(broker.key, "t1"))


class TestTranscripts:
    async def test_are_read_as_they_were_appended(self, broker: Broker) -> None:
        assert ([], 0) == await broker.store.transcript(broker.key)
        last = 0
        for entries in (b"a\n", b"", "ü\n".encode()):
            last = await broker.store.append_transcript(broker.key, entries, last)
            await broker.store.append_transcript(SessionKey("acme", "other"), entries, 0)
            await broker.bus.js.purge_stream(
                broker.subjects.log_stream, subject=broker.subjects.transcript(SessionKey("acme", "other"))
            )
        assert ([b"a\n", b"", "ü\n".encode()], last) == await broker.store.transcript(broker.key)
        assert last == await broker.store.transcript_end(broker.key)

    async def test_are_continued_only_from_their_end(self, broker: Broker) -> None:
        last = await broker.store.append_transcript(broker.key, b"a\n", 0)
        await broker.store.append_transcript(broker.key, b"b\n", last)
        with pytest.raises(Conflict):
            await broker.store.append_transcript(broker.key, b"c\n", last)
        with pytest.raises(Conflict):
            await broker.store.append_transcript(broker.key, b"c\n", 0)

    async def test_recognise_an_append_that_was_made_before(self, broker: Broker) -> None:
        last = await broker.store.append_transcript(broker.key, b"a\n", 0)
        assert last == await broker.store.append_transcript(broker.key, b"a\n", 0)
        assert ([b"a\n"], last) == await broker.store.transcript(broker.key)


class Forgetful:
    """JetStream behind a connection that loses the answers to writes."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js

    def __getattr__(self, name: str) -> Any:
        return getattr(self._js, name)

    async def publish(self, *args: Any, **kwargs: Any) -> None:
        await self._js.publish(*args, **kwargs)
        raise nats.errors.TimeoutError


class TestALostAnswer:
    @pytest.fixture
    async def forgetful(self, broker: Broker, connect_to: Connect) -> Store:
        bus = (await connect_to(broker.url)).bus
        bus.js = Forgetful(bus.js)  # type: ignore[assignment]
        return Store(bus, broker.subjects)

    async def test_of_a_claim_is_found_by_the_nonce(self, broker: Broker, forgetful: Store) -> None:
        epoch = await forgetful.claim(broker.key, MINE, 0)
        assert Owned(MINE, epoch) == await broker.store.owner(broker.key)

    async def test_of_a_release_is_found_by_the_nonce(self, broker: Broker, forgetful: Store) -> None:
        epoch = await broker.store.claim(broker.key, MINE, 0)
        await forgetful.release(broker.key, epoch, "n1")
        owned = await broker.store.owner(broker.key)
        assert owned is not None
        assert owned.record.worker is None

    async def test_of_an_append_is_found_in_the_transcript(self, broker: Broker, forgetful: Store) -> None:
        last = await forgetful.append_transcript(broker.key, b"a\n", 0)
        assert ([b"a\n"], last) == await broker.store.transcript(broker.key)

    async def test_of_a_submission_is_told_and_a_repetition_is_safe(
        self, broker: Broker, forgetful: Store
    ) -> None:
        with pytest.raises(Unavailable) as caught:
            await forgetful.submit(broker.key, message("t1"), {})
        assert caught.value.retryable
        assert Accepted(1, duplicate=True) == await broker.store.submit(broker.key, message("t1"), {})

    async def test_to_a_claim_that_was_not_made_is_told(self, broker: Broker, forgetful: Store) -> None:
        await broker.store.claim(broker.key, OTHER, 0)
        with pytest.raises(Conflict):
            await forgetful.claim(broker.key, MINE, 0)


class TestWhoseSessionItIs:
    LOOKED, SENT = SessionRecord(user="alice"), SessionRecord(user="alice", sent=True)

    async def test_is_written_once_and_changed_by_who_knows_the_record(self, broker: Broker) -> None:
        store, key = broker.store, broker.key
        assert (None, 0) == await store.session(key)
        await store.put_session(key, self.LOOKED, 0)
        with pytest.raises(Conflict):
            await store.put_session(key, SessionRecord(user="bob"), 0)
        record, sequence = await store.session(key)
        await store.put_session(key, self.SENT, sequence)
        assert (self.LOOKED, self.SENT) == (record, (await store.session(key))[0])

    async def test_is_kept_as_long_as_is_told(self, broker: Broker) -> None:
        about = broker.subjects.about(broker.key)
        await broker.store.put_session(broker.key, self.LOOKED, 0)
        assert str(LOOKED_AT_KEPT) == await kept_for(broker, about)
        await broker.store.put_session(broker.key, self.SENT, (await broker.store.session(broker.key))[1])
        assert await kept_for(broker, about) is None
        await broker.store.purge(broker.key)
        assert str(DELETED_KEPT) == await kept_for(broker, about)
        assert (await broker.store.session(broker.key))[0] == self.LOOKED

    async def test_a_session_that_is_nobodys_leaves_nothing(self, broker: Broker) -> None:
        await broker.store.purge(broker.key)
        assert (None, 0) == await broker.store.session(broker.key)

    async def test_a_ticket_is_changed_once_and_forgotten_in_time(self, broker: Broker) -> None:
        ticket = TicketRecord(tenant="t", subject="alice", scopes=(), session="s", expires=1.0)
        await broker.store.put_ticket("digest", ticket, 0, 60)
        found = await broker.store.ticket("digest")
        assert found is not None
        used = ticket.model_copy(update={"opened": "events"})
        await broker.store.put_ticket("digest", used, found[1], 59)
        with pytest.raises(Conflict):
            await broker.store.put_ticket("digest", used, found[1], 59)
        assert await kept_for(broker, broker.subjects.ticket("digest")) == "59"
        assert await broker.store.ticket("other") is None
