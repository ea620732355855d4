"""Ids of spans. Loaded only where traces are exported: it needs the SDK."""

from __future__ import annotations

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from warmwire.broker.telemetry import told_span_id


class SpanIds(RandomIdGenerator):
    """Random ones, but for spans whose id somebody has been told before: see ``telemetry.span_id``."""

    def generate_span_id(self) -> int:
        """The next span's."""
        return told_span_id.get() or super().generate_span_id()
