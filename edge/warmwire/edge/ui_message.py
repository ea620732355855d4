"""One turn as the Vercel AI SDK's UI-message stream, for ``useChat`` with its own transport. Pure.

https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol#data-stream-protocol. What it carries is in docs/codecs.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from warmwire.broker.envelope import Envelope
from warmwire.broker.reader import Item, Lost, Shown

from .chat import ChatRequest, problem_in, validated
from .errors import Kind, Problem
from .told import LONGER, LOST, VOID, Sum, Told, Void

HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}
INPUT_LIMIT = 256 * 1024
"""Characters of a tool's input that are kept to be told whole; of a larger one there are only its deltas."""
MARKS_LIMIT = 256
"""Messages of a turn to which it may go back without its text becoming void."""

# -- what is asked


class TextPart(BaseModel):
    """Text."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["text"]
    text: str

    def block(self) -> dict[str, Any]:
        """As a content block."""
        return {"type": "text", "text": self.text}


class FilePart(BaseModel):
    """A file, in its URL."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["file"]
    url: str

    def block(self) -> dict[str, Any]:
        """As a content block. Raises Problem."""
        head, _, data = self.url.partition(",")
        scheme, _, rest = head.partition(":")
        media_type, _, encoding = rest.partition(";")
        kind = "document" if media_type == "application/pdf" else media_type.partition("/")[0]
        if scheme != "data" or encoding != "base64" or kind not in ("image", "document"):
            detail = "messages: a file must be an image or a PDF in a data: URL, in base64"
            raise Problem(Kind.INVALID_FIELD, detail, "messages")
        return {"type": kind, "source": {"type": "base64", "media_type": media_type, "data": data}}


class Asked(BaseModel):
    """The last message, which is the user's."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    role: Literal["user"]
    parts: tuple[TextPart | FilePart, ...] = Field(min_length=1)

    @property
    def content(self) -> Any:
        """As ``ChatRequest.message``. Raises Problem."""
        if all(isinstance(part, TextPart) for part in self.parts):
            return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))
        return [part.block() for part in self.parts]


class UiRequest(BaseModel):
    """The body of ``POST /v1/ui/chat``. Beside these: the fields of ``ChatRequest`` that say how."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        protected_namespaces=(),
        json_schema_extra={
            "examples": [
                {
                    "id": "s1",
                    "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}],
                    "trigger": "submit-message",
                }
            ]
        },
    )

    id: str
    messages: tuple[dict[str, Any], ...] = Field(min_length=1)
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: str | None = Field(None, alias="messageId")

    def chat(self) -> ChatRequest:
        """The same as a chat request: the last message, as the session knows the others. Raises Problem."""
        if self.trigger != "submit-message" or self.message_id is not None:
            field = "trigger" if self.trigger != "submit-message" else "messageId"
            detail = f"{field}: nothing is made again or edited: the conversation is the CLI's"
            raise Problem(Kind.INVALID_FIELD, detail, field)
        given = self.model_extra or {}
        named = next((name for name in ("message", "session_id") if name in given), None)
        if named is not None:
            raise Problem(Kind.UNKNOWN_FIELD, f"{named} is not known", named)
        said = {"message": self._last().content, "session_id": self.id}
        return validated(ChatRequest, {"on_disconnect": "cancel"} | given | said)

    def _last(self) -> Asked:
        try:
            return _asked.validate_python(self.messages[-1])
        except ValidationError as error:
            problem = problem_in(error)
            field = f"messages.{len(self.messages) - 1}"
            raise Problem(problem.kind, f"{field}.{problem.detail}", field) from None


_asked = TypeAdapter(Asked)


# -- what is answered


class _Content(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""
    id: str = ""
    name: str = ""


class _Event(msgspec.Struct, gc=False):
    """The fields of an event that make up an answer."""

    type: str
    index: int = 0
    content_block: _Content | None = None
    delta: _Content | None = None


_events = msgspec.json.Decoder(_Event)
Chunk = dict[str, Any]
Chunks = Iterator[Chunk]
_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "refusal": "content-filter",
    "tool_use": "tool-calls",
}
_ABOUT_QUESTION = ("tool", "summary", "input", "within_ms")
_MESSAGE = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_stop"}
)


class _Part:
    """The text part that is open: where it stands, and its id."""

    def __init__(self, kind: str, place: tuple[int, int], number: int) -> None:
        self.kind = kind
        self.place = place
        self.id = str(number)


class _Call:
    """A tool call whose input is still coming."""

    def __init__(self, id_: str, name: str) -> None:
        self.id = id_
        self.name = name
        self.input: list[str] = []
        self.size = 0


class UiMessage:
    """See the module, and ``told.Shape``."""

    def __init__(self, turn: str) -> None:
        self.over = False
        self._turn = turn
        self._attempt = 1
        self._texts = {"text": Told(), "reasoning": Told()}
        self._marks: dict[int, dict[str, Sum]] = {}
        self._message = -1
        self._steps = 0  # how many messages have been begun for the viewer
        self._in_step = False
        self._part: _Part | None = None
        self._parts = 0
        self._calling: dict[int, _Call] = {}
        self._calls: dict[str, int] = {}  # the message of each call that was told and is not answered
        self._answered = -1  # the last message of which a call was answered
        self._questions: dict[str, Chunk] = {}
        self._lost = False
        self._ours = {
            "turn_reset": self._reset,
            "tool_started": self._tool_started,
            "tool_finished": self._tool_finished,
            "permission_requested": self._asked,
            "permission_resolved": self._resolved,
            "turn_progress": self._progress,
        }

    def begin(self) -> bytes:
        """The message begins; its id is the turn's, so that a page that is loaded again knows it."""
        return frame({"type": "start", "messageId": self._turn})

    def add(self, item: Item) -> bytes:
        """The chunks of an event; after an error there are no more."""
        if self.over:
            return b""
        chunks: list[Chunk] = []
        try:
            for chunk in self._chunks(item):
                chunks.append(chunk)  # noqa: PERF402 - those before an error stand
        except Void as void:
            self.over = True
            chunks.append(_error("text_void", f"{void}: resume the stream to see it as it is"))
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # of a shape that we do not know: it adds nothing that could be shown
        return b"".join(map(frame, chunks))

    def error(self, code: str, message: str) -> bytes:
        """The stream ends before its turn."""
        return frame(_error(code, message))

    def _chunks(self, item: Item) -> Chunks:
        if isinstance(item, Lost):
            self._lost = True
        elif isinstance(item, Shown):
            yield from self._snapshot(msgspec.json.decode(item.event))
        elif item.terminal:
            yield from self._end(item.type, msgspec.json.decode(item.event))
        elif item.type in _MESSAGE:
            if not self._lost:  # else the snapshot, which is to come, has it
                yield from self._streamed(item)
        elif item.type in self._ours:
            yield from self._ours[item.type](msgspec.json.decode(item.event))

    # -- messages and blocks

    def _streamed(self, item: Envelope) -> Chunks:
        self._attempt = item.attempt
        event = _events.decode(item.event)
        if event.type == "message_start":
            yield from self._begin_message(self._message + 1)
        elif event.type == "message_stop":
            if not self._behind and self._message == self._steps - 1:
                yield from self._end_step()
        elif event.type == "content_block_stop":
            yield from self._end_block(event.index)
        elif event.content_block is not None:
            yield from self._begin_block(event.index, event.content_block)
        elif event.delta is not None:
            yield from self._delta(event.index, event.delta)

    def _begin_message(self, number: int) -> Chunks:
        self._message = number
        self._calling.clear()
        self._marks[number] = {kind: told.mark() for kind, told in self._texts.items()}
        if len(self._marks) > MARKS_LIMIT:
            del self._marks[next(iter(self._marks))]
        if number >= self._steps:
            yield from self._begin_step()

    def _begin_block(self, index: int, block: _Content) -> Chunks:
        if block.type == "tool_use":
            yield from self._begin_call(index, block.id, block.name)
        else:
            yield from self._delta(index, block)

    def _delta(self, index: int, delta: _Content) -> Chunks:
        if delta.partial_json:
            yield from self._input(index, delta.partial_json)
        elif delta.thinking:
            yield from self._grow("reasoning", (self._message, index), delta.thinking)
        elif delta.text:
            yield from self._grow("text", (self._message, index), delta.text)

    def _end_block(self, index: int) -> Chunks:
        if index in self._calling:
            yield from self._end_call(self._calling.pop(index))
        elif self._part is not None and self._part.place == (self._message, index) and not self._behind:
            yield from self._end_part()

    def _grow(self, kind: str, place: tuple[int, int], text: str) -> Chunks:
        new = self._texts[kind].new(text)
        if not new:
            return
        if self._part is None or (self._part.kind, self._part.place) != (kind, place):
            yield from self._begin_part(kind, place)
        assert self._part is not None  # noqa: S101 - it was just begun
        yield {"type": f"{kind}-delta", "id": self._part.id, "delta": new}

    # -- parts and steps

    @property
    def _behind(self) -> bool:
        return any(told.behind for told in self._texts.values())

    def _begin_part(self, kind: str, place: tuple[int, int]) -> Chunks:
        yield from self._end_part()
        if not self._in_step:
            yield from self._begin_step()
        self._parts += 1
        self._part = _Part(kind, place, self._parts)
        yield {"type": f"{kind}-start", "id": self._part.id}

    def _end_part(self) -> Chunks:
        part, self._part = self._part, None
        if part is not None:
            yield {"type": f"{part.kind}-end", "id": part.id}

    def _begin_step(self) -> Chunks:
        yield from self._end_step()
        self._steps, self._in_step = max(self._steps, self._message + 1), True
        yield {"type": "start-step"}

    def _end_step(self) -> Chunks:
        yield from self._end_part()
        if self._in_step:
            self._in_step = False
            yield {"type": "finish-step"}

    # -- tools

    def _begin_call(self, index: int, id_: str, name: str) -> Chunks:
        if id_ in self._calls:
            return  # told before: it is said again
        if self._behind:
            raise Void(VOID)  # where text was told there is a call now
        yield from self._end_part()
        if not self._in_step:
            yield from self._begin_step()
        self._calls[id_] = self._message
        self._calling[index] = _Call(id_, name)
        yield {"type": "tool-input-start", **_tool(id_, name)}

    def _input(self, index: int, text: str) -> Chunks:
        call = self._calling.get(index)
        if call is None:
            return
        call.size += len(text)
        if call.size <= INPUT_LIMIT:
            call.input.append(text)
        yield {"type": "tool-input-delta", "toolCallId": call.id, "inputTextDelta": text}

    def _end_call(self, call: _Call) -> Chunks:
        if call.size > INPUT_LIMIT:
            return
        text = "".join(call.input)
        try:
            given = msgspec.json.decode(text) if text else {}
        except msgspec.DecodeError as error:
            why = {"input": text, "errorText": f"the input is no JSON: {error}"}
            yield {"type": "tool-input-error", **_tool(call.id, call.name), **why}
        else:
            yield {"type": "tool-input-available", **_tool(call.id, call.name), "input": given}

    def _tool_started(self, event: Chunk) -> Chunks:
        """Of a call that was not seen (a snapshot has none) there is what it is about."""
        if event["id"] in self._calls or self._lost:
            return
        self._calls[event["id"]] = self._message
        about = {"input": {"summary": event["summary"]}}
        if not self._in_step:
            yield from self._begin_step()
        yield {"type": "tool-input-available", **_tool(event["id"], event["name"]), **about}

    def _tool_finished(self, event: Chunk) -> Chunks:
        message = self._calls.pop(event["id"], None)
        if message is None:
            return
        self._answered = max(self._answered, message)
        head = {"toolCallId": event["id"], "providerExecuted": True, "dynamic": True}
        if event["is_error"]:
            yield {"type": "tool-output-error", **head, "errorText": event["summary"]}
        else:
            yield {"type": "tool-output-available", **head, "output": event["summary"]}

    # -- what else there is of ours

    def _asked(self, event: Chunk) -> Chunks:
        about: Chunk = {name: event[name] for name in _ABOUT_QUESTION if name in event}
        self._questions[event["request"]] = about
        yield {"type": "data-permission", "id": event["request"], "data": {**about, "outcome": None}}

    def _resolved(self, event: Chunk) -> Chunks:
        about = self._questions.pop(event["request"], {})
        data = {**about, "outcome": event["outcome"]}
        yield {"type": "data-permission", "id": event["request"], "data": data}

    def _progress(self, event: Chunk) -> Chunks:
        data = {"elapsed_ms": event["elapsed_ms"], "doing": event["doing"]}
        yield {"type": "data-progress", "data": data, "transient": True}

    # -- what is said again

    def _reset(self, event: Chunk) -> Chunks:
        first = int(event.get("message", 0))
        mark = self._marks.get(first)
        if max(self._answered, *self._calls.values(), -1) >= first or (
            mark is None and first <= self._message
        ):
            raise Void(VOID)
        for kind, told in self._texts.items():
            if mark is not None:
                told.repeat(mark[kind])
        self._message = first - 1
        self._calling.clear()
        yield from ()

    def _snapshot(self, event: Chunk) -> Chunks:
        self._lost = False
        before = self._message if event["attempt"] == self._attempt else -1
        self._message = -1
        for told in self._texts.values():
            told.repeat(Sum())
        for block in event["blocks"]:
            if block["message"] != self._message:
                yield from self._begin_message(block["message"])
            if block["kind"] in ("text", "thinking") and block["text"]:
                kind = "text" if block["kind"] == "text" else "reasoning"
                yield from self._grow(kind, (block["message"], block["index"]), block["text"])
        if event.get("truncated") or self._texts["text"].behind:
            raise Void(LONGER if event.get("truncated") else VOID)
        self._texts["reasoning"].settle()  # a record keeps none of it
        self._message, self._attempt = max(self._message, before), event["attempt"]
        for question in event.get("questions") or ():
            yield from self._asked(question)

    # -- the end

    def _end(self, type_: str, event: Chunk) -> Chunks:
        if type_ == "turn_completed" and (self._lost or self._texts["text"].behind):
            raise Void(LOST if self._lost else VOID)
        yield from self._end_step()
        if type_ == "turn_failed":
            yield _error(event["code"], event["message"])
        elif type_ == "turn_interrupted":
            yield {"type": "abort", "reason": "interrupted"}
        else:
            about = {name: event[name] for name in ("usage", "duration_ms", "ttft_ms") if name in event}
            reason = _REASONS.get(event.get("stop_reason") or "end_turn", "other")
            yield {"type": "finish", "finishReason": reason, "messageMetadata": about}


def frame(chunk: Chunk) -> bytes:
    """One chunk."""
    return b"data: %b\n\n" % msgspec.json.encode(chunk)


def _tool(id_: str, name: str) -> Chunk:
    """A call. The CLI has run it, so it is not the page's; its tools are not known beforehand."""
    return {"toolCallId": id_, "toolName": name, "providerExecuted": True, "dynamic": True}


def _error(code: str, message: str) -> Chunk:
    return {"type": "error", "errorText": f"{code}: {message}"}
