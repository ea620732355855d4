"""The dialects that a worker knows, by the names that ``--dialect`` has for them. Pure."""

from __future__ import annotations

from warmwire.worker.claude_code import Claude
from warmwire.worker.dialect import Dialect
from warmwire.worker.stream_json import StreamJson

DIALECTS: dict[str, type[Dialect]] = {
    "claude": Claude,
    "stream-json": StreamJson,
}
