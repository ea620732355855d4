"""One turn in the shapes of OpenAI's ``chat.completions``, for clients that speak nothing else. Pure.

https://platform.openai.com/docs/api-reference/chat. What it cannot carry is in docs/reference/http.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from warmwire.broker.reading.reader import Item
from warmwire.broker.wire.envelope import Envelope
from warmwire.broker.wire.events import End, TurnFailed, end_of
from warmwire.broker.wire.messages import OPTION_LIMIT
from warmwire.edge.chat import ChatRequest
from warmwire.edge.delivery.merge import is_text
from warmwire.edge.errors import Kind, Problem

SESSION = "x-session-id"
"""The header that names the conversation; else the body's ``user`` does."""
DEFAULT_MODEL = "default"
"""Stands for the CLI's own, as these clients must name one."""
_REASONS = {"max_tokens": "length", "refusal": "content_filter"}
_LAX = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Part(BaseModel):
    """A part of a message's content."""

    model_config = _LAX

    type: Literal["text"]
    text: str


class Said(BaseModel):
    """One message of the conversation, as its client keeps it."""

    model_config = _LAX

    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[Part, ...] | None = None

    @property
    def text(self) -> str:
        """Its text."""
        if isinstance(self.content, str) or self.content is None:
            return self.content or ""
        return "\n\n".join(part.text for part in self.content)


class StreamOptions(BaseModel):
    """How a stream is to be."""

    model_config = _LAX

    include_usage: bool = False


class CompletionRequest(BaseModel):
    """The body of ``POST /v1/chat/completions``. What only tunes the sampling is taken and has no effect."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        json_schema_extra={
            "examples": [
                {"model": "sonnet", "user": "s1", "messages": [{"role": "user", "content": "Hello"}]}
            ]
        },
    )

    model: str = Field(min_length=1, max_length=OPTION_LIMIT)
    messages: tuple[Said, ...] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    n: Literal[1] = 1
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None

    def chat(self, headers: Mapping[str, str]) -> ChatRequest:
        """The same as a chat request: what the session has not heard yet. Raises Problem."""
        session = headers.get(SESSION) or self.user
        spoken = [said for said in self.messages if said.role in ("user", "assistant")]
        last = next((n for n, said in enumerate(reversed(spoken)) if said.role == "assistant"), len(spoken))
        new = spoken[len(spoken) - last :]
        if not new:
            raise Problem(Kind.INVALID_FIELD, "messages: the last one must be the user's", "messages")
        if len(new) < len(spoken) and session is None:
            detail = (
                "messages: what was said before is the session's to know: name it in X-Session-Id or user"
            )
            raise Problem(Kind.INVALID_FIELD, detail, "messages")
        system = [said.text for said in self.messages if said.role in ("system", "developer")]
        return ChatRequest(
            message="\n\n".join(said.text for said in new),
            session_id=session or str(uuid.uuid4()),
            model=None if self.model == DEFAULT_MODEL else self.model,
            system_prompt="\n\n".join(system) or None,
        )

    def completion(self, turn: str, now: float) -> Completion:
        """What answers it; ``now`` is in Unix seconds."""
        usage = self.stream_options is not None and self.stream_options.include_usage
        return Completion(turn, self.model, int(now), with_usage=usage)


class _Text(msgspec.Struct, gc=False):
    text: str = ""  # none where a tool's input is the word by which text is told: `text_delta`


class _TextDelta(msgspec.Struct, gc=False):
    """What counts of the event of a text delta."""

    delta: _Text


_text_deltas = msgspec.json.Decoder(_TextDelta)


class Completion:
    """The shapes of one answer."""

    def __init__(self, turn: str, model: str, created: int, *, with_usage: bool = False) -> None:
        self._head: dict[str, object] = {"id": f"chatcmpl-{turn}", "created": created, "model": model}
        self._with_usage = with_usage

    def begin(self) -> bytes:
        """The first chunk of a stream."""
        return self._frame({"role": "assistant", "content": ""})

    def delta(self, item: Item, _turn: str, _session: str) -> bytes:
        """A text delta; of everything else nothing."""
        return self.text(item.event) if isinstance(item, Envelope) and is_text(item) else b""

    def text(self, event: bytes) -> bytes:
        """The text of a text delta."""
        return self._frame({"content": _text_deltas.decode(event).delta.text})

    def end(self, end: Envelope) -> bytes:
        """The last chunks of a stream."""
        found = end_of(end.event)
        last = self._frame({}, _finish(found))
        usage = self._chunk([], usage=_usage(found)) if self._with_usage else b""
        return last + usage + DONE

    def whole(self, text: str, end: Envelope) -> dict[str, object]:
        """The answer in one piece."""
        found = end_of(end.event)
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(found)}
        head = {"object": "chat.completion", **self._head}
        return {**head, "choices": [choice], "usage": _usage(found)}

    def _frame(self, delta: dict[str, str], reason: str | None = None) -> bytes:
        return self._chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}])

    def _chunk(self, choices: list[dict[str, object]], **more: object) -> bytes:
        chunk = {"object": "chat.completion.chunk", **self._head, "choices": choices, **more}
        return b"data: %b\n\n" % msgspec.json.encode(chunk)


DONE = b"data: [DONE]\n\n"


def error(code: str, message: str) -> bytes:
    """A stream ends with an error; its clients raise it."""
    problem = {"error": {"message": message, "type": "turn_failed", "param": None, "code": code}}
    return b"data: %b\n\n" % msgspec.json.encode(problem) + DONE


def failure(end: Envelope) -> bytes:
    """The same of a turn that has failed."""
    found = TurnFailed.model_validate_json(end.event)
    return error(found.code, found.message)


def _finish(end: End) -> str:
    """Why it ended; an interrupted answer just stops."""
    return _REASONS.get(end.stop_reason or "", "stop") if end.type == "turn_completed" else "stop"


def _usage(end: End) -> dict[str, int | dict[str, int]]:
    """The tokens of the whole turn, with all its messages."""
    used = end.usage
    prompt = used.input_tokens + used.cache_read_input_tokens + used.cache_creation_input_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": used.output_tokens,
        "total_tokens": prompt + used.output_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cache_read_input_tokens},
    }
