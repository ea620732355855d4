"""The worker's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, field_validator

from warmwire.broker.settings import BrokerSettings
from warmwire.worker.cli.dialects import DIALECTS


class WorkerSettings(BrokerSettings):
    """Read from ``WARMWIRE_*`` environment variables; flags come from the same fields."""

    cli: str = Field(
        default="emulator",
        description="The CLI to run: 'emulator' (a stand-in without a model), 'claude', or a command line "
        "that speaks the same dialect.",
    )
    dialect: str = Field(
        default="claude",
        description=f"What --cli speaks: {' or '.join(DIALECTS)}.",
        json_schema_extra={"metavar": "|".join(DIALECTS)},
    )
    data: Path = Field(default=Path("warmwire-data"), description="Folder for the sessions' home folders.")
    max_turns_at_once: int | None = Field(
        default=None,
        ge=1,
        validation_alias=AliasChoices("WARMWIRE_MAX_TURNS", "max_turns_at_once"),
        description="Turns that run at once. Default: 300 with the emulator, by cores and memory otherwise.",
    )
    max_sessions: int | None = Field(
        default=None,
        ge=1,
        description="Sessions with a warm process. Default: as many as half the memory holds.",
    )
    spares: int = Field(
        default=1,
        ge=0,
        le=64,
        description="Processes that are started ahead of the sessions that will need them.",
    )
    max_spares: int = Field(
        default=8,
        ge=0,
        le=64,
        description="The most processes that are started ahead. When many sessions begin there are as "
        "many as begin while one becomes ready.",
    )
    freeze_after: float = Field(
        default=60.0,
        ge=0,
        description="Seconds after its last turn at which a session's process is stopped (SIGSTOP) until the "
        "next message.",
    )
    park_after: float = Field(
        default=1800.0,
        gt=0,
        description="Seconds after its last turn at which a session's process is ended; the next message "
        "starts one from the transcript.",
    )
    drain_timeout: float = Field(
        default=30.0,
        ge=0,
        description="Seconds that running turns may go on after SIGTERM before they are handed over.",
    )
    cli_traces: str | None = Field(
        default=None,
        pattern=r"^https?://[^@\s]+$",
        description="Address of an OTLP/HTTP collector, without credentials: a Claude Code that is started "
        "for a turn sends it spans of its own, within the turn's trace. Default: none.",
    )
    stall_timeout: float = Field(
        default=300.0,
        gt=0,
        description="Seconds of silence of a CLI within a turn after which it is stopped.",
    )
    pool_key_file: Path | None = Field(
        default=None,
        description="File with the pool's private keys, one a line, for users' own tokens; `warmwire keygen` "
        "makes one.",
    )
    profiles: Path | None = Field(
        default=None,
        description="TOML file with the profiles that sessions may name: what they may do, and use.",
    )
    sandbox: Literal["none", "bwrap"] = Field(
        default="none",
        description="Where CLIs run: 'none', or 'bwrap' (bubblewrap), where they can write to their own "
        "folders alone. A profile may say otherwise.",
    )
    permission_timeout: float = Field(
        default=60.0, gt=0, le=86400, description="Seconds that people have to allow a tool; then it is no."
    )
    control_group: bool = Field(
        default=True,
        description="Take a control group of its own, where that is allowed: the surest way to leave nothing "
        "behind.",
    )
    cli_memory_mb: int | None = Field(
        default=None,
        ge=64,
        description="MB of data that each process of a CLI may have; Claude Code reserves more than it uses "
        "and needs 4096. Default: no limit.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port for GET /metrics alone, without authentication. Default: none.",
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address on which --metrics-port listens.")
    send_window_ms: float = Field(
        default=4.0,
        ge=0,
        le=100,
        description="Milliseconds between two rounds of reading CLIs: deltas share their way; 0: none.",
    )

    @field_validator("dialect")
    @classmethod
    def _must_be_known(cls, value: str) -> str:
        if value not in DIALECTS:
            raise ValueError(f"must be {' or '.join(DIALECTS)}")
        return value

    @property
    def hidden(self) -> tuple[Path | None, ...]:
        """Files that nobody reads in the sandbox."""
        ours = (self.pool_key_file, self.profiles)
        return (*ours, self.nats_password_file, self.nats_nkey_seed_file, self.nats_tls_key)
