"""Questions to an owner: what it says is read, and whatever it says else is no answer."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from warmwire.broker.errors import NoResponder, Unavailable
from warmwire.broker.nats.asking import ask
from warmwire.broker.nats.bus import Arrived
from warmwire.broker.wire.messages import Interrupt, InterruptReply, decode

from tests.broker.conftest import Broker

read = partial(decode, InterruptReply)


async def answering(broker: Broker, subject: str, answer: bytes) -> None:
    """An owner that says this to whatever it is asked."""
    loop = asyncio.get_running_loop()
    told: set[asyncio.Task[None]] = set()

    def asked(message: Arrived) -> None:
        told.add(loop.create_task(broker.bus.publish(message.reply, answer)))

    await broker.bus.subscribe(subject, asked)
    await broker.bus.flush()


async def test_an_answer_is_read(broker: Broker) -> None:
    subject = broker.subjects.control(broker.key)
    await answering(broker, subject, InterruptReply(turn="t1").encode())
    assert "t1" == (await ask(broker.bus, subject, Interrupt(), read)).turn


@pytest.mark.parametrize("answer", [b"", b"no JSON", b'{"turn": 1}', b"[]"])
async def test_what_cannot_be_read_is_no_answer_and_may_be_asked_again(broker: Broker, answer: bytes) -> None:
    subject = broker.subjects.control(broker.key)
    await answering(broker, subject, answer)
    with pytest.raises(Unavailable, match="the owner answered nonsense: InterruptReply") as caught:
        await ask(broker.bus, subject, Interrupt(), read)
    assert caught.value.retryable


async def test_without_an_owner_that_is_said(broker: Broker) -> None:
    with pytest.raises(NoResponder):
        await ask(broker.bus, broker.subjects.control(broker.key), Interrupt(), read)
