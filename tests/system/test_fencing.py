"""What a worker that has lost a session still tries: its writes are refused, its events unseen."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from warmwire.broker.errors import Conflict
from warmwire.broker.nats import bus as nats
from warmwire.broker.nats import streams
from warmwire.broker.nats.bus import Bus
from warmwire.broker.nats.store import Store
from warmwire.broker.reading.feed import Feeds
from warmwire.broker.wire.envelope import EnvelopeWriter
from warmwire.broker.wire.messages import OwnerRecord, Started
from warmwire.broker.wire.names import SessionKey, Subjects

from tests.system import history as h
from tests.system.cluster import until
from tests.system.load import Notes

SUBJECTS = Subjects(f"fence{uuid4().hex[:8]}")
KEY = SessionKey("default", "s")
TURN = "t"


@pytest.fixture
async def bus(nats_server: str) -> AsyncIterator[Bus]:
    bus = await nats.connect(nats_server, "test")
    await streams.ensure(bus, SUBJECTS, 1, 1000)
    yield bus
    await bus.close()


async def epochs(store: Store) -> tuple[int, int]:
    """A session that had an owner and has another."""
    before = await store.owner(KEY)
    old = await store.claim(
        KEY, OwnerRecord(worker="w-old", nonce=uuid4().hex), before.sequence if before else 0
    )
    new = await store.claim(KEY, OwnerRecord(worker="w-new", nonce=uuid4().hex), old)
    return old, new


def started(epoch: int) -> Started:
    return Started(attempt=1, epoch=epoch, worker="w", digest="d")


async def test_the_record_of_a_turn_is_taken_from_the_owner_only(bus: Bus) -> None:
    store = Store(bus, SUBJECTS)
    old, new = await epochs(store)
    with pytest.raises(Conflict):
        await store.put_turn(KEY, TURN, started(old))
    await store.put_turn(KEY, TURN, started(new))
    assert started(new) == await store.turn(KEY, TURN)


async def test_a_transcript_is_appended_to_by_the_owner_only(bus: Bus) -> None:
    store = Store(bus, SUBJECTS)
    _, last = await store.transcript(KEY)
    moved = await store.append_transcript(KEY, b'{"of":"the new owner"}', last)
    with pytest.raises(Conflict):
        await store.append_transcript(KEY, b'{"of":"the old owner"}', last)
    assert moved == (await store.transcript(KEY))[1]


async def test_a_session_that_was_claimed_is_not_released_by_the_owner_before(bus: Bus) -> None:
    store = Store(bus, SUBJECTS)
    old, new = await epochs(store)
    with pytest.raises(Conflict):
        await store.release(KEY, old, "nonce")
    owned = await store.owner(KEY)
    assert owned is not None
    assert (new, "w-new") == (owned.sequence, owned.record.worker)


async def test_no_viewer_is_shown_an_event_of_an_owner_that_has_lost_the_session(bus: Bus) -> None:
    store, notes, ends = Store(bus, SUBJECTS), Notes(), dict[str, str]()
    feeds = Feeds(bus, store, SUBJECTS)
    feeds.start()
    (await feeds.acquire(KEY)).listeners.append(notes.of_viewer("v", ends))
    old, new = await epochs(store)
    stale, true = EnvelopeWriter(old, TURN, 1), EnvelopeWriter(new, TURN, 2)
    await bus.publish(SUBJECTS.events(KEY), true.wrap(1, b'{"type":"turn_reset","attempt":2,"message":0}'))
    for seq in range(1, 20):
        await bus.publish(SUBJECTS.events(KEY), stale.wrap(seq, b'{"type":"message_start"}'))
    await bus.publish(SUBJECTS.events(KEY), stale.wrap(20, b'{"type":"turn_completed"}'))
    await bus.publish(SUBJECTS.events(KEY), true.wrap(2, b'{"type":"turn_completed"}'))
    await until(lambda: ends, "the end")
    shown = [(item.epoch, item.seq) for item in notes.history if isinstance(item, h.Seen)]
    assert [(new, 1), (new, 2)] == shown
    assert len(shown) == len(notes.history), "nothing but events: no gap, no snapshot"
    await feeds.stop()
