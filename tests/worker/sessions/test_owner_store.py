"""What an owner reads and writes of its session, against a real NATS server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from warmwire.broker.errors import Contended, Unavailable
from warmwire.broker.nats.bus import Bus
from warmwire.broker.nats.store import Store
from warmwire.broker.wire.messages import BoundRecord, OwnerRecord, Started
from warmwire.broker.wire.names import SessionKey, Subjects
from warmwire.worker.sessions import transcript
from warmwire.worker.sessions.owner_store import Lost, OwnerStore

from tests.client import Client

KEY = SessionKey("default", "s1")


async def claimed(client: Client, store: Store | None = None, after: int = 0) -> tuple[OwnerStore, int]:
    """The session in the hands of a new owner, and the epoch; ``after`` is the epoch before."""
    epoch = await client.store.claim(KEY, OwnerRecord(worker="w1", nonce=f"n{after}"), after)
    owned = OwnerStore(client.bus, store or client.store, KEY, epoch, f"n{after}")
    await owned.begin()
    return owned, epoch


def started(epoch: int) -> Started:
    return Started(attempt=1, epoch=epoch, worker="w1", digest="d")


async def test_a_session_begins_with_nothing(client: Client) -> None:
    owned, _ = await claimed(client)
    assert not owned.begun
    assert [] == await owned.transcript()
    assert (None, False) == await owned.turn("t1")
    assert await owned.head(0) is None


async def test_what_was_appended_is_there_and_for_the_next_owner_too(client: Client) -> None:
    first, epoch = await claimed(client)
    await first.append(b"one")
    await first.append(b"two")
    second, _ = await claimed(client, after=epoch)
    assert second.begun
    assert [b"one", b"two"] == await first.transcript() == await second.transcript()


async def test_a_turn_is_stored_after_what_its_session_is_bound_to(client: Client) -> None:
    owned, epoch = await claimed(client)
    await owned.put_turn("t1", started(epoch), BoundRecord(profile="p"))
    await owned.keep_interrupt("t1")
    assert (started(epoch), True) == await owned.turn("t1")
    assert BoundRecord(profile="p") == await owned.begin()


async def test_an_append_of_the_owner_before_that_came_late_stays_before_ours(client: Client) -> None:
    before, epoch = await claimed(client)
    after, _ = await claimed(client, after=epoch)
    await before.append(b"late")
    await after.append(b"ours")
    assert [b"late", b"ours"] == await after.transcript()


async def test_who_has_been_followed_appends_nothing(client: Client) -> None:
    before, epoch = await claimed(client)
    after, later = await claimed(client, after=epoch)
    await after.append(transcript.epoch_entry(later))
    with pytest.raises(Lost):
        await before.append(b"late")
    assert [transcript.epoch_entry(later)] == await after.transcript()


Asked = Callable[[OwnerStore], Awaitable[object]]
OF_AN_OWNER: dict[str, Asked] = {
    "check": OwnerStore.check,
    "release": OwnerStore.release,
    "head": lambda owned: owned.head(0),
    "put_turn": lambda owned: owned.put_turn("t1", started(1), None),
}


@pytest.mark.parametrize("asked", OF_AN_OWNER.values(), ids=OF_AN_OWNER.keys())
async def test_who_has_lost_the_session_hears_of_it(client: Client, asked: Asked) -> None:
    before, epoch = await claimed(client)
    await claimed(client, after=epoch)
    with pytest.raises(Lost):
        await asked(before)


async def test_an_owner_record_that_nobody_can_read_is_another_owners(client: Client) -> None:
    owned, _ = await claimed(client)
    await client.bus.js.publish(client.subjects.owner(KEY), b'{"v":2}')
    with pytest.raises(Lost):
        await owned.head(0)


async def test_a_session_that_was_released_is_lost_to_who_had_it(client: Client) -> None:
    owned, _ = await claimed(client)
    await owned.release()
    with pytest.raises(Lost):
        await owned.check()


class Stumbling(Store):
    """Its server is busy with an election at first."""

    def __init__(self, bus: Bus, subjects: Subjects) -> None:
        super().__init__(bus, subjects)
        self.errors = [Unavailable("no leader"), Contended("not settled")]

    async def transcript_end(self, key: SessionKey) -> int:
        if self.errors:
            raise self.errors.pop(0)
        return await super().transcript_end(key)


async def test_what_may_be_asked_again_is_asked_again(client: Client) -> None:
    store = Stumbling(client.bus, client.subjects)
    await client.store.append_transcript(KEY, b"one", 0)
    owned, _ = await claimed(client, store)
    assert [] == store.errors
    assert owned.begun
