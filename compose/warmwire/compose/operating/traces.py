"""`warmwire traces`: takes spans as a collector does, and shows where the time of slow turns went."""

from __future__ import annotations

import queue
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic

import click
from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # it has no type hints
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from warmwire.compose.errors import PortError
from warmwire.compose.operating.waterfall import rows, slow, svg, text

HELP = """Show turns as waterfalls: which stage took how long, and what the first delta waited for.

Listens for OTLP over HTTP on this machine, keeps the last traces in memory and sends nothing on. Shown are
turns that failed or whose first delta was slow.

\b
  warmwire traces --all
  OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 warmwire up
"""

TRACES = 1000
"""Traces that are kept while they come in; past it the oldest is shown as it is."""
SPANS = 200
"""Spans of one trace; further ones are dropped."""
BODY = 8 * 1024 * 1024
"""Bytes of one export; more is refused with 413."""
QUIET = 10.0
"""Seconds without a span of a trace after which it is shown as it is: exporters send every 5."""
POLL = 0.25
"""Seconds between two looks at whether one has been quiet for so long."""
ENDS = {"commit", "deliver turn"}
"""Spans that a turn ends with."""

Trace = list[tuple[str, Span]]


class Traces:
    """Those that come in, until they are whole. No I/O; time is an argument."""

    def __init__(self) -> None:
        self._open: OrderedDict[bytes, Trace] = OrderedDict()
        self._heard: dict[bytes, float] = {}

    def take(self, spans: Trace, now: float) -> None:
        """Spans have come."""
        for each in spans:
            trace = each[1].trace_id
            self._heard[trace] = now
            held = self._open.setdefault(trace, [])
            if len(held) < SPANS:
                held.append(each)

    def ready(self, now: float) -> list[Trace]:
        """Turns of which nothing more is to come; other traces are forgotten."""
        surplus = len(self._open) - TRACES
        over = [
            trace
            for number, (trace, spans) in enumerate(self._open.items())
            if number < surplus or whole(spans) or now - self._heard[trace] > QUIET
        ]
        taken = [self._open.pop(trace) for trace in over]
        for trace in over:
            del self._heard[trace]
        return [spans for spans in taken if any(span.name in ENDS for _, span in spans)]


def whole(spans: Trace) -> bool:
    """Whether it has a turn's ends, and each span that another names as its parent; but for the caller's."""
    known = {span.span_id for _, span in spans}
    above = {span.parent_span_id for _, span in spans if span.parent_span_id} - known
    return len(above) <= 1 and {span.name for _, span in spans} >= ENDS


def spans_of(body: bytes) -> Trace:
    """The spans of an export. Raises DecodeError."""
    found: Trace = []
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        named = {each.key: each.value.string_value for each in resource.resource.attributes}
        found += [
            (named.get("service.name", ""), span) for scope in resource.scope_spans for span in scope.spans
        ]
    return found


def unpacked(body: bytes) -> bytes:
    """What gzip has made smaller; of more than ``BODY`` bytes one byte more. Raises zlib.error."""
    return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(body, BODY + 1)


def receiver(port: int, take: Callable[[Trace], None]) -> ThreadingHTTPServer:
    """A server for OTLP over HTTP on loopback. Raises PortError."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = self.headers.get("content-length", "0")
            if not length.isdecimal():
                self._answer(400)
            else:
                self._answer(413 if int(length) > BODY else self._taken(self.rfile.read(int(length))))

        def _taken(self, body: bytes) -> int:
            if self.path != "/v1/traces":
                return 200 if self.path in ("/v1/metrics", "/v1/logs") else 404
            try:
                plain = unpacked(body) if self.headers.get("content-encoding") == "gzip" else body
                if len(plain) > BODY:
                    return 413
                take(spans_of(plain))
            except (DecodeError, zlib.error):
                return 400
            return 200

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
            """Say nothing."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise PortError(f"cannot listen on 127.0.0.1 port {port} (--port): {error.strerror}") from error


@click.command(help=HELP)
@click.option("--port", default=4318, show_default=True, type=click.IntRange(0, 65535), help="0: a free one.")
@click.option("--all", "everything", is_flag=True, help="Quick turns, too.")
@click.option("--slow", "limit", default=0.5, show_default=True, help="Seconds to a slow first delta.")
@click.option("--count", type=click.IntRange(1), help="End after so many turns.")
@click.option(
    "--svg", "picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw the last one here."
)
def traces(port: int, *, everything: bool, limit: float, count: int | None, picture: Path | None) -> int:
    """The command; returns the exit code."""
    came: queue.Queue[Trace] = queue.Queue(TRACES)  # at its bound exporters wait
    server = receiver(port, came.put)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    click.echo(f"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{server.server_address[1]}")
    shown = 0
    try:
        for spans in _ended(came):
            if not everything and not slow(rows(spans), limit):
                continue
            click.echo(f"\n{text(spans)}")
            if picture is not None:
                picture.write_text(svg(spans))
            shown += 1
            if shown == count:
                break
    except KeyboardInterrupt:
        click.echo()
    finally:
        server.shutdown()
        server.server_close()
    return 0


def _ended(came: queue.Queue[Trace]) -> Iterator[Trace]:
    """Each turn, once it is whole."""
    known = Traces()
    while True:
        with suppress(queue.Empty):
            known.take(came.get(timeout=POLL), monotonic())
        yield from known.ready(monotonic())
