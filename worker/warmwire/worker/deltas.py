"""Streaming events that this worker makes itself, in the CLI's place. Pure."""

from __future__ import annotations

import msgspec

from warmwire.worker.claude import StreamEvent

DELTA_LIMIT = 128 * 1024
"""Bytes of one delta event; a larger text delta becomes several."""


def split_delta(event: bytes) -> list[bytes]:
    """A very large text delta as several; any other event as it is."""
    whole = msgspec.json.decode(event)
    text = whole.get("delta", {}).get("text")
    if not isinstance(text, str):
        return [event]
    step = DELTA_LIMIT // 8  # characters; one may take six bytes as an escape
    parts = [text[start : start + step] for start in range(0, len(text), step)]
    return [msgspec.json.encode({**whole, "delta": {**whole["delta"], "text": part}}) for part in parts]


def unstreamed(message_id: str, text: str) -> list[StreamEvent]:
    """The streaming events of a message that the CLI got in one piece, as it does on its last retry."""
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    start = {"type": "message_start", "message": {"id": message_id, "type": "message", "role": "assistant"}}
    stop = {"type": "content_block_stop", "index": 0}
    events = (start, block, delta, stop, {"type": "message_delta", "delta": {}}, {"type": "message_stop"})
    return [StreamEvent(msgspec.json.encode(event), str(event["type"])) for event in events]
