"""One turn as one message of Anthropic's Messages API, for its SDKs as they are. Pure.

https://docs.anthropic.com/en/api/messages. What it carries is in docs/codecs.md; ``/v1/chat/stream`` carries
all events.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from warmwire.broker.wire.envelope import Envelope
from warmwire.broker.wire.events import End, end_of
from warmwire.broker.wire.messages import OPTION_LIMIT, THINKING_LIMIT
from warmwire.edge.chat import ChatRequest
from warmwire.edge.codecs.appending import Appending, Chunk, Chunks, Content, Part
from warmwire.edge.codecs.openai import DEFAULT_MODEL, SESSION
from warmwire.edge.errors import Kind, Problem

_LAX = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())
Block = dict[str, object]
Blocks = str | tuple[Block, ...]


class Said(BaseModel):
    """One message of the conversation, as its client keeps it."""

    model_config = _LAX

    role: Literal["user", "assistant"]
    content: Blocks


class Metadata(BaseModel):
    """About the request."""

    model_config = _LAX

    user_id: str | None = None


class Thinking(BaseModel):
    """How much may be thought."""

    model_config = _LAX

    type: Literal["enabled", "disabled"]
    budget_tokens: int | None = Field(default=None, ge=0, le=THINKING_LIMIT)


class MessagesRequest(BaseModel):
    """The body of ``POST /v1/messages``. What only tunes the sampling is taken and has no effect."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        json_schema_extra={
            "examples": [
                {
                    "model": "sonnet",
                    "max_tokens": 1024,
                    "metadata": {"user_id": "s1"},
                    "messages": [{"role": "user", "content": "Hello"}],
                }
            ]
        },
    )

    model: str = Field(min_length=1, max_length=OPTION_LIMIT)
    messages: tuple[Said, ...] = Field(min_length=1)
    max_tokens: int | None = None
    stream: bool = False
    system: Blocks | None = None
    metadata: Metadata = Metadata()
    thinking: Thinking | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None

    def chat(self, headers: Mapping[str, str]) -> ChatRequest:
        """The same as a chat request: what the session has not heard yet. Raises Problem."""
        session = headers.get(SESSION) or self.metadata.user_id
        heard = max((n for n, said in enumerate(self.messages, 1) if said.role == "assistant"), default=0)
        new = self.messages[heard:]
        if not new:
            raise Problem(Kind.INVALID_FIELD, "messages: the last one must be the user's", "messages")
        if heard and session is None:
            detail = (
                "messages: what was said before is the session's to know: "
                "name it in X-Session-Id or metadata.user_id"
            )
            raise Problem(Kind.INVALID_FIELD, detail, "messages")
        return ChatRequest(
            message=_joined([said.content for said in new]),
            session_id=session or str(uuid.uuid4()),
            model=None if self.model == DEFAULT_MODEL else self.model,
            system_prompt=self._system() or None,
            thinking_tokens=self._thinking(),
        )

    def _system(self) -> str:
        if isinstance(self.system, str) or self.system is None:
            return self.system or ""
        return "\n\n".join(str(block.get("text", "")) for block in self.system)

    def _thinking(self) -> int | None:
        if self.thinking is None:
            return None
        return 0 if self.thinking.type == "disabled" else self.thinking.budget_tokens


def _joined(contents: Sequence[Blocks]) -> str | list[Block]:
    """As ``ChatRequest.message``: text as long as there is nothing else."""
    if all(isinstance(content, str) for content in contents):
        return "\n\n".join(map(str, contents))
    return [block for content in contents for block in _blocks(content)]


def _blocks(content: Blocks) -> tuple[Block, ...]:
    return ({"type": "text", "text": content},) if isinstance(content, str) else content


class Message(Appending):
    """One answer: all the text and thinking of its turn, in one message. See ``told.Shape``."""

    def __init__(self, turn: str, model: str) -> None:
        super().__init__()
        self._head: Chunk = {
            "id": f"msg_{turn}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }

    def begin(self) -> bytes:
        """Who answers. What it takes is known at the end."""
        return self._frame({"type": "message_start", "message": self._head})

    def whole(self, text: str, end: Envelope) -> Chunk:
        """The answer in one piece."""
        event = end_of(end.event)
        content = [{"type": "text", "text": text}] if text else []
        return {**self._head, "content": content, "stop_reason": _reason(event), "usage": _usage(event)}

    def _frame(self, chunk: Chunk) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (f"{chunk['type']}".encode(), msgspec.json.encode(chunk))

    def _error(self, code: str, message: str) -> Chunk:
        return {"type": "error", "error": {"type": "api_error", "message": f"{code}: {message}"}}

    def _begin(self, part: Part) -> Chunks:
        block = {"type": part.kind, part.kind: ""}
        if part.kind == "thinking":
            block["signature"] = ""
        yield {"type": "content_block_start", "index": part.number, "content_block": block}

    def _more(self, part: Part, text: str) -> Chunk:
        delta = {"type": f"{part.kind}_delta", part.kind: text}
        return {"type": "content_block_delta", "index": part.number, "delta": delta}

    def _end(self, part: Part) -> Chunk:
        return {"type": "content_block_stop", "index": part.number}

    def _block_grows(self, index: int, delta: Content) -> Chunks:
        part = self.part
        if part is None or part.place != (self.message, index) or self.behind or not delta.signature:
            return
        signed = {"type": "signature_delta", "signature": delta.signature}
        yield {"type": "content_block_delta", "index": part.number, "delta": signed}

    def _finish(self, end: End) -> Chunks:
        if end.type == "turn_failed":
            yield self._error(end.code, end.message)
            return
        delta = {"stop_reason": _reason(end), "stop_sequence": None}
        yield {"type": "message_delta", "delta": delta, "usage": _usage(end)}
        yield {"type": "message_stop"}


def _reason(end: End) -> str:
    """Why it ended; an interrupted answer just ends."""
    return (end.stop_reason if end.type == "turn_completed" else None) or "end_turn"


def _usage(end: End) -> Chunk:
    """The tokens of the whole turn, with all its messages."""
    return end.usage.model_dump(exclude={"cost_usd"})
