"""Trace context and instruments, in OpenTelemetry's API: without an SDK in the process they cost nothing.

Context rides in the headers of the user message and in ``turn_started``, never on deltas.
W3C trace context: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from time import time_ns

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context

_meter = metrics.get_meter("warmwire")

ttft = _meter.create_histogram(
    "warmwire_ttft_seconds",
    unit="s",
    description="From the user message's acceptance to the first delta of its answer.",
)
turns = _meter.create_counter("warmwire_turns_total", description="Turns ended, by ending.")
alien = _meter.create_counter(
    "warmwire_alien_messages_total", description="Messages dropped because they are not ours."
)
unknown_lines = _meter.create_counter(
    "warmwire_unknown_lines_total", description="Lines of a CLI, of a type that we do not know."
)
provided = _meter.create_counter(
    "warmwire_processes_provided_total", description="Turns that got a process, by how."
)
processes = _meter.create_gauge("warmwire_processes", description="CLI processes, by tier.")
process_memory = _meter.create_gauge(
    "warmwire_process_memory_mb",
    unit="MB",
    description="What a CLI process takes, with what it started: PSS.",
)
spares_wanted = _meter.create_gauge("warmwire_spares_wanted", description="Spares that there are to be.")


def tracer() -> trace.Tracer:
    """The tracer of all our spans."""
    return trace.get_tracer("warmwire")


def inject() -> dict[str, str]:
    """The current trace context as headers."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def extract(headers: dict[str, str]) -> Context:
    """The trace context that headers carry."""
    return propagate.extract(headers)


def configure(service: str) -> None:
    """Export spans as the standard ``OTEL_*`` variables say; without an endpoint in them, nothing is loaded.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/
    """
    if not any(os.environ.get(f"OTEL_EXPORTER_OTLP_{kind}ENDPOINT") for kind in ("", "TRACES_")):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - see above
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - see above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - see above
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - see above

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def record_turn(traceparent: str | None, duration_ms: int, attributes: Mapping[str, str | int]) -> None:
    """A finished turn as one span: child of the publish that ``traceparent`` names."""
    parent = extract({"traceparent": traceparent}) if traceparent else None
    ended = time_ns()
    span = tracer().start_span(
        "process turn",
        context=parent,
        kind=trace.SpanKind.CONSUMER,
        attributes=attributes,
        start_time=ended - duration_ms * 1_000_000,
    )
    span.end(ended)
