"""A stand-in for a session's owner: it publishes what it is told to, and answers as a worker does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from warmwire.broker.nats.bus import Arrived, Subscription
from warmwire.broker.wire.envelope import Envelope
from warmwire.broker.wire.messages import Finished, OwnerRecord, OwnerView, Replay, Started, decode_control

from tests.broker.made import ended, finished, travelling

if TYPE_CHECKING:  # which imports this module
    from tests.broker.conftest import Broker


class Owner:
    """``claim``, then ``listen`` if it is to answer. ``events`` is its memory."""

    def __init__(self, broker: Broker, worker: str = "w1") -> None:
        self.broker = broker
        self.worker = worker
        self.epoch = 0
        self.turn: str | None = None
        self.events: list[Envelope] = []
        self.asked: list[Replay] = []
        self.mute = False
        self.forgets = False
        self._answers: set[asyncio.Task[None]] = set()
        self._subscription: Subscription | None = None

    async def claim(self) -> None:
        owned = await self.broker.store.owner(self.broker.key)
        record = OwnerRecord(worker=self.worker, nonce=self.worker)
        self.epoch = await self.broker.store.claim(self.broker.key, record, owned.sequence if owned else 0)

    async def listen(self) -> None:
        bus, subjects = self.broker.bus, self.broker.subjects
        self._subscription = await bus.subscribe(subjects.control(self.broker.key), self._control)
        await bus.flush()

    async def vanish(self) -> None:
        """As when it is killed."""
        if self._subscription is not None:
            await self._subscription.unsubscribe()
            await self.broker.bus.flush()

    async def release(self) -> None:
        await self.vanish()
        await self.broker.store.release(self.broker.key, self.epoch, "released")

    async def publish(self, *events: Envelope, lost: bool = False) -> None:
        """Remember and send; ``lost`` ones are remembered only."""
        for event in events:
            self.events.append(event)
            self.turn = None if event.terminal else event.turn
            if not lost:
                await self.send(travelling(event))

    async def send(self, data: bytes) -> None:
        await self.broker.bus.publish(self.broker.subjects.events(self.broker.key), data)

    async def start(self, turn: str = "t1") -> None:
        record = Started(attempt=1, epoch=self.epoch, worker=self.worker, digest="d")
        await self.broker.store.put_turn(self.broker.key, turn, record)

    async def finish(self, seq: int, turn: str = "t1") -> Finished:
        """Store the record of the turn's end; publishing it is the test's."""
        record = finished(ended(self.epoch, seq, turn))
        await self.broker.store.put_turn(self.broker.key, turn, record)
        return record

    def _control(self, message: Arrived) -> None:
        question = decode_control(message.data)
        assert isinstance(question, Replay)
        self.asked.append(question)
        if not self.mute:
            answer = self.view(question).encode()
            task = asyncio.create_task(self.broker.bus.publish(message.reply, answer))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

    def view(self, question: Replay) -> OwnerView:
        seq = self.events[-1].seq if self.events else 0
        events = None if self.forgets else self._since(question)
        snapshot = '{"type":"snapshot"}' if events is None and self.turn else None
        return OwnerView(epoch=self.epoch, seq=seq, turn=self.turn, events=events, snapshot=snapshot)

    def _since(self, question: Replay) -> tuple[str, ...] | None:
        if question.epoch is None or question.seq is None:
            return None
        if question.turn is not None and question.seq == 0:
            return self._travelling([event for event in self.events if event.turn == question.turn])
        if question.epoch > self.epoch or (question.epoch == self.epoch and question.seq > len(self.events)):
            return None
        after = question.seq if question.epoch == self.epoch else 0
        return self._travelling(self.events[after:])

    @staticmethod
    def _travelling(events: list[Envelope]) -> tuple[str, ...]:
        return tuple(travelling(event).decode() for event in events)
