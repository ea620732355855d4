"""The `claude` dialect: what the lines of the CLI's stdout mean. (What it is told: `claude_stdin`.)

Pure: values in, values out. The dialect is mostly undocumented; what is relied on here holds for Claude Code
2.1.330 and tests/worker/contract/ checks it against the real CLI.

`parse` never raises: what it cannot read becomes a `BadLine`, what does not matter an `Ignored`. A
`stream_event` line is the hot path (one per delta): one decode, and the event inside is handed on as the
bytes it came in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from warmwire.worker.cli.claude_stdin import COST
from warmwire.worker.cli.said import (
    UNREADABLE,
    Assistant,
    ControlReply,
    ControlRequest,
    Ending,
    Ignored,
    Init,
    Lifecycle,
    Line,
    Mirror,
    Result,
    Retry,
    StreamEvent,
    ToolResult,
    ToolResults,
    ToolUse,
    Usage,
    Wish,
    Withdrawn,
    unreadable,
)
from warmwire.worker.errors import ErrorCode

_STREAM_PREFIX = b'{"type":"stream_event"'
_TYPE_PREFIX = b'{"type":"'
_TYPE_START = len(_TYPE_PREFIX)
# Types of lines that are known and tell us nothing.
_OF_NO_IMPORTANCE = frozenset(
    ("conversation_reset", "keep_alive", "rate_limit_event", "tool_progress", "tool_use_summary")
)


def parse(line: bytes) -> Line:
    """What one line of stdout means."""
    try:
        if line.startswith(_STREAM_PREFIX):
            return _stream_event(line)
        head = _HEAD.decode(line)
        read = _READERS.get(head.type)
        return read(line) if read else Ignored(head.type, unknown=head.type not in _OF_NO_IMPORTANCE)
    except UNREADABLE as error:
        return unreadable(line, error)


# Structs with the fields of a line that are used here; all others are skipped unread.


class _StreamWire(msgspec.Struct):
    event: msgspec.Raw
    parent_tool_use_id: str | None = None


class _TypeWire(msgspec.Struct):
    type: str


class _SystemWire(msgspec.Struct):
    subtype: str = ""
    session_id: str = ""
    model: str = ""
    claude_code_version: str = ""
    attempt: int = 0
    error_status: int | None = None


class _LifecycleWire(msgspec.Struct):
    command_uuid: str = ""
    state: str = ""


class _BlockWire(msgspec.Struct):
    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")
    tool_use_id: str = ""
    is_error: bool | None = None
    content: msgspec.Raw = msgspec.Raw(b'""')


class _MessageWire(msgspec.Struct):
    content: str | list[_BlockWire]
    id: str = ""
    model: str = ""


class _SpokenWire(msgspec.Struct):
    message: _MessageWire
    parent_tool_use_id: str | None = None


class _MirrorWire(msgspec.Struct):
    file: str = msgspec.field(name="filePath", default="")
    entries: list[msgspec.Raw] = []


class _ModelUsageWire(msgspec.Struct, rename="camel"):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cost: float = msgspec.field(name="costUSD", default=0.0)


class _ResultWire(msgspec.Struct):
    subtype: str = ""
    is_error: bool = False
    terminal_reason: str | None = None
    api_error_status: int | None = None
    errors: list[object] = []
    result: str | None = None
    stop_reason: str | None = None
    usage: Usage = Usage()
    # The sums since the last result, retries included. `usage` is all zeros after an interrupt;
    # `total_cost_usd` and `duration_api_ms` count from the start of the process.
    model_usage_since_last_result: dict[str, _ModelUsageWire] = {}
    session_id: str = ""
    user_message_uuids: list[str] = []


class _AnswerWire(msgspec.Struct):
    request_id: str
    subtype: str = ""
    error: object = ""
    response: msgspec.Raw = msgspec.Raw(b"")


class _ReplyWire(msgspec.Struct):
    response: _AnswerWire


class _RequestWire(msgspec.Struct):
    request_id: str
    request: msgspec.Raw


class _WithdrawnWire(msgspec.Struct):
    request_id: str


class _SubtypeWire(msgspec.Struct):
    subtype: str = ""


class _WishWire(msgspec.Struct):
    tool_name: str
    input: msgspec.Raw
    subtype: str = ""


_HEAD = msgspec.json.Decoder(_TypeWire)
_STREAM = msgspec.json.Decoder(_StreamWire)
_SYSTEM = msgspec.json.Decoder(_SystemWire)
_LIFECYCLE = msgspec.json.Decoder(_LifecycleWire)
_SPOKEN = msgspec.json.Decoder(_SpokenWire)
_MIRROR = msgspec.json.Decoder(_MirrorWire)
_RESULT = msgspec.json.Decoder(_ResultWire)
_REPLY = msgspec.json.Decoder(_ReplyWire)
_REQUEST = msgspec.json.Decoder(_RequestWire)
_WITHDRAWN = msgspec.json.Decoder(_WithdrawnWire)
_SUBTYPE = msgspec.json.Decoder(_SubtypeWire)
_WISH = msgspec.json.Decoder(_WishWire)


def _stream_event(line: bytes) -> StreamEvent:
    wire = _STREAM.decode(line)
    event = bytes(wire.event)
    return StreamEvent(event, _event_type(event), wire.parent_tool_use_id)


def _event_type(event: bytes) -> str:
    if not event.isascii():
        event.decode()  # what leaves here is published as it is, so it must be UTF-8
    if event.startswith(_TYPE_PREFIX):
        return event[_TYPE_START : event.index(b'"', _TYPE_START)].decode()
    return _HEAD.decode(event).type


def _system(line: bytes) -> Line:
    wire = _SYSTEM.decode(line)
    if wire.subtype == "init":
        return Init(wire.session_id, wire.model, wire.claude_code_version)
    if wire.subtype == "api_retry":
        return Retry(wire.attempt, wire.error_status)
    return Ignored(f"system/{wire.subtype}")


def _lifecycle(line: bytes) -> Lifecycle:
    wire = _LIFECYCLE.decode(line)
    return Lifecycle(wire.command_uuid, wire.state)


def _assistant(line: bytes) -> Assistant:
    wire = _SPOKEN.decode(line)
    blocks = _blocks(wire.message)
    return Assistant(
        message_id=wire.message.id,
        text="".join(block.text for block in blocks if block.type == "text"),
        tools=tuple(ToolUse(b.id, b.name, bytes(b.input)) for b in blocks if b.type == "tool_use"),
        synthetic=wire.message.model == "<synthetic>",
        parent_tool_use_id=wire.parent_tool_use_id,
    )


def _user(line: bytes) -> Line:
    wire = _SPOKEN.decode(line)
    found = (block for block in _blocks(wire.message) if block.type == "tool_result")
    results = tuple(ToolResult(b.tool_use_id, bool(b.is_error), bytes(b.content)) for b in found)
    return ToolResults(results, wire.parent_tool_use_id) if results else Ignored("user")


def _blocks(message: _MessageWire) -> list[_BlockWire]:
    content = message.content
    return [_BlockWire("text", content)] if isinstance(content, str) else content


def _mirror(line: bytes) -> Mirror:
    wire = _MIRROR.decode(line)
    return Mirror(wire.file, tuple(bytes(entry) for entry in wire.entries))


def _reply(line: bytes) -> ControlReply:
    wire = _REPLY.decode(line).response
    error = wire.error if isinstance(wire.error, str) else ""
    return ControlReply(wire.request_id, wire.subtype == "success", error, bytes(wire.response))


def _request(line: bytes) -> ControlRequest:
    wire = _REQUEST.decode(line)
    request = bytes(wire.request)
    return ControlRequest(wire.request_id, _SUBTYPE.decode(request).subtype, request)


def _withdrawn(line: bytes) -> Withdrawn:
    return Withdrawn(_WITHDRAWN.decode(line).request_id)


def wish(request: ControlRequest) -> Wish | None:
    """What a `can_use_tool` request asks for; None for any other."""
    if request.subtype != "can_use_tool":
        return None
    try:
        wire = _WISH.decode(request.request)
    except UNREADABLE:
        return None
    return Wish(wire.tool_name, bytes(wire.input))


class _SaidWire(msgspec.Struct):
    text: str = ""


def cost_in(reply: ControlReply) -> str:
    """The words of the answer to `cost_line`; empty if there are none, or that is another answer."""
    if reply.request_id != COST:
        return ""
    try:
        return msgspec.json.decode(reply.response, type=_SaidWire).text
    except UNREADABLE:
        return ""


def _result(line: bytes) -> Result:
    wire = _RESULT.decode(line)
    ending = _ending(wire)
    failed = ending == "failed"
    spent = wire.model_usage_since_last_result.values()
    return Result(
        ending=ending,
        error=_failure(wire) if failed else None,
        detail=_detail(wire) if failed else "",
        text="" if failed else wire.result or "",
        stop_reason=wire.stop_reason,
        usage=_total(spent) if spent else wire.usage,
        cost_usd=sum(model.cost for model in spent),
        api_status=wire.api_error_status,
        session_id=wire.session_id,
        message_uuids=tuple(wire.user_message_uuids),
    )


def _total(models: Iterable[_ModelUsageWire]) -> Usage:
    return Usage(
        input_tokens=sum(model.input_tokens for model in models),
        output_tokens=sum(model.output_tokens for model in models),
        cache_creation_input_tokens=sum(model.cache_creation_input_tokens for model in models),
        cache_read_input_tokens=sum(model.cache_read_input_tokens for model in models),
    )


_READERS: Mapping[str, Callable[[bytes], Line]] = {
    "stream_event": _stream_event,
    "system": _system,
    "command_lifecycle": _lifecycle,
    "assistant": _assistant,
    "user": _user,
    "transcript_mirror": _mirror,
    "result": _result,
    "control_response": _reply,
    "control_request": _request,
    "control_cancel_request": _withdrawn,
}


# --- the transcript ---------------------------------------------------------------------------------------


class _EntryWire(msgspec.Struct):
    session: str = msgspec.field(name="sessionId", default="")


_ENTRY = msgspec.json.Decoder(_EntryWire)


def session_of(entry: bytes) -> str:
    """The CLI's session id that an entry of a transcript belongs to; empty if it does not say."""
    try:
        return _ENTRY.decode(entry).session
    except UNREADABLE:
        return ""


def session_of_transcript(transcript: bytes) -> str:
    """The CLI's session id in a transcript: the first that an entry names; empty if none does."""
    return next(filter(None, map(session_of, transcript.splitlines())), "")


# --- how a turn ended ------------------------------------------------------------------------------------

BY_REASON = {
    "blocking_limit": ErrorCode.PROMPT_TOO_LONG,
    "prompt_too_long": ErrorCode.PROMPT_TOO_LONG,
    "rapid_refill_breaker": ErrorCode.PROMPT_TOO_LONG,
    "max_turns": ErrorCode.MAX_TURNS,
    "budget_exhausted": ErrorCode.BUDGET_EXCEEDED,
}
BY_SUBTYPE = {
    "error_max_turns": ErrorCode.MAX_TURNS,
    "error_max_budget_usd": ErrorCode.BUDGET_EXCEEDED,
}
BY_STATUS = {
    400: ErrorCode.INVALID_REQUEST,
    401: ErrorCode.AUTH_FAILED,
    403: ErrorCode.AUTH_FAILED,
    404: ErrorCode.MODEL_NOT_FOUND,
    413: ErrorCode.PROMPT_TOO_LONG,
    429: ErrorCode.RATE_LIMITED,
    529: ErrorCode.OVERLOADED,
}
BY_VAGUE_REASON = {
    "api_error": ErrorCode.API_ERROR,
    "model_error": ErrorCode.API_ERROR,
    "image_error": ErrorCode.INVALID_REQUEST,  # said of any request that is too large, too
}
# What the CLI answers by itself, without asking the API, when it has no credential at all.
NOT_LOGGED_IN = "Not logged in"


def _failure(wire: _ResultWire) -> ErrorCode:
    """What went wrong, by the first that says something: reason, subtype, the status that the API gave."""
    reason, status = wire.terminal_reason or "", wire.api_error_status or 0
    if (wire.result or "").startswith(NOT_LOGGED_IN):
        return ErrorCode.AUTH_FAILED
    return (
        BY_REASON.get(reason)
        or BY_SUBTYPE.get(wire.subtype)
        or BY_STATUS.get(status)
        or BY_VAGUE_REASON.get(reason)
        or ErrorCode.CLI_FAILED
    )


def _ending(wire: _ResultWire) -> Ending:
    """The reason comes first, as the rest misleads: an interrupt is an error, an API error a "success"."""
    if (wire.terminal_reason or "").startswith("aborted"):
        return "interrupted"
    return "failed" if wire.is_error else "completed"


def _detail(wire: _ResultWire) -> str:
    said = [wire.result or "", *(error for error in wire.errors if isinstance(error, str))]
    return "; ".join(text for text in said if text)
