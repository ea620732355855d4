"""The client library for services: ``Producer`` publishes user messages and gives back their turns."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from time import time
from types import TracebackType
from typing import Literal
from weakref import WeakSet

from warmwire.broker.nats import bus as nats
from warmwire.broker.nats.bus import Bus
from warmwire.broker.nats.store import Store
from warmwire.broker.wire.envelope import Cursor
from warmwire.broker.wire.messages import PermissionMode
from warmwire.broker.wire.names import DEFAULT_TENANT, SessionKey, Subjects
from warmwire.producer.iteration import Closing, Events, OnCancel
from warmwire.producer.past import PAGE, PastTurn, WaitingTurn, ended_turns, last_of, recorded, waiting_of
from warmwire.producer.request import Given, Request, options_of, prepare
from warmwire.producer.settings import ProducerSettings
from warmwire.producer.submit import Sessions
from warmwire.producer.turn import Turn, Watch


class Producer(Closing):
    """Publishes user messages. Made by ``connect``."""

    def __init__(self, bus: Bus, settings: ProducerSettings) -> None:
        self._bus = bus
        self._settings = settings
        self._sessions = Sessions(bus, Subjects(settings.prefix))
        self._store = Store(bus, Subjects(settings.prefix))
        self._open: WeakSet[Events] = WeakSet()
        self._closed = False
        self._sessions.start()

    @classmethod
    def connect(cls, url: str | None = None, prefix: str | None = None) -> Connecting:
        """Connect to NATS: ``await Producer.connect()``, or ``async with Producer.connect() as producer``.

        Without arguments ``WARMWIRE_NATS`` and ``WARMWIRE_PREFIX`` say where.

        Raises (when awaited):
            Unavailable: no NATS server answers there.
            BadInput: not a NATS URL, or not a prefix.
        """
        given = {"nats": url, "prefix": prefix}
        return Connecting(cls, {name: value for name, value in given.items() if value is not None})

    async def send(  # noqa: PLR0913 - the options of a turn are named arguments, for whoever reads the call
        self,
        message: Given,
        *,
        session_id: str | None = None,
        tenant: str = DEFAULT_TENANT,
        model: str | None = None,
        profile: str | None = None,
        system_prompt: str | None = None,
        permission_mode: PermissionMode | None = None,
        thinking_tokens: int | None = None,
        on_worker_loss: Literal["retry", "fail"] = "retry",
        double_texting: Literal["enqueue", "interrupt", "reject"] = "enqueue",
        idempotency_key: str | None = None,
        token: str | None = None,
        on_cancel: OnCancel = "detach",
    ) -> Turn:
        """Publish a user message; returns once it is accepted. Without a session a new one begins.

        ``token`` is the user's own, for this turn in place of the pool's credential; it travels sealed.
        ``on_cancel`` is what becomes of the turn when the task is cancelled that reads it.

        Raises:
            BadInput: naming the field; nothing was published.
            SessionBusy: ``double_texting="reject"`` and the session is busy.
            QueueFull: too many messages of that session are waiting.
            StoreFull: too many messages are waiting in all.
            Unavailable: perhaps accepted; sending again is safe with an ``idempotency_key``.
        """
        options = options_of(
            model=model,
            profile=profile,
            system_prompt=system_prompt,
            permission_mode=permission_mode,
            thinking_tokens=thinking_tokens,
            on_worker_loss=on_worker_loss,
            double_texting=double_texting,
        )
        request = prepare(
            SessionKey(tenant, str(uuid.uuid4()) if session_id is None else session_id),
            message,
            options,
            now_ms=round(time() * 1000),
            limit=self._settings.max_message_bytes,
            idempotency_key=idempotency_key,
        )
        if token is not None:
            request = self._with_token(request, token)
        turn = await Turn.submit(self._sessions, request, self._settings.turn_buffer_bytes, on_cancel)
        self._open.add(turn)
        return turn

    def _with_token(self, request: Request, token: str) -> Request:
        from warmwire.producer.credentials import with_token  # noqa: PLC0415 - PyNaCl is for those who send tokens

        settings = self._settings
        return with_token(request, token, settings.pool_public_key, time() + settings.credential_ttl)

    async def resume(self, session_id: str, cursor: str, *, tenant: str = DEFAULT_TENANT) -> Turn:
        """Follow a turn again, from the cursor of the last event that was seen. Never submits.

        Raises:
            BadInput: not a cursor.
            Unavailable: the session's owner does not answer.
        """
        key, at = SessionKey(tenant, session_id), Cursor.parse(cursor)
        turn = await Turn.resumed(self._sessions, key, at, self._settings.turn_buffer_bytes)
        self._open.add(turn)
        return turn

    async def watch(
        self, session_id: str, cursor: str | None = None, *, tenant: str = DEFAULT_TENANT
    ) -> Watch:
        """Watch every turn of a session, from a cursor or from now on; nobody needs to have used it yet.

        Raises:
            BadInput: not a cursor.
            Unavailable: the session's owner does not answer.
        """
        key, at = SessionKey(tenant, session_id), Cursor.parse(cursor) if cursor is not None else None
        watch = await Watch.begun(self._sessions, key, at, self._settings.turn_buffer_bytes)
        self._open.add(watch)
        return watch

    async def interrupt(
        self, session_id: str, turn: str | None = None, *, tenant: str = DEFAULT_TENANT
    ) -> str | None:
        """Stop a turn, or the one at hand; returns the one that stops, None if there is nothing to stop.

        Raises Unavailable.
        """
        return await self._sessions.interrupt(SessionKey(tenant, session_id), turn)

    async def past(
        self, session_id: str, most: int = 50, *, tenant: str = DEFAULT_TENANT
    ) -> tuple[PastTurn, ...]:
        """The last ``most`` turns of a session that have ended, of those of a day. Raises Unavailable."""
        key = SessionKey(tenant, session_id)

        async def page(after: int) -> tuple[list[PastTurn], int | None]:
            ended, more = await ended_turns(self._store, key, after, PAGE)
            return [recorded(each) for each in ended], more

        return await last_of(page, most)

    async def waiting(self, session_id: str, *, tenant: str = DEFAULT_TENANT) -> tuple[WaitingTurn, ...]:
        """The turns of a session that wait or run, in order. Raises Unavailable."""
        found = await self._store.queued(SessionKey(tenant, session_id))
        return tuple(waiting_of(each.message) for each in found)

    @property
    def connected(self) -> bool:
        """Whether the connection stands at this moment; one that is lost is made again."""
        return self._bus.connected

    async def close(self) -> None:
        """Follow nothing any more (iterations end) and disconnect. May be repeated."""
        if self._closed:
            return
        self._closed = True
        for each in tuple(self._open):
            each.close()
        await self._sessions.stop()
        await self._bus.close()


class Connecting:
    """A connection in the making: await it, or enter it with ``async with``."""

    def __init__(self, cls: type[Producer], given: dict[str, str]) -> None:
        self._cls = cls
        self._given = given
        self._producer: Producer | None = None

    def __await__(self) -> Generator[object, None, Producer]:
        return self._connect().__await__()

    async def __aenter__(self) -> Producer:
        self._producer = await self._connect()
        return self._producer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._producer is not None:
            await self._producer.close()

    async def _connect(self) -> Producer:
        settings = ProducerSettings.model_validate(self._given)
        Subjects(settings.prefix)  # refused before there is a connection to close again
        return self._cls(await nats.connect(settings.nats, "producer", settings.login("producer")), settings)
