"""Buckets, counts and the pool's room, with time as an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmwire.broker.liveness import DEAD_AFTER, Seen
from warmwire.broker.wire.messages import Heartbeat
from warmwire.edge.access.limits import ADMITTED, Buckets, Count, Held, PoolRoom, connections_possible


def taken(buckets: Buckets, key: str, now: float, edges: int = 1) -> bool:
    if buckets.wait(key, now, edges):
        return False
    buckets.take(key, now, edges)
    return True


def test_a_bucket_begins_full_and_fills_at_its_rate() -> None:
    buckets = Buckets(lambda _: 2, burst=2)
    assert [True] * 4 + [False] == [taken(buckets, "a", 100.0) for _ in range(5)]
    assert 0.5 == buckets.wait("a", 100.0, 1)
    assert [True, False] == [taken(buckets, "a", 100.5) for _ in range(2)]
    assert [True] * 4 + [False] == [taken(buckets, "a", 200.0) for _ in range(5)]


def test_edges_share_a_limit() -> None:
    buckets = Buckets(lambda _: 2, burst=2)
    assert [True, True, False] == [taken(buckets, "a", 100.0, 2) for _ in range(3)]
    assert 1.0 == buckets.wait("a", 100.0, 2)


def test_the_share_follows_the_number_of_edges() -> None:
    buckets = Buckets(lambda _: 2, burst=2)
    assert taken(buckets, "a", 100.0, 1)
    assert [True, False] == [
        taken(buckets, "a", 100.0, 4) for _ in range(2)
    ]  # three were left, one is its share
    assert [True, True, False] == [taken(buckets, "a", 101.0, 1) for _ in range(3)]


def test_the_smallest_share_lets_one_in_at_a_time() -> None:
    buckets = Buckets(lambda _: 0.1, burst=10)
    assert [True, False] == [taken(buckets, "a", 100.0, 50) for _ in range(2)]
    assert 500.0 == pytest.approx(buckets.wait("a", 100.0, 50))


def test_callers_have_buckets_of_their_own_and_no_rate_is_no_limit() -> None:
    buckets = Buckets(lambda _: 1, burst=1)
    assert [True, True, False] == [taken(buckets, key, 100.0) for key in ("a", "b", "a")]
    assert all(taken(Buckets(lambda _: 0, burst=0), "a", 100.0) for _ in range(1000))


def test_a_key_may_have_a_rate_of_its_own() -> None:
    buckets = Buckets(lambda key: {"large": 4, "none": 0}.get(str(key), 1), burst=1)
    assert [4, 1] == [sum(taken(buckets, key, 100.0) for _ in range(9)) for key in ("large", "small")]
    assert all(taken(buckets, "none", 100.0) for _ in range(9))


def test_the_bucket_unused_for_longest_is_forgotten() -> None:
    buckets = Buckets(lambda _: 1, burst=1, most=2)
    assert [True, True] == [taken(buckets, key, 100.0) for key in ("a", "b")]
    assert not taken(buckets, "a", 100.0)  # used, so it stays
    assert taken(buckets, "c", 100.0)
    assert [False, True] == [taken(buckets, key, 100.0) for key in ("a", "b")]
    assert 2 == len(buckets._buckets)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5)), max_size=200))
def test_one_edge_never_gives_more_than_the_rate_and_the_burst(steps: list[tuple[float, int]]) -> None:
    buckets, now, got = Buckets(lambda _: 3, burst=5 / 3), 1000.0, 0
    for pause, edges in steps:
        now += pause
        got += taken(buckets, "a", now, edges)
    assert got <= 5 + 3 * (now - 1000) + 1e-6


def test_what_is_held_is_bounded_and_forgotten_when_it_is_let_go() -> None:
    held = Held(2)
    assert [True, True, False] == [held.enter("a") for _ in range(3)]
    assert held.enter("b")
    held.leave("a")
    assert [True, False] == [held.enter("a") for _ in range(2)]
    for key in ("a", "a", "b"):
        held.leave(key)
    assert not held._held
    assert all(Held(0).enter("a") for _ in range(100))


def seen(free: int, at: float, *, draining: bool = False) -> Seen:
    return Seen(Heartbeat(worker="w", version="1", free=free, running=0, sessions=0, draining=draining), at)


@pytest.mark.parametrize(
    ("claim", "workers", "admitted", "left"),
    [
        ("no worker", [], [], 0),
        ("all are busy", [seen(0, 99.9)], [], 0),
        ("free slots are summed", [seen(2, 99.9), seen(3, 99.8)], [], 5),
        ("who leaves takes no more", [seen(2, 99.9), seen(3, 99.8, draining=True)], [], 2),
        ("a message since the heartbeat counts", [seen(2, 99.5)], [99.6, 99.9], 0),
        ("one that the heartbeat has counted does not", [seen(2, 99.9)], [99.0, 99.5], 2),
        ("one just before the heartbeat may not be in it", [seen(2, 99.9)], [99.85], 1),
        ("nor in the oldest that counts", [seen(2, 100 - DEAD_AFTER)], [100 - DEAD_AFTER - 0.05], 1),
        ("with several workers the oldest heartbeat decides", [seen(2, 99.9), seen(2, 99.5)], [99.6], 3),
        ("one of long ago is in every heartbeat of a living worker", [seen(2, 99.9)], [10.0], 2),
    ],
)
def test_the_room_of_the_pool(claim: str, workers: list[Seen], admitted: list[float], left: int) -> None:
    room = PoolRoom()
    for at in admitted:
        room.admitted(at)
    assert left == room.left(workers, 100.0), claim


def test_what_is_remembered_of_admitted_messages_is_bounded() -> None:
    room = PoolRoom()
    for _ in range(ADMITTED + 1):
        room.admitted(100.0)
    assert -ADMITTED == room.left([], 100.0)


def test_a_count_of_turns_is_asked_for_again_after_a_while() -> None:
    count = Count()
    assert not count.is_good(0.0)
    count.told(3, 100.0)
    assert (True, False) == (count.is_good(100.2), count.is_good(100.3))


@pytest.mark.parametrize(("wanted", "files", "most"), [(100, 10_000, 100), (10_000, 1024, 640), (10, 100, 1)])
def test_connections_are_as_many_as_files_allow(wanted: int, files: int, most: int) -> None:
    assert most == connections_possible(wanted, files)
