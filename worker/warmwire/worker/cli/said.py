"""What a line of a CLI's stdout can mean, whatever its dialect: frozen values."""

from __future__ import annotations

from typing import Literal

import msgspec

from warmwire.worker.cli.lines import HEAD, LineTooLong
from warmwire.worker.errors import ErrorCode

# RecursionError is what a line nested a thousand deep raises, UnicodeDecodeError what is not UTF-8.
UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
_OBJECT = msgspec.json.Decoder(dict[str, object])


class _Value(msgspec.Struct, frozen=True):
    """A frozen value; a msgspec struct because it is made several times faster than a dataclass."""


class StreamEvent(_Value, frozen=True):
    """An event of the Messages API, byte for byte; `parent_tool_use_id` is set on those of a sub-agent."""

    event: bytes
    type: str
    parent_tool_use_id: str | None = None


class Init(_Value, frozen=True):
    """A turn begins. It comes with each turn, after the user message: not a sign of readiness."""

    session_id: str
    model: str
    version: str


class Lifecycle(_Value, frozen=True):
    """What became of the user message with this uuid: queued, started, completed, cancelled.

    The last two come after the `Result`; only a message cancelled before it began has none.
    """

    message_uuid: str
    state: str


class Retry(_Value, frozen=True):
    """The API call failed and is repeated: partial text of this message is void."""

    attempt: int
    status: int | None  # that the API gave, if it answered


class ToolUse(_Value, frozen=True):
    """A tool that the model asks for; `input` is JSON."""

    id: str
    name: str
    input: bytes


class ToolResult(_Value, frozen=True):
    """What a tool gave back; `content` is JSON, a string or a list of blocks."""

    tool_use_id: str
    is_error: bool
    content: bytes


class Assistant(_Value, frozen=True):
    """A finished block of an answer. It repeats the deltas, or is all there is where nothing was streamed.

    `synthetic`: written by the CLI itself in place of an answer (an API error, say); no model said it.
    """

    message_id: str
    text: str
    tools: tuple[ToolUse, ...] = ()
    synthetic: bool = False
    parent_tool_use_id: str | None = None


class ToolResults(_Value, frozen=True):
    """Tools have finished."""

    results: tuple[ToolResult, ...]
    parent_tool_use_id: str | None = None


class Mirror(_Value, frozen=True):
    """New entries of the transcript, each as it came. Written one per line they resume the session."""

    file: str
    entries: tuple[bytes, ...]


class Usage(_Value, frozen=True):
    """Tokens of one turn."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0


Ending = Literal["completed", "interrupted", "failed"]


class Result(_Value, frozen=True):
    """The end of a turn; the transcript on disk and the mirror are complete when it comes."""

    ending: Ending
    error: ErrorCode | None = None  # set exactly when failed
    detail: str = ""  # what the CLI says about the failure, for people
    text: str = ""  # the last message's text
    stop_reason: str | None = None
    usage: Usage = Usage()
    cost_usd: float = 0.0  # of this turn
    api_status: int | None = None
    session_id: str = ""
    message_uuids: tuple[str, ...] = ()  # the user messages that it answers; empty: whichever it has


class ControlReply(_Value, frozen=True):
    """The answer to a control request of ours; `response` is JSON (b"" without one)."""

    request_id: str
    ok: bool
    error: str = ""
    response: bytes = b""


class ControlRequest(_Value, frozen=True):
    """The CLI asks (may it use this tool?) and waits for the answer; `request` is JSON."""

    request_id: str
    subtype: str
    request: bytes


class Withdrawn(_Value, frozen=True):
    """The CLI wants no answer to that `ControlRequest` any more."""

    request_id: str


class Wish(_Value, frozen=True):
    """A tool that the CLI would use if it is allowed to; `input` is JSON."""

    tool: str
    input: bytes

    def shown(self) -> dict[str, object] | None:
        """The input; None if it is no object."""
        try:
            return _OBJECT.decode(self.input)
        except UNREADABLE:
            return None


class Ignored(_Value, frozen=True):
    """A line of no importance; `type` is its type, with its subtype after a slash. `unknown`: to us."""

    type: str
    unknown: bool = False


class BadLine(_Value, frozen=True):
    """A line that cannot be understood; `head` is its beginning."""

    code: ErrorCode
    reason: str
    head: bytes


Control = ControlReply | ControlRequest | Withdrawn
Line = (
    StreamEvent
    | Init
    | Lifecycle
    | Retry
    | Assistant
    | ToolResults
    | Mirror
    | Result
    | ControlReply
    | ControlRequest
    | Withdrawn
    | Ignored
    | BadLine
)


def unreadable(line: bytes, error: Exception) -> Ignored | BadLine:
    """What a line means that raised this one of ``UNREADABLE``."""
    if not line.strip():
        return Ignored("")
    code = ErrorCode.LINE_TOO_LONG if isinstance(line, LineTooLong) else ErrorCode.BAD_LINE
    return BadLine(code, str(error), bytes(line[:HEAD]))


def unstreamed(message_id: str, text: str) -> list[StreamEvent]:
    """The streaming events of a message that came in one piece, as Claude Code's last retry does."""
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    start = {"type": "message_start", "message": {"id": message_id, "type": "message", "role": "assistant"}}
    stop = {"type": "content_block_stop", "index": 0}
    events = (start, block, delta, stop, {"type": "message_delta", "delta": {}}, {"type": "message_stop"})
    return [StreamEvent(msgspec.json.encode(event), str(event["type"])) for event in events]
