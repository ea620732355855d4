"""What one edge process does for its viewers: submit, resume, watch, and know whether it is ready."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from time import monotonic, time

from starlette.requests import HTTPConnection
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from warmwire.broker.errors import BadInput, Unavailable
from warmwire.broker.liveness import Liveness
from warmwire.broker.logs import logger
from warmwire.broker.nats import heartbeat
from warmwire.broker.nats.bus import Bus
from warmwire.broker.nats.joining import join
from warmwire.broker.nats.store import Store
from warmwire.broker.tasks import Tasks
from warmwire.broker.wire.envelope import Cursor
from warmwire.broker.wire.names import SessionKey, Subjects
from warmwire.edge.access.admission import Admission
from warmwire.edge.access.auth import Access
from warmwire.edge.access.caller import Caller, Need, Viewer
from warmwire.edge.access.credentials import with_credential
from warmwire.edge.access.neighbours import Neighbours
from warmwire.edge.chat import ChatRequest
from warmwire.edge.delivery import sse
from warmwire.edge.delivery.outbox import Channel, Outbox
from warmwire.edge.delivery.presence import Presence
from warmwire.edge.delivery.stream import EventStream
from warmwire.edge.delivery.unseen import Unseen
from warmwire.edge.delivery.viewing import GuideView, SessionView, TurnView, Viewing
from warmwire.edge.metrics import Metrics
from warmwire.edge.recent import WITHIN, Recent
from warmwire.edge.settings import EdgeSettings
from warmwire.edge.tracing import Deliveries, Delivery
from warmwire.producer.manage import Management
from warmwire.producer.request import Request
from warmwire.producer.resume import NOWHERE
from warmwire.producer.submit import Sessions

log = logger(__name__)

AGE_JITTER = 0.2
"""The part of its maximum age by which a connection may live longer or shorter."""


class Edge:
    """The edge's state. Made by ``started``."""

    def __init__(self, settings: EdgeSettings, bus: Bus, liveness: Liveness) -> None:
        subjects = Subjects(settings.prefix)
        self.settings = settings
        self.draining = False
        self.deliveries = Deliveries()
        self.sessions = Sessions(bus, subjects, self.deliveries.ended)
        self.management = Management(bus, subjects, self.sessions)
        self.presence = Presence(bus, subjects)
        self.metrics = Metrics(settings, bus, Store(bus, subjects), liveness)
        self.admission = Admission(settings, self.sessions, liveness, lambda: self._neighbours.count)
        self.access = Access(settings, Store(bus, subjects), self.management, self.admission.session)
        self._unseen = Unseen(self.sessions, self.presence, settings.disconnect_grace, self.begin)
        self._neighbours = Neighbours(
            bus, subjects, self.presence.edge, lambda: self.viewers, self._unseen.edge_left
        )
        self._bus = bus
        self._liveness = liveness
        self._recent = Recent()
        self._leaving: dict[Outbox, Callable[[], None]] = {}
        self._endless: set[Outbox] = set()
        self._tasks = Tasks()

    @classmethod
    async def started(cls, settings: EdgeSettings) -> Edge:
        """Connected, with the streams there.

        Raises:
            WarmwireError: NATS or its streams are not as needed.
        """
        subjects = Subjects(settings.prefix)
        # The consumer is the workers': who never pulls need not be allowed to change it.
        bus = await join(settings, "edge", "edge", consumer=False)
        try:
            edge = cls(settings, bus, await heartbeat.listen(bus, subjects))
            await edge.presence.start()
            await edge.access.start()
            await edge._neighbours.start()
            await edge.metrics.start(lambda: edge.viewers, lambda: edge.not_ready() is None)
        except BaseException:
            await bus.close()
            raise
        edge.sessions.start()
        return edge

    async def stop(self) -> None:
        """Leave. Streams have ended before, or end here."""
        self._unseen.stop()
        self.end_streams()
        await self._tasks.finish()
        await self._neighbours.stop()
        await self.metrics.stop()
        await self.presence.stop()
        await self.access.stop()
        await self.sessions.stop()
        await self._bus.close()

    @property
    def viewers(self) -> int:
        """Connections that are open."""
        return len(self._leaving)

    def not_ready(self) -> str | None:
        """Why a message would not be answered now; None if it would."""
        if self.draining:
            return "this edge is leaving"
        if not self._bus.connected:
            return "no connection to NATS"
        workers = self._liveness.alive(monotonic())
        if not workers:
            return "no worker is alive"
        return "every worker is leaving" if all(worker.draining for worker in workers) else None

    # -- connections

    def entered(self, outbox: Outbox, leave: Callable[[], None], *, endless: bool = False) -> None:
        """A connection is open; ``leave`` sends its client elsewhere. ``endless``: it ends with no turn."""
        self._leaving[outbox] = leave
        if endless:
            self._endless.add(outbox)

    def left(self, outbox: Outbox) -> None:
        """It is open no longer."""
        self._leaving.pop(outbox, None)
        self._endless.discard(outbox)

    def drain(self) -> None:
        """Begin to leave: who would stay for ever goes elsewhere at once, the others after their turn."""
        self.draining = True
        for outbox in tuple(self._endless):
            self._leaving[outbox]()

    def end_streams(self) -> None:
        """Send every viewer elsewhere, with the cursor that it has."""
        for leave in tuple(self._leaving.values()):
            leave()

    def left_early(self, key: SessionKey, turn: str | None = None) -> None:
        """A viewer of the session has gone by itself; perhaps the last one of a turn that minds that."""
        if not self.draining:  # else the edges that stay look after it
            self._unseen.viewer_left(key, turn)

    def begin(self, work: Callable[[], Awaitable[object]], what: str) -> None:
        """Do it beside the rest."""
        self._tasks.begin(_logged(work, what), what)

    def outbox(self, rollup_ms: int = 0) -> Outbox:
        """For one connection."""
        return Outbox(self.settings.viewer_bytes, rollup_ms / 1000)

    def age(self) -> float:
        """Seconds that a connection may live."""
        return self.settings.max_age * random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)

    def at_expiry(self, caller: Caller, end: Callable[[], None]) -> asyncio.TimerHandle | None:
        """Calls ``end`` when the caller's token is good no longer; None when that is never."""
        if caller.expires is None:
            return None
        return asyncio.get_running_loop().call_later(max(0.0, caller.expires - time()), end)

    # -- limits

    async def caller(self, http: HTTPConnection, *, tickets: bool = False) -> Caller:
        """Who asks, if that may be asked now. Raises as ``Access.caller``, and Problem."""
        caller = await self.access.caller(http, tickets=tickets)
        self.admission.request(caller)
        return caller

    async def admitted(self, http: HttpRequest, caller: Caller, chat: ChatRequest) -> Request:
        """The user message of a request, if its caller may send it. Raises BadInput, and Problem.

        What is sent by URL has no idempotency key: a browser that comes again is recognized in another way.
        """
        key = None if http.method == "GET" else http.headers.get("idempotency-key")
        request = chat.prepared(self.settings.max_message_bytes, key, caller.tenant)
        request = with_credential(request, http.headers, self.settings)
        await self.access.admit(caller, request.key, Need.SEND)
        return request

    async def publish(self, request: Request, *, viewed: bool = False) -> None:
        """Publish a message without following its turn; ``viewed``: its sender watches the session.

        Raises as ``Sessions.publish``, and Problem.
        """
        async with self.admission.message(request):
            await self.sessions.publish(_viewed(request) if viewed else request)

    async def publish_in(self, view: SessionView, request: Request) -> None:
        """Publish a message whose sender watches the session over a WebSocket. Raises as ``publish``."""
        async with self._delivered(request, view.channel, alone=True) as delivery:
            with delivery.current():
                await self.publish(request, viewed=True)

    async def follow_new(self, request: Request, view: TurnView, *, alone: bool = False) -> None:
        """Publish a message and follow its turn. Raises as ``Sessions.submit``, and Problem."""
        async with self._delivered(request, view.channel, alone=alone) as delivery:
            with delivery.current() if alone else nullcontext():
                async with self.admission.message(request):
                    view.followed = await self.sessions.submit(_viewed(request), view.show)

    @asynccontextmanager
    async def _delivered(self, request: Request, channel: Channel, *, alone: bool) -> AsyncIterator[Delivery]:
        """The way of a turn to its sender, which ends here if it is not accepted within this."""
        delivery = self.deliveries.begin(request, channel, alone=alone)
        try:
            yield delivery
            delivery.accepted()
        except BaseException:
            self.deliveries.forget(request.turn)
            raise

    async def _holding(self, viewer: Viewer, opening: Callable[[], Awaitable[Response]]) -> Response:
        """The response, whose stream counts among the caller's as long as it goes on."""
        leave = self.admission.stream(viewer.caller)
        try:
            response = await opening()
        except BaseException:
            leave()
            raise
        if isinstance(response, EventStream):
            response.at_end(leave)
        else:
            leave()
        return response

    # -- streams of a turn

    async def submit(self, request: Request, viewer: Viewer) -> Response:
        """Publish a message and stream its turn. Raises as ``Sessions.submit``, and Problem."""
        return await self._holding(viewer, lambda: self._submit(request, viewer))

    async def submit_as(self, request: Request, viewer: Viewer, view: TurnView) -> Response:
        """As ``submit``, in another shape."""
        return await self._holding(viewer, lambda: self._submit(request, viewer, view))

    async def follow_as(self, view: TurnView, viewer: Viewer) -> Response:
        """Stream a turn that is known from its beginning, in another shape. Raises Unavailable, Problem."""
        return await self._holding(viewer, lambda: self._follow(view, viewer))

    async def submit_once(self, request: Request, viewer: Viewer) -> Response:
        """As ``submit``, but a turn that the same message has begun lately, or that runs, is joined."""
        return await self._holding(viewer, lambda: self._submit_once(request, viewer))

    async def resume(self, key: SessionKey, last_event_id: str, viewer: Viewer) -> Response:
        """Go on where a viewer left off; never submits. 204 when it has had everything."""
        return await self._holding(viewer, lambda: self._resume(key, last_event_id, viewer))

    async def watch(self, key: SessionKey, last_event_id: str | None, viewer: Viewer) -> Response:
        """Stream a session from a cursor, or from now on; it may be one that nobody has used yet."""
        return await self._holding(viewer, lambda: self._watch(key, last_event_id, viewer))

    async def _submit(self, request: Request, viewer: Viewer, view: TurnView | None = None) -> Response:
        entry = self._recent.begin(request, monotonic())
        view = view or self._turn_view(request.key, request.turn, viewer)
        view.open()
        try:
            await self.follow_new(request, view)
            entry.accepted = True
        finally:
            entry.settled.set()
        return self._turn_stream(view, viewer)

    async def _submit_once(self, request: Request, viewer: Viewer) -> Response:
        turn = await self._recent.turn_for(request, monotonic()) or await self._same(request)
        if turn is None:
            return await self._submit(request, viewer)
        await self.access.rebind(viewer.caller, turn)
        return await self._follow(self._turn_view(request.key, turn, viewer), viewer, rotates=True)

    async def _follow(self, view: TurnView, viewer: Viewer, *, rotates: bool = False) -> Response:
        view.open()
        await view.follow(Cursor(view.turn, 0, 0))
        return self._turn_stream(view, viewer, rotates=rotates)

    async def _resume(self, key: SessionKey, last_event_id: str, viewer: Viewer) -> Response:
        try:
            return await self._continue(key, cursor_of(last_event_id), viewer)
        except Unavailable as error:
            return self.empty(key, error, viewer)

    async def _continue(self, key: SessionKey, cursor: Cursor | None, viewer: Viewer) -> Response:
        told = await self.sessions.judge(key, cursor)
        turn = (told if isinstance(told, Cursor) else cursor or NOWHERE).turn
        view = self._turn_view(key, turn, viewer)
        view.reopen()
        if isinstance(told, Cursor):
            await view.follow(told)
            if view.outbox.ended or not view.ended:
                return self._turn_stream(view, viewer, rotates=True)
            view.stop()
        elif told is not None:
            view.nothing(told)
            return self._turn_stream(view, viewer)
        return Response(status_code=204, headers={"x-session-id": key.session})

    async def _same(self, request: Request) -> str | None:
        """The turn of the same message, if that one runs, or was accepted a moment ago, by any edge."""
        digest, sent = request.message.digest, request.message.sent_ms
        for number, queued in enumerate(await self.sessions.waiting(request.key)):
            message = queued.message
            if message.digest == digest and (number == 0 or sent - message.sent_ms <= WITHIN * 1000):
                return message.turn
        return None

    def _turn_view(self, key: SessionKey, turn: str, viewer: Viewer) -> TurnView:
        outbox = self.outbox(viewer.rollup_ms)
        if viewer.guide:
            return GuideView(outbox, self.sessions, key, turn, self.stop_turn)
        return TurnView(outbox, self.sessions, key, turn)

    def _turn_stream(self, view: TurnView, viewer: Viewer, *, rotates: bool = False) -> Response:
        def stopped() -> None:
            view.stop()
            self.deliveries.forget(view.turn)
            if view.outbox.gone and not view.ended:
                self.left_early(view.key, view.turn)

        return self._stream(view, viewer, stopped, rotates=rotates)

    # -- streams of a session

    async def _watch(self, key: SessionKey, last_event_id: str | None, viewer: Viewer) -> Response:
        view = SessionView(self.outbox(viewer.rollup_ms), self.sessions, key)
        cursor = cursor_of(last_event_id) if last_event_id else None
        view.outbox.put(sse.RETRY)
        try:
            await view.watch(cursor, readable=cursor is not None or not last_event_id)
        except Unavailable as error:
            return self.empty(key, error, viewer)
        if view.outbox.waiting == 1:
            view.outbox.put(sse.watching(str(view.cursor)))

        def stopped() -> None:
            view.stop()
            if view.outbox.gone:
                self.left_early(key)

        response = self._stream(view, viewer, stopped, rotates=True)
        self._endless.add(view.outbox)
        return response

    # -- responses

    def empty(self, key: SessionKey, error: Unavailable, viewer: Viewer) -> Response:
        """An error status would end a browser's EventSource for good; an empty stream makes it come again."""
        log.warning("cannot resume at the moment", session=str(key), error=str(error))
        view = SessionView(self.outbox(), self.sessions, key)
        view.outbox.put(sse.RETRY)
        view.outbox.end()
        return self._stream(view, viewer, _nothing)

    def _stream(
        self, view: Viewing, viewer: Viewer, stop: Callable[[], None], *, rotates: bool = False
    ) -> Response:
        outbox, key = view.outbox, view.key
        self.presence.enter(key)
        leave = partial(_finish, outbox, view.elsewhere)
        self.entered(outbox, leave)
        looking_on = ExitStack()
        if rotates:
            looking_on.enter_context(self.deliveries.looking_on(key))
        timers = [self.at_expiry(viewer.caller, partial(_finish, outbox, view.expired))]
        if rotates:
            timers.append(asyncio.get_running_loop().call_later(self.age(), leave))

        def stopped() -> None:
            for timer in timers:
                if timer is not None:
                    timer.cancel()
            self.left(outbox)
            self.presence.leave(key)
            looking_on.close()
            stop()

        settings = self.settings
        headers = {"x-session-id": key.session}
        return EventStream(outbox, headers, settings.keepalive, settings.viewer_patience, stopped)

    # -- turns that nobody sees

    def stop_turn(self, key: SessionKey, turn: str) -> None:
        """Interrupt it, beside the rest."""
        self.begin(lambda: self.sessions.interrupt(key, turn), "interrupt a turn")


def _viewed(request: Request) -> Request:
    """The request, marked if its turn is to stop when nobody sees it: a viewer is there, or about to be."""
    if request.message.options.on_disconnect != "cancel":
        return request
    return replace(request, message=request.message.model_copy(update={"viewed": True}))


def _finish(outbox: Outbox, last: Callable[[], bytes]) -> None:
    outbox.put(last())
    outbox.end()


def cursor_of(last_event_id: str) -> Cursor | None:
    """None when it is not one of ours: the client still has to be told, in the stream."""
    try:
        return Cursor.parse(last_event_id)
    except BadInput:
        return None


def _nothing() -> None:
    """There is nothing to stop."""


async def _logged(work: Callable[[], Awaitable[object]], what: str) -> None:
    try:
        await work()
    except Unavailable as error:
        log.warning("could not be done", what=what, error=str(error))
