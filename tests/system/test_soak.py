"""A worker does not grow; `python -m bench.soak` is the long version."""

from __future__ import annotations

import sys

import pytest
from bench.soak import BASE, Look, soak, table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")


@pytest.mark.slow
async def test_a_worker_holds_the_same_after_300_turns_as_after_150() -> None:
    looks = await soak(turns=300, sessions=30, processes=8)
    assert [] == looks[-1].grown_since(looks[BASE]), table(looks)


START = Look(
    turns=0,
    seconds=0,
    rss_mb=50,
    fds=53,
    threads=8,
    tasks=30,
    objects=1000,
    processes=8,
    zombies=0,
)


@pytest.mark.parametrize("name", ["rss_mb", "fds", "threads", "tasks", "zombies"])
def test_growth_is_seen(name: str) -> None:
    more = {field: getattr(START, field) for field in Look.__dataclass_fields__}
    assert [] == Look(**more).grown_since(START)
    more[name] += 10
    assert [name] == Look(**more).grown_since(START)
