"""The plain `stream-json` dialect: events of the Messages API, one a line, and nothing around them. Pure.

In goes ``{"type":"user_message","content":…}``, out come ``message_start`` … ``message_stop``. The end of a
message is the end of the turn, unless it was for a tool (``stop_reason`` ``tool_use`` or ``pause_turn``):
then the program goes on with another message. An ``error`` event ends the turn as failed.

There is no word for an interrupt, so the process gets SIGINT: it may end the message (without a
``stop_reason``, or with one if it had finished anyway), or itself. There is no transcript either: one is made
here of what was said, so that the session's memory outlives its process. A new process finds it as a file
whose lines hold a ``message`` each; the variable ``WARMWIRE_HISTORY`` names it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from warmwire.broker.wire.messages import Content
from warmwire.worker.cli.dialect import Dialect
from warmwire.worker.cli.launch import Launch, Spawning
from warmwire.worker.cli.said import (
    UNREADABLE,
    Ending,
    Ignored,
    Line,
    Mirror,
    Result,
    StreamEvent,
    Usage,
    unreadable,
)
from warmwire.worker.errors import ErrorCode

FLAGS = ("--input-format=stream-json", "--output-format=stream-json")
HISTORY = "WARMWIRE_HISTORY"
TOKEN = "CLAUDE_CODE_OAUTH_TOKEN"  # noqa: S105 - the name of one
GOES_ON = ("tool_use", "pause_turn")
"""Reasons to end a message and not the turn."""
BY_TYPE = {
    "invalid_request_error": ErrorCode.INVALID_REQUEST,
    "authentication_error": ErrorCode.AUTH_FAILED,
    "permission_error": ErrorCode.AUTH_FAILED,
    "not_found_error": ErrorCode.MODEL_NOT_FOUND,
    "request_too_large": ErrorCode.PROMPT_TOO_LONG,
    "rate_limit_error": ErrorCode.RATE_LIMITED,
    "overloaded_error": ErrorCode.OVERLOADED,
}


class _Delta(msgspec.Struct):
    text: str = ""
    stop_reason: str | None = None


class _Message(msgspec.Struct):
    id: str = ""
    usage: Usage = Usage()


class _Error(msgspec.Struct):
    type: str = ""
    message: str = ""


class _Event(msgspec.Struct):
    """The fields of an event that are used here; all others are skipped."""

    type: str
    delta: _Delta | None = None
    message: _Message | None = None
    usage: Usage | None = None
    error: _Error | None = None


_EVENT = msgspec.json.Decoder(_Event)
_EVENTS = ("content_block_delta", "content_block_start", "content_block_stop", "message_delta")


class StreamJson(Dialect):
    """One session's adapter: it remembers what is being said, from message to message."""

    def __init__(self) -> None:
        self._asked: list[dict[str, object]] = []
        self._said: list[str] = []
        self._message = _Message()
        self._stop_reason: str | None = None
        self._read = self._written = 0  # tokens of the turn

    # -- to the program

    def launch(self, command: Sequence[str], spawn: Spawning) -> Launch:
        chosen = [] if spawn.model is None else [f"--model={spawn.model}"]
        chosen += [] if spawn.system_prompt is None else [f"--system-prompt={spawn.system_prompt}"]
        ours = {HISTORY: str(spawn.resume)} if spawn.resume is not None else {}
        ours |= {TOKEN: spawn.token} if spawn.token is not None else {}
        return spawn.launch((*command, *FLAGS, *chosen), ours)

    def user_line(self, content: Content, uuid: str) -> bytes:
        self._asked = [_entry("user", content, uuid)]
        self._read = self._written = 0
        return msgspec.json.encode({"type": "user_message", "content": content}) + b"\n"

    # -- from the program

    def read(self, line: bytes) -> Sequence[Line]:
        try:
            if not line.isascii():
                line.decode()  # what leaves here is published as it is, so it must be UTF-8
            return self._event(line, _EVENT.decode(line))
        except UNREADABLE as error:
            return (unreadable(line, error),)

    def _event(self, line: bytes, event: _Event) -> Sequence[Line]:
        if event.type in _EVENTS:
            self._note(event)
        elif event.type == "message_start":
            self._begin(event.message or _Message())
        elif event.type == "message_stop":
            return (StreamEvent(line, event.type), *self._end())
        elif event.type == "error":
            return (self._failed(event.error or _Error()),)
        else:
            return (Ignored(event.type),)
        return (StreamEvent(line, event.type),)

    def _begin(self, message: _Message) -> None:
        self._message = message
        self._said, self._stop_reason = [], None
        self._read += message.usage.input_tokens

    def _note(self, event: _Event) -> None:
        if event.delta is not None:
            if event.delta.text:
                self._said.append(event.delta.text)
            self._stop_reason = event.delta.stop_reason or self._stop_reason
        if event.usage is not None:
            self._written += event.usage.output_tokens

    def _end(self) -> Sequence[Line]:
        text = "".join(self._said)
        if text:
            self._asked.append(_entry("assistant", ({"type": "text", "text": text},), self._message.id))
        if self._stop_reason in GOES_ON:
            return ()
        entries, self._asked = tuple(map(msgspec.json.encode, self._asked)), []
        return (Mirror("", entries), self._result("completed", None, "", text))

    def _failed(self, error: _Error) -> Result:
        code = BY_TYPE.get(error.type, ErrorCode.API_ERROR)
        return self._result("failed", code, error.message, "")

    def _result(self, ending: Ending, error: ErrorCode | None, detail: str, text: str) -> Result:
        return Result(
            ending=ending,
            error=error,
            detail=detail,
            text=text,
            stop_reason=self._stop_reason,
            usage=Usage(input_tokens=self._read, output_tokens=self._written),
        )


def _entry(role: str, content: Content, name: str) -> dict[str, object]:
    """As an entry of the other dialect's transcript: all that reads transcripts reads this one, too."""
    ids = {"uuid": name} if role == "user" else {}
    message = {"role": role, "content": content} | ({"id": name} if role == "assistant" else {})
    return {"type": role, **ids, "message": message}
