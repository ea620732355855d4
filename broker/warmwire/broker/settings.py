"""Settings that every role shares: where NATS is and how its streams are kept."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class BrokerSettings(BaseSettings):
    """Read from ``WARMWIRE_*`` environment variables; flags come from the same fields."""

    model_config = SettingsConfigDict(
        env_prefix="WARMWIRE_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    nats: str = Field(
        "nats://127.0.0.1:4222", description="URL of the NATS server; several are separated by commas."
    )
    prefix: str = Field("ww", description="First token of every NATS subject; also names the streams.")
    replicas: int = Field(
        1, ge=1, le=5, description="Copies of each stream: 1 on a single server, 3 in a cluster."
    )
