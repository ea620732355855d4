"""What a worker sends after a pause, and what it does not."""

from collections.abc import AsyncIterator

import pytest

from warmwire.broker.nats import bus as nats
from warmwire.broker.nats.bus import Bus
from warmwire.broker.nats.sender import Sender

from tests.system.cluster import until


@pytest.fixture
async def bus(nats_server: str) -> AsyncIterator[Bus]:
    bus = await nats.connect(nats_server, "test")
    yield bus
    await bus.close()


async def sent_to(bus: Bus, subjects: str) -> list[bytes]:
    """What comes for these subjects from now on; filled in as it happens."""
    found: list[bytes] = []
    await bus.subscribe(subjects, lambda message: found.append(message.data))
    await bus.flush()
    return found


async def test_nothing_is_sent_once_the_fence_is_closed_and_all_of_it_when_it_opens(bus: Bus) -> None:
    may_send = False
    found = await sent_to(bus, "sender.a.*")
    sender = Sender(bus, lambda: may_send)
    sender.start()
    sender.send("sender.a.one", b"1")
    await bus.flush()
    assert [] == found
    may_send = True
    sender.go_on()
    await until(lambda: [b"1"] == found, "the event")
    await sender.stop()


async def test_what_waits_for_a_session_that_is_lost_is_forgotten_and_nothing_else(bus: Bus) -> None:
    found = await sent_to(bus, "sender.b.*")
    sender = Sender(bus)
    sender.start()
    sender.hold()
    for number, session in enumerate(("kept", "lost", "kept", "lost")):
        sender.send(f"sender.b.{session}", b"%d" % number)
    sender.forget("sender.b.lost")
    sender.go_on()
    await until(lambda: [b"0", b"2"] == found, "the events")
    await sender.stop()


async def test_leaving_sends_what_waits_even_when_it_was_held(bus: Bus) -> None:
    found = await sent_to(bus, "sender.c.*")
    sender = Sender(bus, lambda: False)
    sender.start()
    sender.send("sender.c.one", b"1")
    await sender.stop()
    await until(lambda: [b"1"] == found, "the event")
