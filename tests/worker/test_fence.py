from __future__ import annotations

from warmwire.broker.liveness import DEAD_AFTER, HEARTBEAT_EVERY
from warmwire.worker.fence import FREEZE_AFTER, Fence, Freeze, ReadOwners, State, Thaw


def test_a_worker_that_hears_itself_works_on() -> None:
    fence = Fence(0)
    for beat in range(20):
        now = beat * HEARTBEAT_EVERY
        assert [] == fence.heard(now, now + 0.01)
        assert [] == fence.tick(now + 0.4)
        assert fence.open(now + 0.4)


def test_it_freezes_once_when_it_is_unheard() -> None:
    fence = Fence(0)
    assert [] == fence.tick(FREEZE_AFTER)
    assert [Freeze()] == fence.tick(FREEZE_AFTER + 0.1)
    assert [] == fence.tick(FREEZE_AFTER + 0.6)


def test_it_freezes_well_before_others_hold_it_dead() -> None:
    assert FREEZE_AFTER + 2 * HEARTBEAT_EVERY < DEAD_AFTER


def test_the_fence_is_shut_even_before_a_tick_has_noticed() -> None:
    fence = Fence(0)
    assert fence.open(FREEZE_AFTER)
    assert not fence.open(FREEZE_AFTER + 0.1)


def test_heard_again_it_reads_the_owner_records_before_it_goes_on() -> None:
    fence = Fence(0)
    fence.tick(5)
    assert [ReadOwners(1)] == fence.heard(5.5, 5.6)
    assert not fence.open(5.6)
    assert [Thaw()] == fence.read(1, 5.8)
    assert fence.open(5.8)


def test_it_reads_them_once() -> None:
    fence = Fence(0)
    fence.tick(5)
    fence.heard(5.5, 5.6)
    assert [] == fence.heard(6.0, 6.1)
    assert [Thaw()] == fence.read(1, 6.2)
    assert [] == fence.read(1, 6.3)


def test_a_heartbeat_that_lay_in_the_socket_is_no_news() -> None:
    fence = Fence(0)
    assert [Freeze()] == fence.heard(0.4, 10)
    assert not fence.open(10)
    assert [] == fence.heard(0.9, 10)
    assert State.FROZEN is fence.state


def test_a_pause_that_no_tick_has_seen_was_a_pause_all_the_same() -> None:
    fence = Fence(0)
    assert [Freeze(), ReadOwners(1)] == fence.heard(10, 10.01)


def test_a_second_pause_voids_the_reading_of_the_first() -> None:
    fence = Fence(0)
    fence.tick(5)
    fence.heard(5.5, 5.6)
    assert [] == fence.read(1, 9)
    assert [ReadOwners(2)] == fence.heard(9.1, 9.2)
    assert [] == fence.read(1, 9.3)
    assert [Thaw()] == fence.read(2, 9.3)


def test_unheard_while_it_reads_it_stays_frozen() -> None:
    fence = Fence(0)
    fence.tick(5)
    fence.heard(5.5, 5.6)
    assert [] == fence.tick(8)  # frozen already: nothing more to stop
    assert State.FROZEN is fence.state


def test_heartbeats_that_overtake_each_other_do_no_harm() -> None:
    fence = Fence(0)
    fence.heard(1.0, 1.1)
    fence.heard(0.5, 1.2)
    assert fence.open(2.4)
