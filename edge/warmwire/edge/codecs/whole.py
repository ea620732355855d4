"""A turn that is waited for and answered in one piece, in the shape that a client reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec
from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive

from warmwire.broker.reading.reader import Item
from warmwire.broker.wire.envelope import Envelope
from warmwire.broker.wire.events import TurnFailed
from warmwire.broker.wire.names import SessionKey
from warmwire.edge.access.caller import Caller
from warmwire.edge.delivery.outbox import Outbox
from warmwire.edge.delivery.stream import until_disconnect
from warmwire.edge.delivery.viewing import TurnView
from warmwire.edge.edge import Edge
from warmwire.edge.errors import CLOSED_REQUEST, Kind, Problem
from warmwire.producer.answer import Answer, event_of
from warmwire.producer.request import Request as Prepared
from warmwire.producer.submit import Sessions

BodyOf = Callable[[str, Envelope], Mapping[str, object]]
"""From the text of a turn and its end to the body of the answer."""


class WholeView(TurnView):
    """One turn that is waited for: its text, and its end."""

    def __init__(self, outbox: Outbox, sessions: Sessions, key: SessionKey, turn: str) -> None:
        super().__init__(outbox, sessions, key, turn)
        self.answer = Answer()
        self.over = asyncio.Event()
        self.end: Envelope | None = None

    def show(self, item: Item) -> None:
        """An event."""
        self.answer.add(event_of(item, self.turn))
        if isinstance(item, Envelope) and item.terminal:
            self.end = item
            self.over.set()


async def answered(edge: Edge, http: Request, request: Prepared, caller: Caller, body_of: BodyOf) -> Response:
    """Publish a message and wait for its turn. Raises as ``Sessions.submit``, and Problem."""
    view = WholeView(edge.outbox(), edge.sessions, request.key, request.turn)
    left = edge.admission.stream(caller)
    edge.entered(view.outbox, view.over.set)
    edge.presence.enter(request.key)
    try:
        await edge.follow_new(request, view)
        await _first(view.over, http.receive)
    finally:
        view.stop()
        edge.deliveries.forget(view.turn)
        edge.presence.leave(request.key)
        edge.left(view.outbox)
        left()
    return _answer(edge, view, body_of)


def _answer(edge: Edge, view: WholeView, body_of: BodyOf) -> Response:
    if view.end is None:
        if view.over.is_set():
            raise Problem(Kind.UNAVAILABLE, "this edge is leaving; the turn goes on")
        edge.left_early(view.key, view.turn)
        return Response(status_code=CLOSED_REQUEST)
    if view.end.type == "turn_failed":
        found = TurnFailed.model_validate_json(view.end.event)
        again = Kind.TURN_FAILED.retry_after if found.retryable else 0
        raise Problem(Kind.TURN_FAILED, f"{found.code}: {found.message}", retry_after=again)
    body = msgspec.json.encode(body_of(view.answer.text, view.end))
    return Response(body, media_type="application/json", headers={"x-session-id": view.key.session})


async def _first(over: asyncio.Event, receive: Receive) -> None:
    """Wait until the turn is over, or its client has left."""
    ended, gone = asyncio.create_task(over.wait()), asyncio.create_task(until_disconnect(receive))
    try:
        await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended.cancel()
        gone.cancel()
