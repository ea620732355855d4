"""Settings of the producer library, read from ``WARMWIRE_*`` environment variables."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from warmwire.broker.settings import BrokerSettings

MAX_MESSAGE_BYTES = 1024 * 1024
"""Bytes of UTF-8 in one user message, unless set otherwise."""


class ProducerSettings(BrokerSettings):
    """How a service publishes its chat requests."""

    max_message_bytes: int = Field(
        default=MAX_MESSAGE_BYTES, ge=1, description="Bytes in one user message, at most."
    )
    pool_public_key: str | None = Field(
        default=None, description="The pool's public key (`warmwire keygen` shows it), for users' own tokens."
    )
    credential_ttl: float = Field(
        default=3600.0,
        gt=0,
        description="Seconds after which the token that came with a message is of no use.",
    )
    turn_buffer_bytes: int = Field(
        default=4 * 1024 * 1024,
        ge=1024,
        description="Bytes of unread events kept per turn; past it the iteration ends and can be resumed.",
    )


class EdgeClientSettings(BaseSettings):
    """Where an edge is, for those who cannot reach NATS. Seconds throughout."""

    model_config = SettingsConfigDict(
        env_prefix="WARMWIRE_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    url: str = Field(default="http://127.0.0.1:8080", description="Where an edge listens.")
    access_token: SecretStr | None = Field(default=None, description="For an edge with authentication.")
    connect_within: float = Field(default=10.0, gt=0, description="In which a connection must be made.")
    silence: float = Field(
        default=60.0, gt=0, description="Without a byte, after which a connection counts as broken."
    )
    patience: float = Field(
        default=30.0, gt=0, description="For which a broken connection is made again, without anything new."
    )
    first_pause: float = Field(
        default=0.2, gt=0, description="Before the second try, at most; then it doubles."
    )
    longest_pause: float = Field(default=10.0, gt=0, description="Between two tries, at most.")

    @field_validator("url")
    @classmethod
    def _must_be_http(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/")
