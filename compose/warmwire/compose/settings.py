"""Settings of `warmwire up`; its flags, its variables and its page in the reference come from this class."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def state_folder() -> Path:
    """Where a user's programs keep what must outlive them (XDG base directories)."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "warmwire"


class UpSettings(BaseSettings):
    """How many of what to start, and where."""

    model_config = SettingsConfigDict(
        env_prefix="WARMWIRE_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    host: str = Field(default="127.0.0.1", description="Address that the edges listen on.")
    port: int = Field(
        default=8080, ge=0, le=65535, description="Port that the edges listen on; 0 takes a free one."
    )
    data: Path = Field(
        default_factory=state_folder,
        description="Folder for everything that is kept.",
        json_schema_extra={"default": "~/.local/state/warmwire"},
    )
    nats: str | None = Field(
        default=None,
        description="URL of a running NATS with JetStream instead of the embedded one; several with commas.",
        json_schema_extra={"metavar": "URL"},
    )
    nats_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port of the embedded NATS, for services of yours; 0 takes a free one.",
    )
    workers: int = Field(default=1, ge=1, le=64, description="Worker processes.")
    edges: int = Field(default=1, ge=1, le=64, description="Edge processes; they share the port.")
    cli: str = Field(
        default="emulator",
        description="What answers: emulator, claude, or a command line in the dialect of claude.",
        json_schema_extra={"metavar": "emulator|claude|COMMAND"},
    )
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65000,
        description="Port for the first worker's metrics; the next are for the others, then for the edges, "
        "which show theirs at /metrics, too. Default: none.",
    )
    insecure_no_auth: bool = Field(
        default=False, description="Let everybody in who can reach --host, though it is not of loopback."
    )
    start_timeout: float = Field(
        default=60, gt=0, description="Seconds from start to ready; then `up` gives up."
    )
    stop_timeout: float = Field(
        default=45, gt=0, description="Seconds that each role gets to end in order; then it is killed."
    )

    @field_validator("data")
    @classmethod
    def _data_is_somewhere(cls, value: Path) -> Path:
        """Absolute: it is handed to other processes. A shell leaves the ~ in `--data=~/folder` to us."""
        return value.expanduser().absolute()

    @field_validator("nats")
    @classmethod
    def _must_be_nats_urls(cls, value: str | None) -> str | None:
        for part in (value or "").split(","):
            if value is not None and not _is_nats_url(part.strip()):
                raise ValueError("a NATS URL looks like nats://host:4222")
        return value


def _is_nats_url(text: str) -> bool:
    url = urlsplit(text if "://" in text else f"nats://{text}")
    try:
        return url.scheme in {"nats", "tls", "ws", "wss"} and bool(url.hostname) and url.port != 0
    except ValueError:  # the port is no number
        return False
