"""What each tenant may have: the flags say it for all, a file for those that it names."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.names import NAME

SESSIONS = 10_000
"""Sessions that a tenant may be limited to, at most: they are counted by name."""
FILE_BYTES = 1024 * 1024
NAMED = 10_000
"""Tenants in a file."""


class TenantLimits(BaseModel):
    """Of one tenant, over all edges. 0 is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    rate: float = Field(default=0.0, ge=0)
    """Requests per second."""
    turns: int = Field(default=0, ge=0)
    """Turns that wait or run."""
    sessions: int = Field(default=0, ge=0, le=SESSIONS)
    """Conversations that are kept."""


@dataclass(frozen=True)
class Tenants:
    """The limits of those that a file names, and of all others."""

    others: TenantLimits
    named: Mapping[str, TenantLimits]

    def of(self, tenant: str) -> TenantLimits:
        """What that tenant may have."""
        return self.named.get(tenant, self.others)


def load(path: Path | None, others: TenantLimits) -> Tenants:
    """A TOML file with a table for each tenant; what a table leaves out is as for all others.

    Raises:
        BadInput: naming the file, the tenant and the field.
    """
    tables = _tables(path) if path is not None else {}
    return Tenants(others, {name: _limits(path, name, table, others) for name, table in tables.items()})


def _tables(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES + 1)
        tables = tomllib.loads(data.decode())
    except OSError as error:
        raise BadInput("tenants", f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput("tenants", f"{path} is not TOML: {error}") from None
    if len(data) > FILE_BYTES or len(tables) > NAMED:
        raise BadInput("tenants", f"{path} is longer than {FILE_BYTES} bytes, or {NAMED} tenants")
    return tables


def _limits(path: Path | None, name: str, table: object, others: TenantLimits) -> TenantLimits:
    where = f"{path}: {name}"
    if not NAME.match(name):
        raise BadInput("tenants", f"{where}: a tenant has 1 to 64 characters of A-Z a-z 0-9 _ -")
    if not isinstance(table, dict):
        raise BadInput("tenants", f"{where} must be a table: [{name}]")
    try:
        return TenantLimits.model_validate(others.model_dump() | table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        problem = "is not known" if first["type"] == "extra_forbidden" else first["msg"]
        raise BadInput("tenants", f"{where}.{'.'.join(map(str, first['loc']))}: {problem}") from None
