"""Trace context and instruments, in the API of OpenTelemetry: without an SDK in the process they cost nothing.

Context rides in the headers of the user message and in ``turn_started``, never on deltas.
W3C trace context: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

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
