"""The edge's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.sealed import SealingKey
from warmwire.edge.access.auth_settings import AuthSettings
from warmwire.edge.access.tenants import SESSIONS, TenantLimits
from warmwire.producer.settings import MAX_MESSAGE_BYTES


class EdgeSettings(AuthSettings):
    """Read from ``WARMWIRE_*`` environment variables; flags come from the same fields."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    max_message_bytes: int = Field(
        default=MAX_MESSAGE_BYTES, ge=1, description="Bytes of UTF-8 in one user message, at most."
    )
    viewer_bytes: int = Field(
        default=256 * 1024,
        ge=1024,
        description="Bytes that may wait for one viewer; past it, it is sent a snapshot when it reads again.",
    )
    viewer_patience: float = Field(
        default=120.0,
        gt=0,
        description="Seconds after which a viewer that reads nothing is disconnected; it may resume.",
    )
    max_age: float = Field(
        default=900.0,
        gt=0,
        description="Seconds, give or take a fifth, after which viewers other than of a POST connect again.",
    )
    disconnect_grace: float = Field(
        default=5.0,
        ge=0,
        description="Seconds without any viewer after which a turn with on_disconnect: cancel is stopped.",
    )
    pool_public_key: str | None = Field(
        default=None,
        description="The pool's public key (`warmwire keygen` shows it), for users' own tokens in "
        "X-Warmwire-Token.",
        json_schema_extra={"may_be_secret": True},  # the private one in the wrong place
    )
    credential_ttl: float = Field(
        default=3600.0,
        gt=0,
        description="Seconds after which the token that came with a message is of no use any more.",
    )
    keepalive: float = Field(
        default=15.0,
        gt=0,
        description="Seconds of silence after which a comment is sent, so that proxies keep the line.",
    )
    drain_timeout: float = Field(
        default=10.0,
        ge=0,
        description="Seconds that streams may go on after SIGTERM before viewers are sent elsewhere.",
    )

    admission: Literal["queue", "reject"] = Field(
        default="queue",
        description="What a message meets when no worker has a free slot: queue waits, reject answers 503.",
    )
    subject_rate: float = Field(
        default=0.0, ge=0, description="Requests per second of one subject, over all edges; 0: any number."
    )
    tenant_rate: float = Field(
        default=0.0, ge=0, description="Requests per second of one tenant, over all edges; 0: any number."
    )
    rate_burst: float = Field(
        default=10.0, gt=0, description="Seconds of its rate that a caller may use up in one moment."
    )
    subject_streams: int = Field(
        default=0,
        ge=0,
        description="Streams and WebSockets of one subject at a time, at each edge; 0: any number.",
    )
    tenant_turns: int = Field(
        default=0,
        ge=0,
        description="Turns of one tenant that may wait or run, over all edges; 0: any number.",
    )
    tenant_sessions: int = Field(
        default=0,
        ge=0,
        le=SESSIONS,
        description="Sessions of one tenant that are kept; 0: any number.",
    )
    tenants: Path | None = Field(
        default=None,
        description="TOML file with a table for each tenant whose rate, turns or sessions are not those of "
        "--tenant-rate, --tenant-turns and --tenant-sessions.",
    )
    max_connections: int = Field(
        default=10_000,
        ge=1,
        description="Connections of one edge process; past it, 503 for all but health checks.",
    )
    max_header_bytes: int = Field(
        default=64 * 1024, ge=1024, description="Bytes of a request's first line and headers, at most."
    )
    header_timeout: float = Field(
        default=10.0, gt=0, description="Seconds in which a request's headers must come."
    )
    body_timeout: float = Field(
        default=60.0, gt=0, description="Seconds in which a request's body must come."
    )
    idle_timeout: float = Field(
        default=75.0,  # longer than the 60 after which most balancers let go of theirs
        gt=0,
        description="Seconds that a connection is kept between two requests.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port for GET /metrics alone, without authentication. Default: none.",
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address on which --metrics-port listens.")
    silent_timeout: float = Field(
        default=300.0,
        gt=0,
        description="Seconds after which a WebSocket is closed on which nothing was ever asked.",
    )

    @property
    def tenant_limits(self) -> TenantLimits:
        """Of a tenant that the file does not name."""
        return TenantLimits(rate=self.tenant_rate, turns=self.tenant_turns, sessions=self.tenant_sessions)

    @field_validator("pool_public_key")
    @classmethod
    def _must_be_a_public_key(cls, value: str | None) -> str | None:
        try:
            return None if value is None else str(SealingKey.parse(value))
        except BadInput as error:
            raise ValueError(error.problem) from None
