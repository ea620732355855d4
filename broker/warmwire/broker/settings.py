"""Settings that every role shares: where NATS is, who we are there, and how its streams are kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from warmwire.broker.nats.login import Login

_INBOX = re.compile(r"[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64}){0,3}\Z")


class BrokerSettings(BaseSettings):
    """Read from ``WARMWIRE_*`` environment variables; flags come from the same fields."""

    model_config = SettingsConfigDict(
        env_prefix="WARMWIRE_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    nats: str = Field(
        default="nats://127.0.0.1:4222",
        description="URL of the NATS server; several are separated by commas.",
    )
    nats_user: str | None = Field(
        default=None, description="User of NATS; its password is in --nats-password-file."
    )
    nats_password_file: Path | None = Field(
        default=None, description="File with the password of --nats-user, read anew for each connection."
    )
    nats_nkey_seed_file: Path | None = Field(
        default=None, description="File with the seed of an NKEY, instead of a user and a password."
    )
    nats_tls_ca: Path | None = Field(
        default=None,
        description="File with the certificates (PEM) that the NATS servers' are signed with. With it a "
        "server without TLS is not talked to.",
    )
    nats_tls_cert: Path | None = Field(
        default=None, description="File with our own certificate (PEM), where the NATS servers ask for one."
    )
    nats_tls_key: Path | None = Field(default=None, description="File with the key of that certificate.")
    nats_inbox_prefix: str | None = Field(
        default=None, description="Where answers over NATS come. Default: _INBOX_ and the role: _INBOX_edge."
    )
    prefix: str = Field(
        default="ww", description="First token of every NATS subject; also names the streams."
    )
    replicas: int = Field(
        default=1, ge=1, le=5, description="Copies of each stream: 1 on a single server, 3 in a cluster."
    )

    @field_validator("nats_inbox_prefix")
    @classmethod
    def _must_be_a_subject(cls, value: str | None) -> str | None:
        if value is not None and not _INBOX.match(value):
            raise ValueError("must be 1 to 4 words of A-Z a-z 0-9 _ - with dots between")
        return value

    @model_validator(mode="after")
    def _proof_is_whole(self) -> Self:
        if (self.nats_user is None) != (self.nats_password_file is None):
            raise ValueError("nats_user and nats_password_file go together")
        if self.nats_user is not None and self.nats_nkey_seed_file is not None:
            raise ValueError("nats_nkey_seed_file is set, and nats_user, too: one of them says who we are")
        if (self.nats_tls_cert is None) != (self.nats_tls_key is None):
            raise ValueError("nats_tls_cert and nats_tls_key go together")
        return self

    def login(self, role: str) -> Login:
        """How a process in that role shows itself to NATS."""
        return Login(
            self.nats_user,
            self.nats_password_file,
            self.nats_nkey_seed_file,
            self.nats_tls_ca,
            self.nats_tls_cert,
            self.nats_tls_key,
            self.nats_inbox_prefix or f"_INBOX_{role}",
        )
