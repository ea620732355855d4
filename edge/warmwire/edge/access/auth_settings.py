"""The edge's settings about who may do what."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from warmwire.broker.settings import BrokerSettings
from warmwire.broker.wire.names import NAME, NAME_LIMIT

KEY_SOURCES = ("jwt_secret_file", "jwt_public_key_file", "jwks_url", "jwks_file")
"""What tokens may be checked with; exactly one of these is set when authentication is on."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


class AuthSettings(BrokerSettings):
    """No secret is a flag, which every user of the machine could read: secrets are in files."""

    auth: Literal["off", "jwt"] = Field(
        default="off",
        description="Who is let in: off is everybody, on this machine only; jwt is who has a token.",
    )
    insecure_no_auth: bool = Field(
        default=False,
        description="Let everybody in who can reach this address, though it is not of loopback.",
    )
    jwt_secret_file: Path | None = Field(
        default=None, description="File with the secret of HS256 tokens, 32 bytes or more."
    )
    jwt_public_key_file: Path | None = Field(
        default=None, description="File with the public key (PEM) of RS256 or ES256 tokens."
    )
    jwks_url: str | None = Field(
        default=None,
        description="URL of the key set of RS256 and ES256 tokens.",
        json_schema_extra={"metavar": "URL"},
    )
    jwks_file: Path | None = Field(
        default=None, description="The same from a file, read again for an unknown key."
    )
    jwks_refresh: float = Field(
        default=30.0,
        gt=0,
        description="Seconds between two fetches of the key set, at least, whatever tokens name.",
    )
    jwt_audience: str | None = Field(default=None, description="What aud must be or hold; else not checked.")
    jwt_issuer: str | None = Field(default=None, description="What iss must be; else not checked.")
    jwt_tenant_claim: str = Field(default="tenant", description="The claim that names the tenant.")
    jwt_default_tenant: str | None = Field(
        default=None, description="The tenant of tokens that name none; else those are refused."
    )
    ticket_ttl: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="Seconds that a ticket for a stream of a browser is good for.",
    )
    allowed_origins: str = Field(
        default="",
        description="Origins whose pages may use the API, such as https://chat.example, separated by commas; "
        "else only pages of the edge itself.",
    )
    allowed_hosts: str = Field(
        default="",
        description="Names by which an edge without authentication may be asked for, beside localhost, "
        "its --host and IP addresses; separated by commas.",
    )

    @field_validator("jwks_url")
    @classmethod
    def _must_be_a_web_address(cls, value: str | None) -> str | None:
        if value is not None and not (urlsplit(value).scheme in _DEFAULT_PORTS and urlsplit(value).hostname):
            raise ValueError("must begin with https:// or http://; for a file there is jwks_file")
        return value

    @field_validator("jwt_default_tenant")
    @classmethod
    def _must_be_a_name(cls, value: str | None) -> str | None:
        if value is not None and not NAME.match(value):
            raise ValueError(f"must be 1 to {NAME_LIMIT} characters of A-Z a-z 0-9 _ -")
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _must_be_origins(cls, value: str) -> str:
        for origin in _listed(value):
            parts = urlsplit(origin)
            if parts.scheme not in _DEFAULT_PORTS or origin != f"{parts.scheme}://{parts.netloc}":
                raise ValueError(f"an origin looks like https://chat.example, {origin!r} does not")
        return value

    @model_validator(mode="after")
    def _keys_go_with_jwt(self) -> Self:
        given = [name for name in KEY_SOURCES if getattr(self, name) is not None]
        if self.auth == "jwt" and len(given) != 1:
            raise ValueError(f"auth jwt needs one of {', '.join(KEY_SOURCES)}, and no second one")
        if self.auth == "off" and given:
            raise ValueError(f"{given[0]} is set though auth is off: set auth to jwt")
        return self

    @property
    def origins(self) -> frozenset[str]:
        """``allowed_origins``, one by one."""
        return frozenset(origin.lower() for origin in _listed(self.allowed_origins))

    @property
    def hosts(self) -> frozenset[str]:
        """``allowed_hosts``, one by one."""
        return frozenset(host.lower() for host in _listed(self.allowed_hosts))


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
