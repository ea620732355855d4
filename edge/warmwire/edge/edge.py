"""What one edge process does for its viewers: submit, resume, and know whether it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic, time

import structlog
from starlette.responses import Response

from warmwire.broker import heartbeat, streams
from warmwire.broker.bus import Bus, connect
from warmwire.broker.envelope import Cursor
from warmwire.broker.errors import BadInput, Unavailable
from warmwire.broker.liveness import Liveness
from warmwire.broker.names import SessionKey, Subjects
from warmwire.producer.request import Request
from warmwire.producer.resume import NOWHERE
from warmwire.producer.submit import Followed, Sessions

from . import sse
from .recent import Recent
from .settings import EdgeSettings
from .sse import Encoder
from .stream import EventStream, Viewer

log = structlog.get_logger(__name__)


class Edge:
    """The edge's state. Made by ``started``."""

    def __init__(self, settings: EdgeSettings, bus: Bus, liveness: Liveness) -> None:
        self.settings = settings
        self.draining = False
        self._bus = bus
        self._liveness = liveness
        self._sessions = Sessions(bus, Subjects(settings.prefix))
        self._sessions.start()
        self._encoder = Encoder()
        self._recent = Recent()
        self._viewers: set[Viewer] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def started(cls, settings: EdgeSettings) -> Edge:
        """Connected, with the streams there.

        Raises:
            WarmwireError: NATS or its streams are not as needed.
        """
        subjects = Subjects(settings.prefix)
        bus = await connect(settings.nats, "edge")
        try:
            await streams.ensure(bus, subjects, settings.replicas, round(time() * 1000))
            return cls(settings, bus, await heartbeat.listen(bus, subjects))
        except BaseException:
            await bus.close()
            raise

    async def stop(self) -> None:
        """Leave. Streams have ended before, or end here."""
        self.end_streams()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sessions.stop()
        await self._bus.close()

    @property
    def viewers(self) -> int:
        """Streams that are open."""
        return len(self._viewers)

    def end_streams(self) -> None:
        """Finish every response; viewers whose turn goes on come back elsewhere with their cursor."""
        for viewer in self._viewers:
            viewer.end()

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

    # -- streams

    async def submit(self, request: Request) -> Response:
        """Publish a message and stream its turn. Raises as ``Sessions.submit``."""
        entry = self._recent.begin(request, monotonic())
        viewer = self._viewer(request.turn)
        viewer.put(sse.accepted(request.turn, request.key.session))
        try:
            followed = await self._sessions.submit(request, viewer.show)
            entry.accepted = True
        finally:
            entry.settled.set()
        return self._stream(
            viewer, request.key, followed, cancel=request.message.options.on_disconnect == "cancel"
        )

    async def submit_once(self, request: Request) -> Response:
        """As ``submit``, but a turn that the same message has begun lately, or that runs, is joined."""
        turn = await self._recent.turn_for(request, monotonic())
        if turn is None:
            turn = await self._sessions.running(request.key, request.message.digest)
        if turn is None:
            return await self.submit(request)
        viewer = self._viewer(turn)
        viewer.put(sse.accepted(turn, request.key.session))
        followed = await self._sessions.follow(request.key, Cursor(turn, 0, 0), viewer.show)
        return self._stream(viewer, request.key, followed)

    async def resume(self, key: SessionKey, last_event_id: str) -> Response:
        """Go on where a viewer left off; never submits. 204 when it has had everything."""
        try:
            return await self._resume(key, _cursor(last_event_id))
        except Unavailable as error:
            # An error status would end a browser's EventSource for good; an empty stream makes it come again.
            log.warning("cannot resume at the moment", session=str(key), error=str(error))
            viewer = self._viewer("")
            viewer.put(sse.RETRY)
            viewer.end()
            return self._stream(viewer, key, None)

    async def _resume(self, key: SessionKey, cursor: Cursor | None) -> Response:
        told = await self._sessions.judge(key, cursor)
        viewer = self._viewer((told if isinstance(told, Cursor) else cursor or NOWHERE).turn)
        viewer.put(sse.RETRY)
        if isinstance(told, Cursor):
            followed = await self._sessions.follow(key, told, viewer.show)
            if viewer.ended or not followed.ended:
                return self._stream(viewer, key, followed)
            followed.stop()
        elif told is not None:
            viewer.show(told)
            viewer.put(sse.NOTHING + sse.DONE)
            viewer.end()
            return self._stream(viewer, key, None)
        return Response(status_code=204, headers={"x-session-id": key.session})

    def _viewer(self, turn: str) -> Viewer:
        return Viewer(turn, self._encoder, self.settings.viewer_bytes)

    def _stream(
        self, viewer: Viewer, key: SessionKey, followed: Followed | None, *, cancel: bool = False
    ) -> Response:
        self._viewers.add(viewer)
        stop = partial(self._stopped, viewer, followed, cancel=cancel)
        return EventStream(viewer, {"x-session-id": key.session}, self.settings.keepalive, stop)

    def _stopped(self, viewer: Viewer, followed: Followed | None, *, cancel: bool) -> None:
        self._viewers.discard(viewer)
        if followed is None:
            return
        followed.stop()
        if cancel and viewer.gone and not followed.ended:
            self._begin(lambda: self._sessions.interrupt(followed.key, followed.turn))

    def _begin(self, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _cursor(last_event_id: str) -> Cursor | None:
    """None when it is not one of ours: the client still has to be told, in the stream."""
    try:
        return Cursor.parse(last_event_id)
    except BadInput:
        return None


async def _logged(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except Unavailable as error:
        log.warning("the turn of a viewer that left could not be interrupted", error=str(error))
