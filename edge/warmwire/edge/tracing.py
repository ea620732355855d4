"""Spans of an edge: one per request to the API, and one per turn on its way to who sent it.

    the caller's span
    └── POST /v1/chat/stream     a request, or a WebSocket, is the caller's one child of ours
        ├── send ww.req          by the producer library; the worker's spans are below it
        └── deliver turn         events: accepted, first delta, end

A message over a WebSocket begins a trace of its own: ``deliver turn`` is its root, linked to the WebSocket's.
Who watches, or comes back, is linked to the turn and no part of its trace. Without an OpenTelemetry SDK all
that costs next to nothing.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from time import monotonic

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, get_current_span, use_span
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from warmwire.broker import telemetry
from warmwire.broker.reading.reader import Item
from warmwire.broker.wire.envelope import Envelope
from warmwire.broker.wire.events import TurnEnd, TurnFailed, end_of
from warmwire.broker.wire.names import SessionKey
from warmwire.edge.delivery.outbox import Channel
from warmwire.producer.request import Request

API = ("/v1/", "/chat/")
"""What is traced begins so; pages and probes are not."""
DELIVERIES = 10_000
"""Turns whose end is waited for; past it the oldest is forgotten and not counted."""
SLOW = 0.5
"""Seconds to the first delta from which a span says that its turn was slow."""


class Traced:
    """ASGI middleware. The caller's ``traceparent`` gets this span as its one child of ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or not scope["path"].startswith(API):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method = scope.get("method", "WS")
        attributes = {"http.request.method": method, "url.path": scope["path"], "url.scheme": scope["scheme"]}
        with telemetry.tracer().start_as_current_span(
            method, context=telemetry.extract(headers), kind=SpanKind.SERVER, attributes=attributes
        ) as span:
            await self._app(scope, receive, _noting_status(send, span) if span.is_recording() else send)
            route = scope.get("route")
            if route is not None:
                span.update_name(f"{method} {route.path}")
                span.set_attribute("http.route", route.path)


def _noting_status(send: Send, span: Span) -> Send:
    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            span.set_attribute("http.response.status_code", message["status"])
        await send(message)

    return noting


class Delivery:
    """A turn that was sent here, until its sender has had its end."""

    def __init__(self, request: Request, channel: Channel | None, *, alone: bool) -> None:
        """``channel`` is how its sender sees it; ``alone``: it shares its connection with other turns."""
        self._channel = channel
        self._begun = monotonic()
        about = {"messaging.message.id": request.turn, "gen_ai.conversation.id": request.key.session}
        here = get_current_span().get_span_context()
        links = [Link(here)] if alone and here.is_valid else []
        context = Context() if alone else None
        self.alone = alone
        self._over = False
        self._span = telemetry.tracer().start_span("deliver turn", context, attributes=about, links=links)
        if channel is not None:
            channel.delivery = self

    def current(self) -> AbstractContextManager[Span]:
        """What is done within is part of the turn's trace."""
        return use_span(self._span, end_on_exit=False)

    def accepted(self) -> None:
        """JetStream has it."""
        telemetry.ttft.record(monotonic() - self._begun, {"stage": "accept"})
        self._span.add_event("accepted")

    def taken(self, item: Item) -> None:
        """Something is on its way to the viewer; called until that is the turn's first delta."""
        if isinstance(item, Envelope) and item.type != "content_block_delta":
            return
        if self._channel is not None and self._channel.delivery is self:
            self._channel.delivery = None
        if not isinstance(item, Envelope):
            return  # a snapshot holds what came before: there is no first delta any more
        after = monotonic() - self._begun
        telemetry.ttft.record(after, {"stage": "viewer"})
        self._span.add_event("first delta")
        self._span.set_attribute("warmwire.ttft_ms", round(after * 1000))
        self._span.set_attribute("warmwire.slow", after > SLOW)

    def ended(self, end: TurnEnd) -> None:
        """The turn's end is on its way to the viewer."""
        ending = end.type.removeprefix("turn_")
        if self._over:
            return
        self._over = True
        telemetry.turns.add(1, {"ending": ending})
        for link in telemetry.link_to(end.traceparent):
            self._span.add_link(link.context)
        self._span.add_event("end")
        self._span.set_attribute("warmwire.ending", ending)
        if isinstance(end, TurnFailed):
            self._span.set_attribute("error.type", end.code)
            self._span.set_status(Status(StatusCode.ERROR, end.code))

    def close(self) -> None:
        """Its sender is told nothing more."""
        if self._channel is not None and self._channel.delivery is self:
            self._channel.delivery = None
        if self._span.is_recording():
            self._span.end()


class Deliveries:
    """The turns that were sent here; and who else looks on, as spans."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Delivery] = OrderedDict()
        self._onlookers: defaultdict[SessionKey, list[Span]] = defaultdict(list)

    def begin(self, request: Request, channel: Channel | None = None, *, alone: bool = False) -> Delivery:
        """A turn is being sent."""
        delivery = self._open[request.turn] = Delivery(request, channel, alone=alone)
        if len(self._open) > DELIVERIES:
            self._open.popitem(last=False)[1].close()
        return delivery

    def forget(self, turn: str) -> None:
        """It was not accepted, or its sender has gone."""
        delivery = self._open.pop(turn, None)
        if delivery is not None:
            delivery.close()

    def ended(self, key: SessionKey, terminal: Envelope) -> None:
        """A session that is followed here has come to the end of a turn."""
        delivery, onlookers = self._open.get(terminal.turn), self._onlookers.get(key, ())
        if delivery is None and not onlookers:
            return
        end = end_of(terminal.event)
        if delivery is not None:
            delivery.ended(end)
            if delivery.alone:  # else its response has to end, too
                self.forget(terminal.turn)
        for span in onlookers:
            for link in telemetry.link_to(end.traceparent):
                span.add_link(link.context)

    @contextmanager
    def looking_on(self, key: SessionKey) -> Iterator[None]:
        """The request at hand shows a session whose turns are others' traces: they are linked."""
        span = get_current_span()
        if not span.is_recording():
            yield
            return
        self._onlookers[key].append(span)
        try:
            yield
        finally:
            self._onlookers[key].remove(span)
            if not self._onlookers[key]:
                del self._onlookers[key]
