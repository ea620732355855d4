"""Instruments and trace context, in OpenTelemetry's API: without an SDK in the process they cost nothing.

What is counted on the path of a delta is a ``Tally``: adding to it is adding to an integer, and it is read
when somebody asks. Context rides in the headers of the user message, in ``turn_started`` and in the terminal
event, never on deltas. W3C trace context: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation

SCOPE = "warmwire"
"""Whose instruments and spans these are, among those of libraries."""

_meter = metrics.get_meter(SCOPE)
_tracer = trace.get_tracer(SCOPE)
"""Of the SDK once there is one. Asking for it anew costs as much as a span."""

TTFT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)
"""Seconds; 0.5 is what the number is judged by."""
DELAY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""Seconds that a delta, or the event loop, may be late."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """What the reference page says of one."""

    name: str
    kind: str
    labels: Mapping[str, tuple[str, ...] | str]
    what: str


INSTRUMENTS: dict[str, Instrument] = {}
"""All that there are, by name. A label comes with its values, or with where those are listed."""

_counters: list[tuple[metrics.Counter, dict[str, str]]] = []

Labels = Mapping[str, tuple[str, ...] | str]
Reading = Iterable[tuple[float, Mapping[str, str]]]


def _listed(name: str, kind: str, what: str, labels: Labels | None) -> str:
    INSTRUMENTS[name] = Instrument(name, kind, labels or {}, what)
    return name


def _histogram(
    name: str, what: str, buckets: tuple[float, ...], labels: Labels | None = None
) -> metrics.Histogram:
    return _meter.create_histogram(
        _listed(name, "histogram", what, labels),
        unit="s",
        description=what,
        explicit_bucket_boundaries_advisory=buckets,
    )


def _counter(name: str, what: str, labels: Labels | None = None) -> metrics.Counter:
    counter = _meter.create_counter(_listed(name, "counter", what, labels), description=what)
    known = [({label: value}) for label, values in (labels or {}).items() for value in _each(values)]
    _counters.extend((counter, series) for series in (known if labels else [{}]))
    return counter


def _each(values: tuple[str, ...] | str) -> tuple[str, ...]:
    return () if isinstance(values, str) else values


def from_zero() -> None:
    """Show every counter whose series are known: what begins with 1 has not increased, to Prometheus."""
    for counter, labels in _counters:
        counter.add(0, labels)


class Tally:
    """A counter for paths where every microsecond counts: add to ``value``."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


def _tally(name: str, what: str) -> Tally:
    made = Tally()
    _tallied(name, what, None, [({}, made)])
    return made


def _tallies(name: str, what: str, label: str, values: tuple[str, ...]) -> dict[str, Tally]:
    made = {value: Tally() for value in values}
    _tallied(name, what, {label: values}, [({label: value}, tally) for value, tally in made.items()])
    return made


def _tallied(
    name: str, what: str, labels: Labels | None, tallies: list[tuple[dict[str, str], Tally]]
) -> None:
    def read(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(tally.value, at) for at, tally in tallies]

    _meter.create_observable_counter(
        _listed(name, "counter", what, labels), callbacks=[read], description=what
    )


class Gauge:
    """Something that is looked at when somebody asks: ``source`` gives values with their labels."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.source: Callable[[], Reading] = tuple

    def read(self, _: CallbackOptions) -> Iterable[Observation]:
        """For the SDK."""
        return [Observation(value, dict(labels)) for value, labels in self.source()]


def _gauge(name: str, what: str, labels: Labels | None = None) -> Gauge:
    gauge = Gauge(name)
    _meter.create_observable_gauge(
        _listed(name, "gauge", what, labels), callbacks=[gauge.read], description=what
    )
    return gauge


def _level(name: str, what: str, labels: Labels | None = None) -> metrics._Gauge:
    """As a gauge, but it is told its value when that is found."""
    return _meter.create_gauge(_listed(name, "gauge", what, labels), description=what)


HOW = ("own", "adopted", "spawned", "resumed")
TIERS = ("spare", "warm", "frozen", "starting")
ENDINGS = ("completed", "interrupted", "failed")
STAGES = ("accept", "queue", "process", "cli", "worker", "viewer")

# -- turns

ttft = _histogram(
    "warmwire_ttft_seconds",
    "Time to the first delta, by stage: `accept` from the request to JetStream's ack (edge), `queue` from "
    "the sending to the worker that begins it, `process` until a CLI process is there, `cli` from the "
    "message given to its first delta, `worker` the last two and what lies between, `viewer` from the "
    "request to the first delta on its way to the viewer (edge). `tier`, where known, says how the turn got "
    "its process.",
    TTFT_BUCKETS,
    {"stage": STAGES, "tier": HOW},
)
turns = _counter(
    "warmwire_turns_total",
    "Turns ended: at a worker those that it ran; at an edge those sent there, once it has seen the end.",
    {"ending": ENDINGS},
)
failures = _counter(
    "warmwire_turn_failures_total",
    "Turns that a worker ended as failed, by error code.",
    {"code": "[errors](errors.md)"},
)
takeovers = _counter(
    "warmwire_takeovers_total", "Sessions claimed from an owner that had not let go: it died."
)
fenced = _counter("warmwire_fenced_total", "Times that a worker held still because it did not hear itself.")
lost_sessions = _counter("warmwire_sessions_lost_total", "Sessions of a worker that another one has claimed.")

# -- processes

provided = _counter(
    "warmwire_processes_provided_total",
    "Turns that got a process: `own` (the session's), `adopted` (a spare: a hit), `spawned` (a new "
    "session without a spare: a miss), `resumed` (from the transcript).",
    {"how": HOW},
)
processes = _level(
    "warmwire_processes",
    "CLI processes of a worker; `starting` counts those that have not said a word yet.",
    {"tier": TIERS},
)
process_memory = _level(
    "warmwire_process_memory_bytes",
    "What a CLI process takes, with what it has started: mean PSS of a sample, taken every 10 s.",
)
spares_wanted = _level("warmwire_spares_wanted", "Spares that the recent rate of new sessions asks for.")
unknown_lines = _counter(
    "warmwire_unknown_lines_total",
    "Lines of a CLI whose type we do not know; they are passed over. Has it a newer version?",
)

# -- the way of a delta

deltas_sent = _tally("warmwire_events_sent_total", "Events that a worker has published.")
deltas_dropped = _tally(
    "warmwire_events_dropped_total", "Events that a worker could not publish; readers find the hole and ask."
)
delta_delay = _histogram(
    "warmwire_delta_delay_seconds",
    "What lies between two rounds of reading CLIs: what a delta waits at most; of one in 64 rounds.",
    DELAY_BUCKETS,
)
events_shown = _tally("warmwire_events_shown_total", "Events that an edge has given to connections.")
repairs = _tally("warmwire_repairs_total", "Holes and silences for which a session's owner was asked.")
gaps = _tally("warmwire_gaps_total", "Holes that could not be repaired: viewers were told a `gap`.")
rungs = _tallies(
    "warmwire_slow_viewers_total",
    "Viewers that did not keep up: their deltas were `merged`, they got a `snapshot`, or were `cut` off.",
    "rung",
    ("merged", "snapshot", "cut"),
)

# -- at the door

refusals = _counter(
    "warmwire_refusals_total", "Requests that an edge has refused.", {"kind": "[problems](http.md#problems)"}
)
viewers = _gauge("warmwire_viewers", "Connections of this edge that follow something.")
ready = _gauge("warmwire_ready", "1 while a message would be answered, as `/readyz` says.")
workers = _gauge("warmwire_workers", "Workers that this edge hears.", {"state": ("serving", "draining")})
free_slots = _gauge("warmwire_free_slots", "Turns that could begin at once, by the workers' heartbeats.")
running_turns = _gauge("warmwire_running_turns", "Turns that run, by the workers' heartbeats.")
sessions = _gauge("warmwire_sessions", "Sessions that have an owner, by the workers' heartbeats.")
queue_messages = _gauge("warmwire_queue_messages", "Messages that no worker has taken yet.")
queue_age = _gauge("warmwire_queue_age_seconds", "Age of the oldest message that no worker has taken yet.")

# -- each process

loop_lag = _histogram(
    "warmwire_loop_lag_seconds", "How late the event loop is for a timer; four times a second.", DELAY_BUCKETS
)
resident = _gauge("warmwire_resident_bytes", "Memory of this process (RSS), without its CLIs.")
nats_connected = _gauge("warmwire_nats_connected", "1 while the connection to NATS stands.")
nats_reconnects = _counter("warmwire_nats_reconnects_total", "Connections to NATS made again.")
nats_errors = _counter("warmwire_nats_errors_total", "Errors that the NATS client has reported.")
lease_renewals = _tally(
    "warmwire_lease_renewals_total",
    "In-progress acks: what keeps a message from being given to another worker.",
)
lease_failures = _tally("warmwire_lease_failures_total", "In-progress acks that could not be sent.")
heartbeats_missed = _tally("warmwire_heartbeats_missed_total", "Heartbeats that a worker could not send.")
alien = _counter(
    "warmwire_alien_messages_total", "Messages that could not be read: not ours, or of another version."
)


# -- traces


def tracer() -> trace.Tracer:
    """The tracer of all our spans."""
    return _tracer


def inject() -> dict[str, str]:
    """The current trace context as headers."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def extract(headers: Mapping[str, str]) -> Context:
    """The trace context that headers carry."""
    return propagate.extract(headers)


def traceparent_of(span: trace.Span) -> str | None:
    """The span as W3C ``traceparent``; None where there is no trace."""
    headers: dict[str, str] = {}
    propagate.inject(headers, trace.set_span_in_context(span))
    return headers.get("traceparent")


def link_to(traceparent: str | None) -> list[trace.Link]:
    """A link to the span that a ``traceparent`` names; none where it names none."""
    if traceparent is None:
        return []
    named = trace.get_current_span(extract({"traceparent": traceparent})).get_span_context()
    return [trace.Link(named)] if named.is_valid else []


def below(traceparent: str, span: int) -> str:
    """The ``traceparent`` of another span of the same trace."""
    version, trace_id, _, flags = traceparent.split("-", 3)
    return f"{version}-{trace_id}-{span:016x}-{flags}"


def new_span_id() -> int:
    """For a span whose children are told of it before it begins."""
    return random.getrandbits(64) or 1


@contextmanager
def span_id(chosen: int) -> Iterator[None]:
    """The spans that begin meanwhile, one at most, have this id; 0: one of their own."""
    token = told_span_id.set(chosen)
    try:
        yield
    finally:
        told_span_id.reset(token)


told_span_id: ContextVar[int] = ContextVar("told_span_id", default=0)


def exported(signal: str) -> bool:
    """Whether the standard ``OTEL_*`` variables say where that signal ("TRACES", "METRICS") is to be sent."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or os.environ.get(f"OTEL_{signal}_EXPORTER") == "none":
        return False
    return any(os.environ.get(f"OTEL_EXPORTER_OTLP_{kind}ENDPOINT") for kind in ("", f"{signal}_"))


def configure(service: str) -> None:
    """Export as the standard ``OTEL_*`` variables say; without an endpoint in them, nothing is loaded.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/
    """
    if exported("METRICS"):
        from warmwire.broker.exposition import begin  # noqa: PLC0415 - see above

        begin(service)
    if not exported("TRACES"):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - see above
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - see above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - see above
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - see above

    from warmwire.broker.span_ids import SpanIds  # noqa: PLC0415 - see above

    resource = Resource.create({"service.name": service})
    provider = TracerProvider(resource=resource, id_generator=SpanIds())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
