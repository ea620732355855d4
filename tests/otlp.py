"""A receiver for OTLP over HTTP: takes spans as any collector does, and remembers them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Receiver:
    """Use ``receiving``."""

    def __init__(self) -> None:
        self.raw = bytearray()
        self._spans: list[tuple[str, Span]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.take(self.path, self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def take(self, path: str, body: bytes) -> None:
        """One export."""
        self.raw += body
        if path != "/v1/traces":
            return
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = [
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            ]
            self._spans += [(names[0], span) for scope in resource.scope_spans for span in scope.spans]

    def trace(self, trace_id: str) -> list[tuple[str, Span]]:
        """The spans of a trace with the services that sent them, in the order in which they began."""
        found = [each for each in tuple(self._spans) if each[1].trace_id.hex() == trace_id]
        return sorted(found, key=lambda each: each[1].start_time_unix_nano)

    @property
    def url(self) -> str:
        """What ``OTEL_EXPORTER_OTLP_ENDPOINT`` is to be."""
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver while it is needed."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()
