"""What of the CLI's words is too large for one event, and what viewers hear of its tools. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from warmwire.broker.wire.events import ToolFinished, ToolStarted
from warmwire.worker.cli.said import ToolResult, ToolUse

DELTA_LIMIT = 128 * 1024
"""Bytes of one delta event; a larger one becomes several."""
EVENT_LIMIT = 512 * 1024
"""Bytes of any other event; a larger one is not published, for a NATS server would refuse it."""
SUMMARY_LIMIT = 500
"""Characters of a tool's input or output that are published."""

_PARTS = ("text", "thinking", "partial_json")
"""The fields of a delta that readers join, so that it may be cut there."""


class _Start(msgspec.Struct, gc=False):
    """The fields of a ``message_start`` event that are used here."""

    message: _Message


class _Message(msgspec.Struct, gc=False):
    id: str = ""


_starts = msgspec.json.Decoder(_Start)
_objects = msgspec.json.Decoder(dict[str, object])


def message_id(event: bytes) -> str:
    """The message that a ``message_start`` begins."""
    try:
        return _starts.decode(event).message.id
    except msgspec.DecodeError:
        return ""  # of a shape that we do not know


def fitting(event: bytes) -> list[bytes]:
    """A very large event as several that may be published; none, if there is no way to cut it."""
    whole = _objects.decode(event)
    given = whole.get("delta")
    delta = given if isinstance(given, dict) else {}
    for field in _PARTS:
        if isinstance(text := delta.get(field), str):
            return [msgspec.json.encode({**whole, "delta": {**delta, field: part}}) for part in _cut(text)]
    return [event] if len(event) <= EVENT_LIMIT else []


def _cut(text: str) -> list[str]:
    step = DELTA_LIMIT // 8  # characters; one may take six bytes as an escape
    return [text[start : start + step] for start in range(0, len(text), step)]


def tools_started(turn: str, tools: Iterable[ToolUse]) -> list[ToolStarted]:
    """What viewers hear of the tools that the model asks for."""
    return [ToolStarted(turn=turn, name=t.name, id=t.id, summary=summary(t.input)) for t in tools]


def tools_finished(turn: str, results: Iterable[ToolResult]) -> list[ToolFinished]:
    """What viewers hear of the tools that came back."""
    return [
        ToolFinished(turn=turn, id=r.tool_use_id, is_error=r.is_error, summary=summary(r.content))
        for r in results
    ]


def summary(raw: bytes) -> str:
    """The beginning of some JSON, for people. A character has 4 bytes at most."""
    return raw[: 4 * SUMMARY_LIMIT].decode(errors="replace")[:SUMMARY_LIMIT]
