"""Settings of the producer library, read from ``WARMWIRE_*`` environment variables."""

from __future__ import annotations

from pydantic import Field

from warmwire.broker.settings import BrokerSettings

MAX_MESSAGE_BYTES = 1024 * 1024
"""Bytes of UTF-8 in one user message, unless set otherwise."""


class ProducerSettings(BrokerSettings):
    """How a service publishes its chat requests."""

    max_message_bytes: int = Field(MAX_MESSAGE_BYTES, ge=1, description="Bytes in one user message, at most.")
    pool_public_key: str | None = Field(
        None, description="The pool's public key (`warmwire keygen` shows it), for users' own tokens."
    )
    credential_ttl: float = Field(
        3600.0, gt=0, description="Seconds after which the token that came with a message is of no use."
    )
    turn_buffer_bytes: int = Field(
        4 * 1024 * 1024,
        ge=1024,
        description="Bytes of unread events kept per turn; past it the iteration ends and can be resumed.",
    )
