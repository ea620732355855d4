"""A worker whose every move a test decides. It pulls, claims, publishes, records and acks as the real one."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from time import time
from typing import Any

from warmwire.broker.nats import streams
from warmwire.broker.nats.bus import Arrived, Bus, Subscription, connect
from warmwire.broker.nats.heartbeat import HeartbeatThread
from warmwire.broker.nats.pull import Pulled, Puller
from warmwire.broker.nats.store import Store
from warmwire.broker.wire import envelope as codec
from warmwire.broker.wire.envelope import EnvelopeWriter, Position
from warmwire.broker.wire.events import (
    Block,
    Snapshot,
    TurnCompleted,
    TurnEnd,
    TurnFailed,
    TurnInterrupted,
    TurnStarted,
)
from warmwire.broker.wire.messages import (
    Finished,
    Heartbeat,
    Interrupt,
    InterruptReply,
    OwnerRecord,
    OwnerView,
    Permission,
    PermissionReply,
    Replay,
    Started,
    UserMessage,
    decode,
    decode_control,
)
from warmwire.broker.wire.names import SessionKey, Subjects

Published = tuple[str, int, bytes, bytes]
"""turn, sequence, event, envelope"""


@dataclass
class Owned:
    """A session that the fake worker owns: all it has published, and what runs."""

    key: SessionKey
    epoch: int
    published: list[Published] = field(default_factory=list)
    running: str | None = None
    text: str = ""
    subscription: Subscription | None = None

    @property
    def seq(self) -> int:
        """The last sequence."""
        return len(self.published)


class FakeWorker:
    """Use ``working``. ``next_turn`` gives the next user message; without it, nothing happens."""

    def __init__(self, bus: Bus, url: str, prefix: str) -> None:
        self.id = f"w-{uuid.uuid4().hex[:8]}"
        self.subjects = Subjects(prefix)
        self.store = Store(bus, self.subjects)
        self.bus = bus
        self.interrupts: list[str | None] = []
        self.closed: list[str] = []
        self.answers: list[Permission] = []
        self.outcome = PermissionReply(outcome="taken")
        self.draining = False
        self.free = 100
        self.forgetful = False
        self._stopping = False
        self.headers: list[dict[str, str]] = []
        self._owned: dict[SessionKey, Owned] = {}
        self._pulled: asyncio.Queue[Pulled] = asyncio.Queue()
        self._known: set[int] = set()
        self._puller = Puller(bus, self.subjects, lambda: 100, self._take)
        self._tasks: set[asyncio.Task[None]] = set()
        self._beats = HeartbeatThread(url, self.subjects, self._beat)

    async def start(self) -> None:
        """Pull, and look alive."""
        await self._puller.start()
        self._beats.start()

    async def stop(self) -> None:
        """End."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._puller.stop()
        await self._beats.stop()

    def _take(self, pulled: Pulled) -> None:
        """A test may take longer than the queue waits for an ack: what is delivered again is here already."""
        if pulled.sequence not in self._known:
            self._known.add(pulled.sequence)
            self._pulled.put_nowait(pulled)

    async def next_turn(self) -> FakeTurn:
        """The next user message, claimed; nothing is published yet."""
        pulled = await self._pulled.get()
        self.headers.append(pulled.headers)
        key = self.subjects.session_of(pulled.subject)
        message = decode(UserMessage, pulled.data)
        if key not in self._owned:
            self._owned[key] = await self._claim(key)
        return FakeTurn(self, self._owned[key], message, pulled)

    @property
    def waiting(self) -> int:
        """User messages that were pulled and not taken by ``next_turn``."""
        return self._pulled.qsize()

    def answer_all(self, *deltas: str) -> None:
        """From now on answer every message with these deltas."""
        self._begin(self._answer_all(deltas))

    async def _answer_all(self, deltas: tuple[str, ...]) -> None:
        while not self._stopping:  # a cancellation may get lost in a request that is answered at that moment
            turn = await self.next_turn()
            await turn.start()
            for delta in deltas:
                await turn.delta(delta)
            await turn.complete()

    async def leave(self, key: SessionKey) -> None:
        """Own the session no longer; what the records say stays."""
        owned = self._owned.pop(key)
        if owned.subscription is not None:
            await owned.subscription.unsubscribe()

    async def _claim(self, key: SessionKey) -> Owned:
        before = await self.store.owner(key)
        record = OwnerRecord(worker=self.id, nonce=uuid.uuid4().hex)
        epoch = await self.store.claim(key, record, before.sequence if before else 0)
        owned = Owned(key, epoch)
        asked = partial(self._asked, owned)
        owned.subscription = await self.bus.subscribe(self.subjects.control(key), asked)
        await self.bus.flush()
        return owned

    def _asked(self, owned: Owned, message: Arrived) -> None:
        request = decode_control(message.data)
        if isinstance(request, Replay):
            self._begin(self.bus.publish(message.reply, self._view(owned, request).encode()))
        elif isinstance(request, Interrupt):
            self.interrupts.append(request.turn)
            reply = InterruptReply(turn=owned.running if request.turn in (None, owned.running) else None)
            self._begin(self.bus.publish(message.reply, reply.encode()))
        elif isinstance(request, Permission):
            self.answers.append(request)
            self._begin(self.bus.publish(message.reply, self.outcome.encode()))
        else:
            self.closed.append(owned.key.session)
            self._begin(self._release(owned, message.reply))

    async def _release(self, owned: Owned, reply: str) -> None:
        await self.bus.publish(reply, b"{}")
        await self.store.release(owned.key, owned.epoch, uuid.uuid4().hex)
        await self.leave(owned.key)

    def _view(self, owned: Owned, request: Replay) -> OwnerView:
        events = None if self.forgetful else _after(owned, request)
        show = None
        if events is None and owned.running is not None:
            block = Block(message=0, index=0, kind="text", text=owned.text)
            show = Snapshot(turn=owned.running, attempt=1, blocks=(block,)).encode().decode()
        return OwnerView(epoch=owned.epoch, seq=owned.seq, turn=owned.running, events=events, snapshot=show)

    def _beat(self) -> Heartbeat:
        return Heartbeat(
            worker=self.id, version="test", free=self.free, running=0, sessions=0, draining=self.draining
        )

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _after(owned: Owned, request: Replay) -> tuple[str, ...] | None:
    if request.epoch is None or request.seq is None:
        return None
    if (request.epoch, request.seq) == (owned.epoch, owned.seq):
        return ()
    if request.turn is not None and request.seq == 0:
        return tuple(sent.decode() for turn, _, _, sent in owned.published if turn == request.turn)
    if Position(request.epoch, request.seq) > (owned.epoch, owned.seq) or request.epoch < owned.epoch:
        return None
    return tuple(sent.decode() for _, seq, _, sent in owned.published if seq > request.seq)


class FakeTurn:
    """A user message in the fake worker's hands."""

    def __init__(self, worker: FakeWorker, owned: Owned, message: UserMessage, pulled: Pulled) -> None:
        self.message = message
        self.id = message.turn
        self.key = owned.key
        self.epoch = owned.epoch
        self.session_id = owned.key.session
        self._worker = worker
        self._owned = owned
        self._pulled = pulled
        self._writer = EnvelopeWriter(owned.epoch, message.turn, 1)

    async def start(self) -> None:
        """``turn_started``, ``message_start`` and the first block, as the real CLI prints them."""
        await self.begin()
        await self.publish(b'{"type":"message_start","message":{"id":"msg_1","role":"assistant"}}')
        await self.publish(
            b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}'
        )

    async def begin(self) -> None:
        """``turn_started``."""
        started = Started(
            attempt=1, epoch=self._owned.epoch, worker=self._worker.id, digest=self.message.digest
        )
        await self._worker.store.put_turn(self._owned.key, self.id, started)
        self._owned.running, self._owned.text = self.id, ""
        event = TurnStarted(turn=self.id, session_id=self.session_id, attempt=1, worker=self._worker.id)
        await self.publish(event.encode())

    async def delta(self, text: str) -> None:
        """One delta."""
        self._owned.text += text
        await self.publish(
            b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%b}}'
            % json.dumps(text).encode()
        )

    async def publish(self, event: bytes) -> Position:
        """One event, exactly these bytes; returns its position."""
        seq = self._owned.seq + 1
        sent = self._writer.wrap(seq, event)
        self._owned.published.append((self.id, seq, event, sent))
        await self._worker.bus.publish(self._worker.subjects.events(self._owned.key), sent)
        return Position(self._owned.epoch, seq)

    async def lose(self, text: str) -> None:
        """A delta that reaches nobody, though the owner has it."""
        self._owned.text += text
        seq = self._owned.seq + 1
        event = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%b}}'
        event %= json.dumps(text).encode()
        self._owned.published.append((self.id, seq, event, self._writer.wrap(seq, event)))

    async def complete(self) -> None:
        """The end."""
        await self.end(TurnCompleted(turn=self.id, attempt=1, duration_ms=1, stop_reason="end_turn"))

    async def fail(self, code: str, message: str) -> None:
        """The end without an answer."""
        failed = TurnFailed(
            turn=self.id, attempt=1, duration_ms=1, code=code, message=message, retryable=True
        )
        await self.end(failed)

    async def interrupted(self) -> None:
        """The end that somebody asked for."""
        await self.end(TurnInterrupted(turn=self.id, attempt=1, duration_ms=1))

    async def end(self, event: TurnEnd) -> None:
        """Record stored, event published, message acked."""
        await self.tell_end(event)
        await self.ack()

    async def tell_end(self, event: TurnEnd) -> None:
        """The same, but its message is in the queue still."""
        owned, store = self._owned, self._worker.store
        envelope = self._writer.wrap(owned.seq + 1, event.encode())
        finished = Finished(
            attempt=1,
            epoch=owned.epoch,
            digest=self.message.digest,
            envelope=envelope.decode(),
            text=owned.text,
            question=self.message.question,
        )
        await store.put_turn(owned.key, self.id, finished)
        owned.running = None
        assert codec.decode(envelope).position == await self.publish(event.encode())

    async def ack(self) -> None:
        """The message leaves the queue."""
        await self._worker.bus.request(self._pulled.ack, b"+ACK", 5)


async def begun(worker: FakeWorker, *deltas: str) -> FakeTurn:
    """The next turn, and its first deltas."""
    turn = await worker.next_turn()
    await turn.start()
    for delta in deltas:
        await turn.delta(delta)
    return turn


@asynccontextmanager
async def working(url: str, prefix: str) -> AsyncIterator[FakeWorker]:
    """A fake worker and the streams that it needs, while they are needed."""
    bus = await connect(url, "fake worker")
    subjects = Subjects(prefix)
    try:
        await streams.ensure(bus, subjects, 1, round(time() * 1000))
        worker = FakeWorker(bus, url, prefix)
        await worker.start()
        try:
            yield worker
        finally:
            await worker.stop()
            for stream in (subjects.request_stream, subjects.state_stream, subjects.log_stream):
                await bus.js.delete_stream(stream)
    finally:
        await bus.close()
