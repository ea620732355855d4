"""One request is one trace: the caller's span, one server span, the publication, the worker's headers."""

from __future__ import annotations

from functools import cache

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from tests.edge.fake_worker import FakeWorker
from tests.edge.wire import Wire

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@cache
def exported() -> InMemorySpanExporter:
    """Where the spans of this process go; a provider can be set once only."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


def spans_of(trace_id: str) -> list[ReadableSpan]:
    """The finished spans of a trace."""
    spans = exported().get_finished_spans()
    return [span for span in spans if span.context and format(span.context.trace_id, "032x") == trace_id]


async def test_the_callers_trace_goes_through_to_the_worker(wire: Wire, worker: FakeWorker) -> None:
    exported().clear()
    worker.answer_all("Hi")
    answer = await wire.post(
        {"session_id": "s1", "message": "Hello"}, {"traceparent": f"00-{TRACE}-{CALLER}-01"}
    )
    await answer.until("[DONE]")
    await answer.body()
    publication, delivery, server = spans_of(TRACE)
    assert (SpanKind.PRODUCER, SpanKind.SERVER) == (publication.kind, server.kind)
    assert delivery.name == "deliver turn"
    assert delivery.parent == server.context
    assert ["accepted", "first delta", "end"] == [event.name for event in delivery.events]
    assert server.attributes is not None
    assert server.attributes["http.response.status_code"] == 200
    assert server.parent is not None
    assert format(server.parent.span_id, "016x") == CALLER
    assert publication.parent == server.context
    assert publication.context is not None
    assert server.name == "POST /v1/chat/stream"
    sent = f"00-{TRACE}-{publication.context.span_id:016x}-01"
    assert worker.headers[0]["traceparent"] == sent


async def test_probes_and_pages_are_not_traced(wire: Wire) -> None:
    exported().clear()
    await wire.request("GET", "/healthz", {"traceparent": f"00-{TRACE}-{CALLER}-01"})
    assert spans_of(TRACE) == []
