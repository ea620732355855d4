"""Events that this worker makes itself, in the CLI's place or about it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from warmwire.broker.wire.events import ToolFinished, ToolStarted
from warmwire.worker.cli.said import StreamEvent, ToolResult, ToolUse

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


def message_id(event: bytes) -> str:
    """The message that a ``message_start`` begins."""
    try:
        return _starts.decode(event).message.id
    except msgspec.DecodeError:
        return ""  # of a shape that we do not know


def fitting(event: bytes) -> list[bytes]:
    """A very large event as several that may be published; none, if there is no way to cut it."""
    whole = msgspec.json.decode(event)
    delta = whole.get("delta")
    field = next(
        (name for name in _PARTS if isinstance(delta, dict) and isinstance(delta.get(name), str)), None
    )
    if field is None:
        return [event] if len(event) <= EVENT_LIMIT else []
    step = DELTA_LIMIT // 8  # characters; one may take six bytes as an escape
    parts = [delta[field][start : start + step] for start in range(0, len(delta[field]), step)]
    return [msgspec.json.encode({**whole, "delta": {**delta, field: part}}) for part in parts]


def unstreamed(message_id: str, text: str) -> list[StreamEvent]:
    """The streaming events of a message that the CLI got in one piece, as it does on its last retry."""
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    start = {"type": "message_start", "message": {"id": message_id, "type": "message", "role": "assistant"}}
    stop = {"type": "content_block_stop", "index": 0}
    events = (start, block, delta, stop, {"type": "message_delta", "delta": {}}, {"type": "message_stop"})
    return [StreamEvent(msgspec.json.encode(event), str(event["type"])) for event in events]


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
