"""What JetStream refuses, or does not answer, as the store tells it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from warmwire.broker.errors import Contended, Unavailable
from warmwire.broker.nats.bus import Arrived, connect
from warmwire.broker.nats.store import Store
from warmwire.broker.wire.messages import OwnerRecord, Started, UserMessage
from warmwire.broker.wire.names import SessionKey, Subjects

from tests.broker.conftest import Broker

MESSAGE = UserMessage(turn="t1", content="Hello", sent_ms=1)
RECORD = Started(attempt=1, epoch=1, worker="w1", digest="d")
Call = Callable[[Store, SessionKey], Coroutine[Any, Any, object]]

WRITES: dict[str, Call] = {
    "submit": lambda store, key: store.submit(key, MESSAGE, {}),
    "claim": lambda store, key: store.claim(key, OwnerRecord(worker="w1", nonce="n1"), 0),
    "release": lambda store, key: store.release(key, 1, "n1"),
    "put_turn": lambda store, key: store.put_turn(key, "t1", RECORD),
    "ask_interrupt": lambda store, key: store.ask_interrupt(key, "t1"),
    "append_transcript": lambda store, key: store.append_transcript(key, b"", 0),
}
READS: dict[str, Call] = {
    "head": lambda store, key: store.head(key),
    "owner": lambda store, key: store.owner(key),
    "turn": lambda store, key: store.turn(key, "t1"),
    "interrupt_asked": lambda store, key: store.interrupt_asked(key, "t1"),
    "transcript": lambda store, key: store.transcript(key),
}


class TestWithoutItsStreams:
    """A stream that is not there holds nothing, but that does not mean that there is nothing."""

    @pytest.mark.parametrize("call", (WRITES | READS).values(), ids=(WRITES | READS).keys())
    async def test_nothing_can_be_said(self, bare: Broker, call: Call) -> None:
        with pytest.raises(Unavailable) as caught:
            await call(bare.store, bare.key)
        assert caught.value.retryable


class TestAServerThatRefuses:
    """A stand-in for JetStream's answers that a single server does not give."""

    async def refusing(self, url: str, code: int, err_code: int, call: Call) -> None:
        bus = await connect(url, "test")
        answers: list[asyncio.Task[None]] = []
        error = json.dumps({"error": {"code": code, "err_code": err_code, "description": "no"}}).encode()

        def refuse(asked: Arrived) -> None:
            answers.append(asyncio.create_task(bus.publish(asked.reply, error)))

        await bus.subscribe("ww.>", refuse)
        await bus.subscribe("$JS.API.>", refuse)
        try:
            await call(Store(bus, Subjects()), SessionKey("acme", "s"))
        finally:
            await bus.close()

    @pytest.mark.parametrize("call", [WRITES["put_turn"], WRITES["submit"], WRITES["ask_interrupt"]])
    async def test_for_a_moment_may_be_asked_again(self, without_jetstream: str, call: Call) -> None:
        with pytest.raises(Unavailable):
            await self.refusing(without_jetstream, 503, 10008, call)

    async def test_because_it_is_still_at_work_on_the_subject_may_be_asked_again(
        self, without_jetstream: str
    ) -> None:
        with pytest.raises(Contended) as caught:
            await self.refusing(without_jetstream, 400, 10164, WRITES["put_turn"])
        assert caught.value.retryable

    async def test_to_read_is_unavailable(self, without_jetstream: str) -> None:
        with pytest.raises(Unavailable):
            await self.refusing(without_jetstream, 503, 10008, READS["owner"])
