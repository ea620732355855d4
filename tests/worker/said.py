"""What a CLI says in a turn, parsed: the shortest lines that mean it."""

from __future__ import annotations

import json

from warmwire.worker.cli.said import Assistant, Line, Mirror, Result, StreamEvent, Usage
from warmwire.worker.errors import ErrorCode


def event(type_: str, **fields: object) -> StreamEvent:
    return StreamEvent(json.dumps({"type": type_, **fields}, separators=(",", ":")).encode(), type_)


def message_start(message: str) -> StreamEvent:
    return event("message_start", message={"id": message})


def block_start(kind: str = "text", index: int = 0) -> StreamEvent:
    return event("content_block_start", index=index, content_block={"type": kind, "text": ""})


def delta(text: str, index: int = 0) -> StreamEvent:
    return event("content_block_delta", index=index, delta={"type": "text_delta", "text": text})


def thought(text: str, index: int = 0) -> StreamEvent:
    return event("content_block_delta", index=index, delta={"type": "thinking_delta", "thinking": text})


def message_end() -> list[Line]:
    """The end of a whole message; one that is cut off has no ``message_delta``."""
    return [event("content_block_stop", index=0), event("message_delta", delta={}), event("message_stop")]


def message(name: str, *texts: str) -> list[Line]:
    """A whole streamed message."""
    said = [message_start(name), block_start(), *map(delta, texts)]
    return [*said, Assistant(name, "".join(texts)), *message_end()]


def prompt_entry(uuid: str, text: str) -> bytes:
    return json.dumps({"type": "user", "uuid": uuid, "message": {"role": "user", "content": text}}).encode()


def answer_entry(name: str, text: str, *, model: str = "m", sidechain: bool = False) -> bytes:
    content = [{"type": "text", "text": text}]
    said = {"id": name, "model": model, "role": "assistant", "content": content}
    return json.dumps({"type": "assistant", "isSidechain": sidechain, "message": said}).encode()


def mirror(*entries: bytes, file: str = "/home/t.jsonl") -> Mirror:
    return Mirror(file, entries)


def result(
    *uuids: str, error: ErrorCode | None = None, interrupted: bool = False, detail: str = ""
) -> Result:
    ending = "interrupted" if interrupted else "failed" if error else "completed"
    return Result(
        ending=ending,  # type: ignore[arg-type]  # mypy makes a str of the conditional expression
        error=error,
        detail=detail,
        text="",
        stop_reason=None if error or interrupted else "end_turn",
        usage=Usage(input_tokens=3, output_tokens=5),
        cost_usd=0.25,
        session_id="cli",
        message_uuids=uuids,
    )
