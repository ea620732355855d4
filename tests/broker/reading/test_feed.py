"""Feeds and followers against a real server and a stand-in owner."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest
from structlog.testing import capture_logs

from warmwire.broker.errors import Unavailable
from warmwire.broker.nats.bus import Bus
from warmwire.broker.nats.store import Owned, Store
from warmwire.broker.reading.feed import LINGERING, Feed, Feeds
from warmwire.broker.reading.reader import Item, Lost, Shown
from warmwire.broker.wire.envelope import Position
from warmwire.broker.wire.messages import TurnRecord
from warmwire.broker.wire.names import SessionKey, Subjects

from tests.broker.conftest import Broker, Connect, Server
from tests.broker.made import delta, ended, finished, started
from tests.broker.nats.test_bus import answering
from tests.broker.owner import Owner
from tests.broker.viewer import watching
from tests.client import eventually


class SlowStore(Store):
    """What it has read of a turn takes its time to arrive, until it is ``quick``."""

    def __init__(self, bus: Bus, subjects: Subjects) -> None:
        super().__init__(bus, subjects)
        self.quick = asyncio.Event()
        self.turns_read = self.owners_read = 0

    async def turn(self, key: SessionKey, turn: str) -> TurnRecord | None:
        found = await super().turn(key, turn)
        self.turns_read += 1
        await self.quick.wait()
        return found

    async def owner(self, key: SessionKey) -> Owned | None:
        found = await super().owner(key)
        self.owners_read += 1
        return found


class TestAFeed:
    async def test_gives_what_is_published(self, broker: Broker, feeds: Feeds, owner: Owner) -> None:
        viewer = await watching(feeds, broker)
        events = [started(owner.epoch, 1), delta(owner.epoch, 2), ended(owner.epoch, 3)]
        await owner.publish(*events)
        await viewer.has(*events)

    async def test_gives_it_to_all_that_listen(self, broker: Broker, feeds: Feeds, owner: Owner) -> None:
        viewers = [await watching(feeds, broker) for _ in range(3)]
        await owner.publish(started(owner.epoch, 1))
        for viewer in viewers:
            await viewer.has(started(owner.epoch, 1))

    async def test_asks_the_owner_where_it_stands(self, broker: Broker, feeds: Feeds, owner: Owner) -> None:
        await owner.publish(started(owner.epoch, 1), delta(owner.epoch, 2))
        viewer = await watching(feeds, broker)
        await owner.publish(delta(owner.epoch, 3))
        await viewer.has(delta(owner.epoch, 3))

    async def test_takes_nonsense_for_no_answer(self, broker: Broker, feeds: Feeds, owner: Owner) -> None:
        await owner.vanish()
        await answering(broker.bus, broker.subjects.control(broker.key), lambda _: b"nonsense")
        viewer = await watching(feeds, broker)
        event = started(owner.epoch, 3)
        await owner.publish(event)
        await eventually(lambda: event in viewer.items, "it is given when nobody can say what came before")
        assert isinstance(viewer.items[0], Lost)

    async def test_repairs_a_hole_by_asking_the_owner(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        viewer = await watching(feeds, broker)
        await owner.publish(started(owner.epoch, 1))
        await owner.publish(delta(owner.epoch, 2), delta(owner.epoch, 3), lost=True)
        await owner.publish(delta(owner.epoch, 4))
        await viewer.has(started(owner.epoch, 1), *(delta(owner.epoch, number) for number in (2, 3, 4)))

    async def test_shows_a_snapshot_where_the_owner_has_forgotten(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        viewer = await watching(feeds, broker)
        await owner.publish(started(owner.epoch, 1))
        owner.forgets = True
        await owner.publish(delta(owner.epoch, 2), lost=True)
        await owner.publish(delta(owner.epoch, 3))
        here, there = Position(owner.epoch, 1), Position(owner.epoch, 3)
        await viewer.has(
            started(owner.epoch, 1), Lost(here, there), Shown("t1", there, b'{"type":"snapshot"}')
        )

    async def test_closes_a_turn_from_its_record_when_another_owner_begins(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        viewer = await watching(feeds, broker)
        await owner.publish(started(owner.epoch, 1))
        await owner.finish(2)  # and dies before it is published
        await owner.vanish()
        second = Owner(broker, "w2")
        await second.claim()
        await second.listen()
        await second.publish(started(second.epoch, 1, "t2"))
        await viewer.has(started(owner.epoch, 1), ended(owner.epoch, 2), started(second.epoch, 1, "t2"))

    async def test_looks_again_for_an_end_that_was_asked_for_while_an_older_record_was_on_its_way(
        self, broker: Broker, owner: Owner
    ) -> None:
        store = SlowStore(broker.bus, broker.subjects)
        feeds = Feeds(broker.bus, store, broker.subjects)
        feeds.start()
        viewer = await watching(feeds, broker)
        await owner.publish(started(owner.epoch, 1))
        await viewer.has(started(owner.epoch, 1))
        await owner.release()
        feed = await feeds.acquire(broker.key)
        feed.reconnected(monotonic())
        await eventually(lambda: store.turns_read == 1, "the record is read, before there is one")
        end = ended(owner.epoch, 2)
        await broker.bus.js.publish(broker.subjects.turn(broker.key, "t1"), finished(end).encode())
        asked = store.owners_read
        feed.reconnected(monotonic())
        await eventually(lambda: store.owners_read > asked, "the end is asked for again")
        store.quick.set()
        await viewer.has(started(owner.epoch, 1), end)
        await feeds.stop()

    async def test_of_a_session_that_nobody_owns_waits(self, broker: Broker, feeds: Feeds) -> None:
        viewer = await watching(feeds, broker)
        owner = Owner(broker)
        await owner.claim()
        await owner.publish(started(owner.epoch, 1))
        await viewer.has(started(owner.epoch, 1))

    async def test_of_a_session_that_was_released_waits(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        await owner.release()
        viewer = await watching(feeds, broker)
        second = Owner(broker, "w2")
        await second.claim()
        await second.publish(started(second.epoch, 1))
        await viewer.has(started(second.epoch, 1))

    async def test_opens_although_its_owner_does_not_answer(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        owner.mute = True
        await watching(feeds, broker)
        owner.mute = False
        await eventually(lambda: len(owner.asked) > 1, "the owner is asked again")

    async def test_drops_what_is_alien_and_says_so_once(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        viewer = await watching(feeds, broker)
        with capture_logs() as said:
            for data in (b"nonsense", b"", b'{"v":2}'):
                await owner.send(data)
            await owner.publish(started(owner.epoch, 1))
            await viewer.has(started(owner.epoch, 1))
        assert ["alien message on an event subject"] == [each["event"] for each in said]

    async def test_leaves_a_viewer_behind_that_fails_and_serves_the_others(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        given: list[Item] = []

        def failing(item: Item) -> None:
            given.append(item)
            raise KeyError("the viewer's own mistake")

        (await feeds.acquire(broker.key)).listeners.append(failing)
        viewer = await watching(feeds, broker)
        events = [started(owner.epoch, 1), delta(owner.epoch, 2)]
        with capture_logs() as said:
            await owner.publish(*events)
            await viewer.has(*events)
        assert [events[0]] == given
        assert "a viewer failed and is left behind" in [each["event"] for each in said]

    async def test_goes_on_after_a_reconnection_with_what_was_missed(
        self, server: Server, connect_to: Connect
    ) -> None:
        broker, elsewhere = await connect_to(server.url), await connect_to(server.url)
        await broker.make_streams()
        there = Broker(
            server.url, elsewhere.bus, broker.subjects, Store(elsewhere.bus, broker.subjects), broker.key
        )
        owner = Owner(there)
        await owner.claim()
        feeds = Feeds(broker.bus, broker.store, broker.subjects)
        feeds.start()
        viewer = await watching(feeds, broker)
        await owner.publish(started(owner.epoch, 1))
        await viewer.has(started(owner.epoch, 1))
        await asyncio.to_thread(server.stop)
        await eventually(lambda: not (broker.bus.connected or elsewhere.bus.connected), "the loss is noticed")
        await owner.publish(delta(owner.epoch, 2), lost=True)
        await asyncio.to_thread(server.start)
        await eventually(lambda: elsewhere.bus.connected, "the owner's connection is back")
        await owner.listen()
        await viewer.has(started(owner.epoch, 1), delta(owner.epoch, 2))
        await feeds.stop()


class TestSharing:
    async def test_one_session_has_one_feed(self, broker: Broker, feeds: Feeds) -> None:
        one, other = await asyncio.gather(feeds.acquire(broker.key), feeds.acquire(broker.key))
        assert one is other
        assert one is not await feeds.acquire(SessionKey("acme", "other"))

    async def test_a_feed_outlives_its_last_viewer_for_a_while(self, broker: Broker, feeds: Feeds) -> None:
        feed = await feeds.acquire(broker.key)
        feeds.release(broker.key)
        assert feed is await feeds.acquire(broker.key)

    async def test_and_is_closed_after_it(self, broker: Broker, owner: Owner) -> None:
        feeds = Feeds(broker.bus, broker.store, broker.subjects, linger=0.0)
        feeds.start()
        viewer = await watching(feeds, broker)
        feeds.release(broker.key)
        await eventually(lambda: not feeds._followed, "the feed is closed")
        await owner.publish(started(owner.epoch, 1))
        await broker.bus.flush()
        assert [] == viewer.items
        await feeds.stop()

    async def test_who_comes_back_in_time_keeps_it_open(self, broker: Broker, owner: Owner) -> None:
        feeds = Feeds(broker.bus, broker.store, broker.subjects, linger=0.05)
        feeds.start()
        viewer = await watching(feeds, broker)
        feeds.release(broker.key)
        await feeds.acquire(broker.key)
        done = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, done.set)
        await done.wait()  # past the moment at which it would have been closed
        await owner.publish(started(owner.epoch, 1))
        await viewer.has(started(owner.epoch, 1))
        await feeds.stop()

    async def test_only_so_many_are_kept_without_a_viewer(self, feeds: Feeds) -> None:
        keys = [SessionKey("acme", f"s{number}") for number in range(LINGERING + 2)]
        for key in keys:
            await feeds.acquire(key)
            feeds.release(key)
        assert keys[2:] == [*feeds._followed]

    async def test_that_fails_is_told_to_all_and_tried_again_by_the_next(
        self, broker: Broker, connect_to: Connect
    ) -> None:
        bus = (await connect_to(broker.url)).bus
        feeds = Feeds(bus, Store(bus, broker.subjects), broker.subjects)
        feeds.start()
        await bus.close()
        for _ in range(2):
            outcomes = await asyncio.gather(
                *(feeds.acquire(broker.key) for _ in range(3)), return_exceptions=True
            )
            assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
        assert {} == feeds._followed
        await feeds.stop()

    async def test_one_who_gives_up_waiting_leaves_it_to_the_others(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        owner.mute = True
        impatient = asyncio.create_task(feeds.acquire(broker.key))
        patient = asyncio.create_task(feeds.acquire(broker.key))
        await eventually(lambda: owner.asked, "the feed is being opened")
        impatient.cancel()
        feed = await patient
        assert impatient.cancelled()
        assert isinstance(feed, Feed)
        feeds.release(broker.key)
        assert 0 == feeds._followed[broker.key].users

    async def test_ends_for_all_when_the_process_leaves(self, broker: Broker, owner: Owner) -> None:
        feeds = Feeds(broker.bus, broker.store, broker.subjects)
        feeds.start()
        await feeds.acquire(broker.key)
        owner.mute = True
        opening = asyncio.create_task(feeds.acquire(SessionKey("acme", "other")))
        await asyncio.sleep(0)
        await feeds.stop()
        with pytest.raises(Unavailable):
            await opening
        with pytest.raises(Unavailable):
            await feeds.acquire(broker.key)
        feeds.release(broker.key)  # whoever still has one may give it back
