"""What an owner reads and writes of its session: tried until it is done, or until the session is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from warmwire.broker.errors import BadInput, Conflict, Contended, Unavailable
from warmwire.broker.logs import logger
from warmwire.broker.nats.bus import Bus
from warmwire.broker.nats.pull import ACK
from warmwire.broker.nats.store import Store
from warmwire.broker.wire.messages import BoundRecord, TurnRecord
from warmwire.broker.wire.names import SessionKey
from warmwire.worker.errors import ErrorCode
from warmwire.worker.profiles import Refused
from warmwire.worker.sessions import transcript
from warmwire.worker.sessions.ownership import lost

log = logger(__name__)

ACK_WITHIN = 5.0
"""Seconds that the server may take to say that it has taken an acknowledgement."""
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
"""Seconds between two tries of a write that must succeed; doubled from the first to the longest."""

T = TypeVar("T")


class Lost(Exception):
    """The session has another owner."""


class OwnerStore:
    """One session's, while this epoch lasts. Each method raises Lost when the session has another owner.

    What can never be done raises BadInput: a record that is unreadable, a write that is too large.
    """

    def __init__(self, bus: Bus, store: Store, key: SessionKey, epoch: int, nonce: str) -> None:
        self._bus = bus
        self._store = store
        self._key = key
        self._epoch = epoch
        self._nonce = nonce
        self._last = 0  # sequence of the transcript's last append

    # -- the session

    async def begin(self) -> BoundRecord | Refused | None:
        """Look where the transcript ends; what the session is bound to, or why that is not known."""
        self._last, bound = await asyncio.gather(
            self._surely(lambda: self._store.transcript_end(self._key)),
            self._surely(self._bound),
        )
        return bound

    async def _bound(self) -> BoundRecord | Refused | None:
        try:
            return await self._store.bound(self._key)
        except BadInput as error:
            log.warning(
                "unreadable record of a session: its turns fail", session=str(self._key), error=str(error)
            )
            return Refused(ErrorCode.UNREADABLE_MESSAGE, str(error))

    @property
    def begun(self) -> bool:
        """Whether anything of a conversation is stored."""
        return self._last > 0

    async def check(self) -> None:
        """Whether the session is still ours; else Lost."""
        await self._surely(self._check)

    async def release(self) -> None:
        """Give the session up."""
        await self._surely(lambda: self._store.release(self._key, self._epoch, self._nonce))

    # -- turns

    async def head(self, after: int) -> int | None:
        """The head of the session's queue; see ``Store.head``."""
        head, _ = await asyncio.gather(
            self._surely(lambda: self._store.head(self._key, after)), self._surely(self._check)
        )
        return head

    async def turn(self, turn: str) -> tuple[TurnRecord | None, bool]:
        """The turn's record, and whether somebody has left an interrupt for it."""
        record, interrupted = await asyncio.gather(
            self._surely(lambda: self._store.turn(self._key, turn)),
            self._surely(lambda: self._store.interrupt_asked(self._key, turn)),
        )
        return record, interrupted

    async def put_turn(self, turn: str, record: TurnRecord, bound: BoundRecord | None) -> None:
        """Write the turn's record; ``bound``: before that, what the session is bound to and has used."""
        if bound is not None:
            await self._surely(lambda: self._store.put_bound(self._key, bound, self._epoch))
        await self._surely(lambda: self._store.put_turn(self._key, turn, record))

    async def keep_interrupt(self, turn: str) -> None:
        """Leave an interrupt for whoever has the session next."""
        await self._surely(lambda: self._store.ask_interrupt(self._key, turn))

    async def ack(self, subject: str) -> None:
        """Wait until the server has taken it: the next message is the head only then."""

        async def ack() -> None:
            await self._bus.request(subject, ACK, within=ACK_WITHIN)

        await self._surely(ack)

    # -- the transcript

    async def transcript(self) -> list[bytes]:
        """What is stored of the conversation; read when it is needed, not kept per idle session."""
        if not self.begun:
            return []
        stored, _ = await self._surely(lambda: self._store.transcript(self._key))
        return stored

    async def append(self, entries: bytes) -> None:
        """Append to the transcript."""
        await self._surely(lambda: self._append(entries))

    async def _append(self, entries: bytes) -> None:
        try:
            self._last = await self._store.append_transcript(self._key, entries, self._last)
        except Conflict:  # perhaps by the owner before, between our reading and our first append
            stored, self._last = await self._store.transcript(self._key)
            if transcript.epoch(stored) > self._epoch:
                raise Lost from None  # with what we have just read, our append would be taken
            raise

    # -- until it is done

    async def _surely(self, work: Callable[[], Awaitable[T]]) -> T:
        pause, doubtful = FIRST_PAUSE, False
        while True:
            try:
                if doubtful:
                    await self._check()
                return await work()
            except Conflict:
                doubtful = True
            except (Unavailable, Contended) as error:
                log.warning("will be tried again", session=str(self._key), error=str(error))
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _check(self) -> None:
        """Only the owner record says that the session is lost; a refused write alone does not."""
        try:
            owned = await self._store.owner(self._key)
        except BadInput:  # then it is not what we have written
            raise Lost from None
        if lost(owned, self._epoch):
            raise Lost
