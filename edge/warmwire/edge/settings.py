"""The edge's settings."""

from __future__ import annotations

from pydantic import Field

from warmwire.broker.settings import BrokerSettings
from warmwire.producer.settings import MAX_MESSAGE_BYTES


class EdgeSettings(BrokerSettings):
    """Read from ``WARMWIRE_*`` environment variables; flags come from the same fields."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    max_message_bytes: int = Field(
        MAX_MESSAGE_BYTES, ge=1, description="Bytes of UTF-8 in one user message, at most."
    )
    viewer_bytes: int = Field(
        256 * 1024,
        ge=1024,
        description="Bytes that may wait for one viewer; past it the viewer is disconnected and may resume.",
    )
    keepalive: float = Field(
        15.0,
        gt=0,
        description="Seconds of silence after which a comment is sent, so that proxies keep the line.",
    )
    drain_timeout: float = Field(
        10.0,
        ge=0,
        description="Seconds that streams may go on after SIGTERM before viewers are sent elsewhere.",
    )
