"""`warmwire session move`: a session goes to another worker between two turns, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from warmwire.broker.nats.bus import Bus, connect
from warmwire.broker.nats.store import Store
from warmwire.broker.wire.messages import Claim, Claimed, Heartbeat, Release, decode
from warmwire.broker.wire.names import SessionKey, Subjects
from warmwire.compose.errors import ComposeError
from warmwire.compose.operating.session import chosen
from warmwire.worker.app import Worker

from tests.conftest import SECONDS
from tests.system.product import Product, end_of, ended, producing, text_of

KEY = SessionKey("default", "s1")


class Operator:
    """Asks as the command does."""

    def __init__(self, product: Product, bus: Bus) -> None:
        self._subjects = Subjects(product.given["prefix"])
        self._store = Store(bus, self._subjects)
        self._bus = bus

    async def owner(self) -> str | None:
        owned = await self._store.owner(KEY)
        return owned.record.worker if owned else None

    async def release(self) -> None:
        await self._bus.request(self._subjects.control(KEY), Release().encode(), 5 * SECONDS)

    async def claim(self, worker: Worker) -> bool:
        subject = self._subjects.worker_control(worker.id)
        asked = Claim(tenant=KEY.tenant, session=KEY.session).encode()
        return decode(Claimed, await self._bus.request(subject, asked, 5 * SECONDS)).mine

    async def owned_by(self, *workers: str | None) -> None:
        """Until it is."""
        async with asyncio.timeout(20 * SECONDS):
            while await self.owner() not in workers:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)


@asynccontextmanager
async def operating(nats: str, folder: Path) -> AsyncIterator[tuple[Product, Operator]]:
    async with producing(nats, folder) as product:
        bus = await connect(nats, "operator")
        yield product, Operator(product, bus)
        await bus.close()


async def test_a_session_goes_to_another_worker_and_remembers(nats_server: str, tmp_path: Path) -> None:
    async with operating(nats_server, tmp_path) as (product, operator):
        first = await product.work()
        await product.ask("Hello")
        second = await product.work()
        assert first.id == await operator.owner()
        await operator.release()
        await operator.owned_by(None)
        assert await operator.claim(second)
        assert second.id == await operator.owner()
        assert "Hello" in text_of(await product.ask("recall"))
        assert second.id == await operator.owner()


async def test_a_running_turn_ends_first_and_what_waits_runs_where_it_goes(
    nats_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMWIRE_EMULATOR_RATE", "20")
    async with operating(nats_server, tmp_path) as (product, operator):
        await product.work()
        running = await product.chat("One")
        await running.until("content_block_delta")
        waiting = await product.chat("Two")
        second = await product.work()
        await operator.release()
        assert "turn_completed" == end_of(await ended(running))["type"]
        await operator.owned_by(None, second.id)  # the message that waits may have brought it there by itself
        assert await operator.claim(second)
        end = end_of(await ended(waiting))
        assert ("turn_completed", 1) == (end["type"], end["attempt"])
        assert second.id == await operator.owner()


async def test_who_gave_it_away_takes_it_again_where_nobody_else_does(
    nats_server: str, tmp_path: Path
) -> None:
    async with operating(nats_server, tmp_path) as (product, operator):
        only = await product.work()
        await product.ask("Hello")
        await operator.release()
        await operator.owned_by(None)
        assert "turn_completed" == end_of(await product.ask("recall"))["type"]
        assert only.id == await operator.owner()


async def test_what_another_owns_is_not_claimed(nats_server: str, tmp_path: Path) -> None:
    async with operating(nats_server, tmp_path) as (product, operator):
        first = await product.work()
        await product.ask("Hello")
        second = await product.work()
        assert not await operator.claim(second)
        assert await operator.claim(first)
        assert first.id == await operator.owner()


def beat(worker: str, free: int, **more: Any) -> Heartbeat:
    return Heartbeat(worker=worker, version="1", free=free, running=0, sessions=0, **more)


BEATS = (beat("w-1", 9), beat("w-2", 3), beat("w-3", 5), beat("w-4", 8, draining=True))


@pytest.mark.parametrize(
    ("target", "problem"),
    [("w-1", "owns it already"), ("w-4", "no worker 'w-4'"), ("w-9", "no worker 'w-9'")],
)
def test_only_a_living_worker_that_stays_can_have_it(target: str, problem: str) -> None:
    with pytest.raises(ComposeError, match=problem):
        chosen(BEATS, "w-1", target)


def test_the_one_with_most_room_is_chosen_unless_one_is_named() -> None:
    assert ("w-3", "w-2") == (chosen(BEATS, "w-1", None), chosen(BEATS, "w-1", "w-2"))
    with pytest.raises(ComposeError, match="no other worker"):
        chosen(BEATS[:1], "w-1", None)
