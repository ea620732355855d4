"""The dialects that a worker knows, by the names that ``--dialect`` has for them. Pure."""

from __future__ import annotations

from warmwire.worker.cli.claude_code import Claude
from warmwire.worker.cli.dialect import Dialect
from warmwire.worker.cli.stream_json import StreamJson

DIALECTS: dict[str, type[Dialect]] = {
    "claude": Claude,
    "stream-json": StreamJson,
}
