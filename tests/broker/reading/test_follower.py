"""One turn out of a session's events, from its beginning and from a cursor."""

from __future__ import annotations

import asyncio

import pytest

from warmwire.broker.errors import Unavailable
from warmwire.broker.reading.feed import Feeds
from warmwire.broker.reading.follower import Follower
from warmwire.broker.reading.reader import Lost, Shown
from warmwire.broker.wire.envelope import END, Cursor, Position

from tests.broker.conftest import Broker
from tests.broker.made import delta, ended, started
from tests.broker.owner import Owner
from tests.broker.viewer import Viewer, watching
from tests.client import eventually


async def following(feeds: Feeds, broker: Broker, turn: str = "t1") -> tuple[Follower, Viewer]:
    viewer = Viewer()
    return Follower(await feeds.acquire(broker.key), broker.store, turn, viewer), viewer


class TestAFollowerFromTheBeginning:
    async def test_is_given_its_turn_and_no_other(self, broker: Broker, feeds: Feeds, owner: Owner) -> None:
        follower, viewer = await following(feeds, broker, "t2")
        follower.begin()
        mine = [started(owner.epoch, 3, "t2"), ended(owner.epoch, 4, "t2")]
        await owner.publish(started(owner.epoch, 1), ended(owner.epoch, 2), *mine)
        await viewer.has(*mine)
        assert follower.ended

    async def test_is_given_nothing_after_the_end(self, broker: Broker, feeds: Feeds, owner: Owner) -> None:
        follower, viewer = await following(feeds, broker)
        follower.begin()
        bystander = await watching(feeds, broker)
        events = [started(owner.epoch, 1), ended(owner.epoch, 2), started(owner.epoch, 3)]
        await owner.publish(*events)
        await bystander.has(*events)
        assert events[:2] == viewer.items

    async def test_is_given_nothing_after_stopping(self, broker: Broker, feeds: Feeds, owner: Owner) -> None:
        follower, viewer = await following(feeds, broker)
        follower.begin()
        follower.stop()
        follower.stop()
        bystander = await watching(feeds, broker)
        await owner.publish(started(owner.epoch, 1))
        await bystander.has(started(owner.epoch, 1))
        assert [] == viewer.items

    async def test_learns_an_end_that_was_never_published(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        follower, viewer = await following(feeds, broker)
        follower.begin()
        await owner.finish(2)
        await owner.release()
        feed = await feeds.acquire(broker.key)
        feed.reconnected(0.0)
        await eventually(lambda: follower.ended, "the end")
        assert ended(owner.epoch, 2) == viewer.items[-1]


class TestAFollowerFromACursor:
    async def test_is_given_what_the_ring_has_and_nobody_is_asked(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        viewer = await watching(feeds, broker)
        events = [started(owner.epoch, 1), delta(owner.epoch, 2), delta(owner.epoch, 3)]
        await owner.start()
        await owner.publish(*events)
        await viewer.has(*events)
        asked = len(owner.asked)
        follower, late = await following(feeds, broker)
        await follower.resume(events[0].cursor)
        assert events[1:] == late.items
        assert asked == len(owner.asked)

    async def test_is_given_what_the_owner_has(self, broker: Broker, feeds: Feeds, owner: Owner) -> None:
        events = [started(owner.epoch, 1), delta(owner.epoch, 2), delta(owner.epoch, 3)]
        await owner.start()
        await owner.publish(*events)
        follower, viewer = await following(feeds, broker)
        await follower.resume(events[0].cursor)
        assert events[1:] == viewer.items
        await owner.publish(ended(owner.epoch, 4))
        await viewer.has(*events[1:], ended(owner.epoch, 4))

    async def test_before_everything_is_given_all_of_its_turn(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        await owner.publish(started(owner.epoch, 1), ended(owner.epoch, 2))
        await owner.start("t2")
        mine = [started(owner.epoch, 3, "t2"), delta(owner.epoch, 4, "t2")]
        await owner.publish(*mine)
        follower, viewer = await following(feeds, broker, "t2")
        await follower.resume(Cursor("t2", 0, 0))
        assert mine == viewer.items

    async def test_is_shown_a_snapshot_where_the_owner_has_forgotten(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        await owner.start()
        await owner.publish(*(delta(owner.epoch, number) for number in range(1, 4)))
        owner.forgets = True
        follower, viewer = await following(feeds, broker)
        await follower.resume(Cursor("t1", owner.epoch, 1))
        here, there = Position(owner.epoch, 1), Position(owner.epoch, 3)
        assert [Lost(here, there), Shown("t1", there, b'{"type":"snapshot"}')] == viewer.items
        await owner.publish(delta(owner.epoch, 4))
        await eventually(lambda: viewer.items[-1] == delta(owner.epoch, 4), "what comes after it")

    async def test_of_an_ended_turn_is_given_the_rest_while_somebody_has_it(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        events = [started(owner.epoch, 1), delta(owner.epoch, 2), ended(owner.epoch, 3)]
        await owner.start()
        await owner.publish(*events)
        await owner.finish(3)
        follower, viewer = await following(feeds, broker)
        await follower.resume(events[0].cursor)
        assert events[1:] == viewer.items
        assert follower.ended

    @pytest.mark.parametrize("owner_is", ["gone", "mute"])
    async def test_of_an_ended_turn_is_given_its_record(
        self, broker: Broker, feeds: Feeds, owner: Owner, owner_is: str
    ) -> None:
        await owner.start()
        await owner.finish(9)
        if owner_is == "gone":
            await owner.vanish()
        owner.mute = True
        follower, viewer = await following(feeds, broker)
        await follower.resume(Cursor("t1", owner.epoch, 1))
        lost, shown, end = viewer.items
        assert Lost(Position(owner.epoch, 1), Position(owner.epoch, 8)) == lost
        assert isinstance(shown, Shown)
        assert b'"text":"whole text"' in shown.event
        assert ended(owner.epoch, 9) == end
        assert follower.ended

    async def test_at_the_end_is_given_nothing(self, broker: Broker, feeds: Feeds, owner: Owner) -> None:
        await owner.start()
        await owner.finish(9)
        follower, viewer = await following(feeds, broker)
        await follower.resume(Cursor("t1", owner.epoch, 9))
        assert follower.ended
        assert [] == viewer.items

    async def test_of_a_turn_that_waits_has_missed_nothing(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        await owner.publish(started(owner.epoch, 1))
        follower, viewer = await following(feeds, broker, "t2")
        await follower.resume(Cursor("t2", 0, 0))
        assert [] == viewer.items
        mine = [started(owner.epoch, 3, "t2"), ended(owner.epoch, 4, "t2")]
        await owner.publish(ended(owner.epoch, 2), *mine)
        await viewer.has(*mine)

    async def test_between_two_owners_is_given_the_new_attempt(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        await owner.start()
        await owner.publish(started(owner.epoch, 1), delta(owner.epoch, 2))
        await owner.vanish()
        follower, viewer = await following(feeds, broker)
        await follower.resume(Cursor("t1", owner.epoch, 2))
        assert [] == viewer.items
        second = Owner(broker, "w2")
        await second.claim()
        await second.listen()
        again = [started(second.epoch, 1), ended(second.epoch, 2)]
        await second.publish(*again)
        await viewer.has(*again)

    async def test_whose_owner_does_not_answer_is_told_and_given_nothing(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        await owner.start()
        follower, viewer = await following(feeds, broker)
        owner.mute = True
        with pytest.raises(Unavailable):
            await follower.resume(Cursor("t1", owner.epoch, 1))
        bystander = await watching(feeds, broker)
        owner.mute = False
        await owner.publish(started(owner.epoch, 1), delta(owner.epoch, 2))
        await bystander.has(started(owner.epoch, 1), delta(owner.epoch, 2))
        assert [] == viewer.items

    async def test_is_given_what_comes_meanwhile_once_and_in_order(
        self, broker: Broker, feeds: Feeds, owner: Owner
    ) -> None:
        events = [started(owner.epoch, 1), *(delta(owner.epoch, number) for number in range(2, 200))]
        await owner.start()
        await owner.publish(*events[:50])
        follower, viewer = await following(feeds, broker)
        await asyncio.gather(follower.resume(events[9].cursor), owner.publish(*events[50:]))
        await viewer.has(*events[10:])


class TestACursorFromTheFuture:
    """Nobody has given it out. It is answered with a loss and with what there is; nothing is withheld."""

    @pytest.fixture(params=["the same epoch", "a later epoch", "the last one there can be"])
    def cursor(self, request: pytest.FixtureRequest, owner: Owner) -> Cursor:
        epoch, seq = {
            "the same epoch": (owner.epoch, 1000),
            "a later epoch": (owner.epoch + 5, 1),
            "the last one there can be": (END, END),
        }[request.param]
        return Cursor("t1", epoch, seq)

    async def test_of_a_running_turn(
        self, broker: Broker, feeds: Feeds, owner: Owner, cursor: Cursor
    ) -> None:
        await owner.start()
        await owner.publish(started(owner.epoch, 1), delta(owner.epoch, 2))
        follower, viewer = await following(feeds, broker)
        await follower.resume(cursor)
        there = Position(owner.epoch, 2)
        assert [Lost(cursor.position, there), Shown("t1", there, b'{"type":"snapshot"}')] == viewer.items
        await owner.publish(ended(owner.epoch, 3))
        await eventually(lambda: follower.ended, "the end")

    async def test_of_an_ended_turn(self, broker: Broker, feeds: Feeds, owner: Owner, cursor: Cursor) -> None:
        await owner.start()
        await owner.finish(9)
        await owner.vanish()
        follower, viewer = await following(feeds, broker)
        await follower.resume(cursor)
        lost, shown, end = viewer.items
        assert Lost(cursor.position, Position(owner.epoch, 8)) == lost
        assert isinstance(shown, Shown)
        assert ended(owner.epoch, 9) == end

    async def test_of_a_turn_that_was_never_begun(
        self, broker: Broker, feeds: Feeds, owner: Owner, cursor: Cursor
    ) -> None:
        follower, viewer = await following(feeds, broker)
        await follower.resume(cursor)
        assert [Lost(cursor.position, Position(0, 0))] == viewer.items
        await owner.publish(started(owner.epoch, 1))
        await eventually(lambda: viewer.items[-1] == started(owner.epoch, 1), "what comes after it")

    async def test_between_two_owners(
        self, broker: Broker, feeds: Feeds, owner: Owner, cursor: Cursor
    ) -> None:
        await owner.start()
        await owner.vanish()
        follower, viewer = await following(feeds, broker)
        await follower.resume(cursor)
        second = Owner(broker, "w2")
        await second.claim()
        await second.listen()
        await second.publish(started(second.epoch, 1), ended(second.epoch, 2))
        await eventually(lambda: follower.ended, "the end")
        assert viewer.items[-2:] == [started(second.epoch, 1), ended(second.epoch, 2)]
