"""One turn as the Vercel AI SDK's UI-message stream, for ``useChat`` with its own transport. Pure.

https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol#data-stream-protocol. What it carries is in docs/codecs.md.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from warmwire.broker.wire.events import (
    End,
    PermissionRequested,
    PermissionResolved,
    ToolFinished,
    ToolStarted,
    TurnProgress,
)
from warmwire.edge.chat import ChatRequest, problem_in, validated
from warmwire.edge.codecs.appending import Appending, Chunk, Chunks, Content, Ours, Part
from warmwire.edge.codecs.told import VOID, Void
from warmwire.edge.errors import Kind, Problem

HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}
INPUT_LIMIT = 256 * 1024
"""Characters of a tool's input that are kept to be told whole; of a larger one there are only its deltas."""

# -- what is asked

Block = dict[str, object]


class TextPart(BaseModel):
    """Text."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["text"]
    text: str

    def block(self) -> Block:
        """As a content block."""
        return {"type": "text", "text": self.text}


class FilePart(BaseModel):
    """A file, in its URL."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["file"]
    url: str

    def block(self) -> Block:
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
    def content(self) -> str | list[Block]:
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
    messages: tuple[dict[str, object], ...] = Field(min_length=1)
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: str | None = Field(default=None, alias="messageId")

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

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "refusal": "content-filter",
    "tool_use": "tool-calls",
}
_NAMES = {"text": "text", "thinking": "reasoning"}
_ABOUT_QUESTION = {"tool", "summary", "input", "within_ms"}
_ABOUT_END = {"usage", "duration_ms", "ttft_ms"}


class _Call:
    """A tool call whose input is still coming."""

    def __init__(self, id_: str, name: str) -> None:
        self.id = id_
        self.name = name
        self.input: list[str] = []
        self.size = 0


class UiMessage(Appending):
    """See the module, and ``told.Shape``."""

    def __init__(self, turn: str) -> None:
        super().__init__()
        self._turn = turn
        self._steps = 0  # how many messages have been begun for the viewer
        self._in_step = False
        self._calling: dict[int, _Call] = {}
        self._calls: dict[str, int] = {}  # the message of each call that was told and is not answered
        self._answered = -1  # the last message of which a call was answered
        self._questions: dict[str, Chunk] = {}

    def begin(self) -> bytes:
        """The message begins; its id is the turn's, so that a page that is loaded again knows it."""
        return self._frame({"type": "start", "messageId": self._turn})

    def _frame(self, chunk: Chunk) -> bytes:
        return b"data: %b\n\n" % msgspec.json.encode(chunk)

    def _error(self, code: str, message: str) -> Chunk:
        return {"type": "error", "errorText": f"{code}: {message}"}

    # -- parts and steps

    def _begin(self, part: Part) -> Chunks:
        if not self._in_step:
            yield from self._begin_step()
        yield {"type": f"{_NAMES[part.kind]}-start", "id": str(part.number)}

    def _more(self, part: Part, text: str) -> Chunk:
        return {"type": f"{_NAMES[part.kind]}-delta", "id": str(part.number), "delta": text}

    def _end(self, part: Part) -> Chunk:
        return {"type": f"{_NAMES[part.kind]}-end", "id": str(part.number)}

    def _message_begins(self) -> Chunks:
        self._calling.clear()
        if self.message >= self._steps:
            yield from self._begin_step()

    def _message_ends(self) -> Chunks:
        if not self.behind and self.message == self._steps - 1:
            yield from self._end_step()

    def _begin_step(self) -> Chunks:
        yield from self._end_step()
        self._steps, self._in_step = max(self._steps, self.message + 1), True
        yield {"type": "start-step"}

    def _end_step(self) -> Chunks:
        yield from self._end_part()
        if self._in_step:
            self._in_step = False
            yield {"type": "finish-step"}

    # -- tools

    def _block_begins(self, index: int, block: Content) -> Chunks:
        if block.type != "tool_use" or block.id in self._calls:
            return  # a call that was told before is said again
        if self.behind:
            raise Void(VOID)  # where text was told there is a call now
        yield from self._end_part()
        if not self._in_step:
            yield from self._begin_step()
        self._calls[block.id] = self.message
        self._calling[index] = _Call(block.id, block.name)
        yield {"type": "tool-input-start", **_tool(block.id, block.name)}

    def _block_grows(self, index: int, delta: Content) -> Chunks:
        call = self._calling.get(index)
        if call is None or not delta.partial_json:
            return
        call.size += len(delta.partial_json)
        if call.size <= INPUT_LIMIT:
            call.input.append(delta.partial_json)
        yield {"type": "tool-input-delta", "toolCallId": call.id, "inputTextDelta": delta.partial_json}

    def _block_ends(self, index: int) -> Chunks:
        call = self._calling.pop(index, None)
        if call is None or call.size > INPUT_LIMIT:
            return
        text = "".join(call.input)
        try:
            given = msgspec.json.decode(text) if text else {}
        except (msgspec.DecodeError, RecursionError) as error:
            why = {"input": text, "errorText": f"the input is no JSON: {error}"}
            yield {"type": "tool-input-error", **_tool(call.id, call.name), **why}
        else:
            yield {"type": "tool-input-available", **_tool(call.id, call.name), "input": given}

    def _tool_started(self, event: ToolStarted) -> Chunks:
        """Of a call that was not seen (a snapshot has none) there is what it is about."""
        if event.id in self._calls or self.lost:
            return
        self._calls[event.id] = self.message
        about = {"input": {"summary": event.summary}}
        if not self._in_step:
            yield from self._begin_step()
        yield {"type": "tool-input-available", **_tool(event.id, event.name), **about}

    def _tool_finished(self, event: ToolFinished) -> Chunks:
        message = self._calls.pop(event.id, None)
        if message is None:
            return
        self._answered = max(self._answered, message)
        head = {"toolCallId": event.id, "providerExecuted": True, "dynamic": True}
        if event.is_error:
            yield {"type": "tool-output-error", **head, "errorText": event.summary}
        else:
            yield {"type": "tool-output-available", **head, "output": event.summary}

    def _takes_back(self, first: int) -> bool:
        self._calling.clear()
        return max(self._answered, *self._calls.values(), -1) >= first

    # -- what else there is of ours

    def _ours(self, event: Ours) -> Chunks:
        match event:
            case ToolStarted():
                yield from self._tool_started(event)
            case ToolFinished():
                yield from self._tool_finished(event)
            case PermissionRequested(request=request):
                about = self._questions[request] = event.model_dump(
                    include=_ABOUT_QUESTION, exclude_none=True
                )
                yield {"type": "data-permission", "id": request, "data": {**about, "outcome": None}}
            case PermissionResolved(request=request, outcome=outcome):
                data = {**self._questions.pop(request, {}), "outcome": outcome}
                yield {"type": "data-permission", "id": request, "data": data}
            case TurnProgress(elapsed_ms=elapsed, doing=doing):
                progress = {"elapsed_ms": elapsed, "doing": doing}
                yield {"type": "data-progress", "data": progress, "transient": True}

    def _finish(self, end: End) -> Chunks:
        yield from self._end_step()
        if end.type == "turn_failed":
            yield self._error(end.code, end.message)
        elif end.type == "turn_interrupted":
            yield {"type": "abort", "reason": "interrupted"}
        else:
            about = end.model_dump(include=_ABOUT_END, exclude_none=True)
            reason = _REASONS.get(end.stop_reason or "end_turn", "other")
            yield {"type": "finish", "finishReason": reason, "messageMetadata": about}


def _tool(id_: str, name: str) -> Chunk:
    """A call. The CLI has run it, so it is not the page's; its tools are not known beforehand."""
    return {"toolCallId": id_, "toolName": name, "providerExecuted": True, "dynamic": True}
