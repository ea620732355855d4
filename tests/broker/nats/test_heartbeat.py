"""Heartbeats: from a thread of their own, and only while the main loop moves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from time import monotonic

import pytest

from warmwire.broker.liveness import DEAD_AFTER, Liveness
from warmwire.broker.nats.heartbeat import STUCK_AFTER, HeartbeatThread, listen
from warmwire.broker.wire.messages import Heartbeat

from tests.broker.conftest import Broker, Connect, Server
from tests.client import eventually
from tests.conftest import SECONDS


class Beating:
    """A worker's heartbeats, with a clock that a test may set on."""

    def __init__(self, broker: Broker) -> None:
        self.later = 0.0
        self.looks = threading.Semaphore(0)
        self.beats = 0
        self.broken = False
        self.thread = HeartbeatThread(broker.url, broker.subjects, self.beat, self.clock)

    def clock(self) -> float:
        if threading.current_thread().name == "heartbeat":
            self.looks.release()
        return monotonic() + self.later

    def beat(self) -> Heartbeat:
        self.beats += 1
        if self.broken:
            raise KeyError("the worker's own mistake")
        return Heartbeat(worker="w", version="1", free=1, running=0, sessions=0)


@pytest.fixture
async def beating(bare: Broker) -> AsyncIterator[Beating]:
    beating = Beating(bare)
    yield beating
    await beating.thread.stop()


def lives(liveness: Liveness) -> bool:
    return [beat.worker for beat in liveness.alive(monotonic())] == ["w"]


async def test_they_are_heard(bare: Broker, beating: Beating) -> None:
    liveness = await listen(bare.bus, bare.subjects)
    beating.thread.start()
    await eventually(lambda: lives(liveness), "a heartbeat")


async def test_each_is_told_to_who_asks_for_it(bare: Broker, beating: Beating) -> None:
    heard: list[Heartbeat] = []
    await listen(bare.bus, bare.subjects, heard.append)
    beating.thread.start()
    await eventually(lambda: len(heard) >= 2, "two heartbeats")


async def test_they_stop_while_the_main_loop_is_stuck_and_go_on_after_it(beating: Beating) -> None:
    beating.thread.start()
    await eventually(lambda: beating.beats, "the first heartbeat")
    beating.later = STUCK_AFTER
    for _ in range(3):
        stuck(beating)
    seen = beating.beats
    stuck(beating)
    assert seen == beating.beats
    await eventually(lambda: beating.beats > seen, "the next heartbeat")


def stuck(beating: Beating) -> None:
    """The main loop does nothing until the thread has looked at the clock once more."""
    assert beating.looks.acquire(timeout=10 * SECONDS)


async def test_they_outlive_a_mistake_in_one_of_them(bare: Broker, beating: Beating) -> None:
    liveness = await listen(bare.bus, bare.subjects)
    beating.broken = True
    beating.thread.start()
    await eventually(lambda: beating.beats, "the broken heartbeat")
    beating.broken = False
    await eventually(lambda: lives(liveness), "a whole one")


async def test_they_begin_when_nats_comes_up_late(server: Server, connect_to: Connect) -> None:
    broker = await connect_to(server.url)
    await asyncio.to_thread(server.stop)
    beating = Beating(broker)
    beating.thread.start()
    await eventually(lambda: not broker.bus.connected, "the loss is noticed")
    await asyncio.to_thread(server.start)
    await eventually(lambda: broker.bus.connected, "the connection is back")
    liveness = await listen(broker.bus, broker.subjects)
    await eventually(lambda: lives(liveness), "a heartbeat")
    await beating.thread.stop()


async def test_what_is_none_is_not_heard(bare: Broker, beating: Beating) -> None:
    liveness = await listen(bare.bus, bare.subjects)
    await bare.bus.publish(bare.subjects.heartbeat("w"), b"nonsense")
    beating.thread.start()
    await eventually(lambda: lives(liveness), "a heartbeat after it")


async def test_who_was_away_holds_nobody_dead(server: Server, connect_to: Connect) -> None:
    broker = await connect_to(server.url)
    liveness = await listen(broker.bus, broker.subjects)
    back: list[float] = []
    broker.bus.on_reconnect(lambda: back.append(monotonic()))
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    await eventually(lambda: back, "the reconnection is told")
    for later in (0.0, 1.0, 2.0, 3.0):
        liveness.heard(Heartbeat(worker="other", version="1", free=1, running=0, sessions=0), back[0] + later)
    assert not liveness.dead("w", back[0] + DEAD_AFTER - 0.5)
    assert liveness.dead("w", back[0] + DEAD_AFTER)


async def test_they_end(bare: Broker) -> None:
    beating = Beating(bare)
    beating.thread.start()
    await beating.thread.stop()
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}
