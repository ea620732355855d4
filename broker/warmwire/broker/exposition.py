"""This process's instruments for Prometheus, and a small HTTP server that shows them.

OpenTelemetry's own exporter for Prometheus renames instruments and puts its scope on each series; here a name
in the documentation is the name that is scraped. The text is written here, too: while that is done no delta
goes on, and with prometheus_client it took five times as long. Loaded only where metrics are asked for.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from resource import getpagesize

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    Histogram,
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    MetricReader,
    NumberDataPoint,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource

from warmwire.broker import telemetry
from warmwire.broker.errors import Misconfigured
from warmwire.broker.logs import logger

log = logger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LAG_EVERY = 0.25
"""Seconds between two looks at how late the event loop is."""
REQUEST_BYTES = 8 * 1024
"""Bytes that a request for metrics may have; past it the connection is closed."""
REQUEST_WITHIN = 5.0
"""Seconds in which it must be here and be answered."""
HISTOGRAMS = 256
"""Series of histograms whose text is kept; that of others is made anew."""
AT_ONCE = 16
"""Requests for metrics that are answered at a time; more are closed unheard."""

_begun: list[InMemoryMetricReader] = []


def begin(service: str) -> None:
    """Count from now on. A process has one provider: who asks again changes nothing."""
    if _begun:
        return
    _begun.append(InMemoryMetricReader())
    readers: list[MetricReader] = [*_begun]
    if telemetry.exported("METRICS"):
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415 - only where it is used
            OTLPMetricExporter,
        )
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415 - the same

        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
    metrics.set_meter_provider(MeterProvider(readers, Resource.create({"service.name": service})))
    telemetry.resident.source = _resident
    telemetry.from_zero()


def text() -> bytes:
    """All our instruments in Prometheus's text format.

    Those of libraries go to OTLP only: a dot in one name, and Prometheus refuses the whole text.
    """
    lines: list[str] = []
    for reader in _begun:
        data = reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in filter(_ours, resource.scope_metrics):
                for metric in scope.metrics:
                    lines += _family(metric)
    return "".join(lines).encode()


def _ours(instruments: ScopeMetrics) -> bool:
    return instruments.scope.name == telemetry.SCOPE


def _family(metric: Metric) -> Iterator[str]:
    name = metric.name
    yield f"# HELP {name} {_one_line(metric.description or '')}\n# TYPE {name} {_kind(metric)}\n"
    for point in metric.data.data_points:
        labels = _labels(point.attributes or {})
        if isinstance(point, HistogramDataPoint):
            yield from _histogram(name, labels, point)
        elif isinstance(point, NumberDataPoint):
            yield f"{name}{_braced(labels)} {_number(point.value)}\n"


def _kind(metric: Metric) -> str:
    if isinstance(metric.data, Histogram):
        return "histogram"
    return "counter" if isinstance(metric.data, Sum) and metric.data.is_monotonic else "gauge"


def _histogram(name: str, labels: str, point: HistogramDataPoint) -> Iterator[str]:
    """OpenTelemetry counts what falls into each bucket, Prometheus what lies below each bound."""
    heads = _heads(name, labels, tuple(point.explicit_bounds))
    for head, count in zip(heads, accumulate(point.bucket_counts), strict=True):
        yield f"{head}{count}\n"
    yield f"{name}_count{_braced(labels)} {point.count}\n"
    yield f"{name}_sum{_braced(labels)} {_number(point.sum)}\n"


@lru_cache(HISTOGRAMS)
def _heads(name: str, labels: str, bounds: tuple[float, ...]) -> tuple[str, ...]:
    """What stands before each bucket's count: most of the text, and the same each time."""
    before = f"{labels}," if labels else ""
    return tuple(
        f'{name}_bucket{{{before}le="{bound}"}} ' for bound in [*map(repr, map(float, bounds)), "+Inf"]
    )


def _labels(attributes: Mapping[str, object]) -> str:
    return ",".join(f'{name}="{_quoted(str(value))}"' for name, value in sorted(attributes.items()))


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _one_line(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _one_line(text).replace('"', r"\"")


def _number(value: float) -> str:
    """What is infinite or no number the SDK has left out; ``+`` makes a number of what is true."""
    return repr(+value)


def _resident() -> telemetry.Reading:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return [(pages * getpagesize(), {})]


async def watch_lag() -> None:
    """Measure, for ever, how late this loop is."""
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + LAG_EVERY
        await asyncio.sleep(LAG_EVERY)
        telemetry.loop_lag.record(max(0.0, clock() - due))


class Exposed:
    """``GET /metrics`` on a port of its own. ``start`` it, and ``stop`` it.

    ``refresh`` is awaited before each answer: what has to be asked for is asked for only then.
    """

    def __init__(
        self, host: str, port: int, service: str, refresh: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._host = host
        self._port = port
        self._refresh = refresh
        self._server: asyncio.Server | None = None
        self._open = 0
        begin(service)

    async def start(self) -> None:
        """Listen. Raises Misconfigured."""
        try:
            self._server = await asyncio.start_server(
                self._answer, self._host, self._port, limit=REQUEST_BYTES
            )
        except OSError as error:
            raise Misconfigured(
                f"cannot listen on {self._host} port {self._port} (--metrics-port): {error.strerror}"
            ) from error
        log.info("metrics are shown", host=self._host, port=self.port)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None  # noqa: S101 - it has been started
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= AT_ONCE:
                async with asyncio.timeout(REQUEST_WITHIN):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await self._response(head))
                    await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            log.debug("a request for metrics was none", error=type(error).__name__)
        finally:
            self._open -= 1
            writer.close()

    async def _response(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.split(b" ", 1)[0].partition(b"?")[0]
        if method != b"GET" or path != b"/metrics":
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        if self._refresh is not None:
            await self._refresh()
        body = text()
        names = {"Content-Type": CONTENT_TYPE, "Content-Length": str(len(body)), "Connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in names.items())
        return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + body
