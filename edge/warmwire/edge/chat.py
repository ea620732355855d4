"""From an HTTP request to a checked chat request, before anything is published."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from time import time
from typing import Annotated, Literal, TypeVar

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.requests import Request as HttpRequest

from warmwire.broker.wire.messages import OPTION_LIMIT, THINKING_LIMIT, PermissionMode, TurnOptions
from warmwire.broker.wire.names import NAME_LIMIT, SessionKey
from warmwire.edge.errors import Kind, Problem
from warmwire.producer.request import Request, prepare

ROOM = 64 * 1024
"""Bytes of a body beside the message."""
ESCAPED = 3
"""Times that JSON may lengthen text that people write: é has two bytes in UTF-8 and six as an escape."""
ROLLUP_LIMIT = 500
"""Milliseconds that a viewer may have deltas gathered for, at most."""

Message = Annotated[
    object,  # judged by `prepare`, which says what is wrong better than a union can
    WithJsonSchema(
        {
            "description": "Text, or Messages API content blocks.",
            "anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["type"],
                        "properties": {"type": {"type": "string"}},
                    },
                },
            ],
        }
    ),
]
NAME_SCHEMA: dict[str, object] = {"type": "string", "pattern": f"^[A-Za-z0-9_-]{{1,{NAME_LIMIT}}}$"}
SessionId = Annotated[str, WithJsonSchema(NAME_SCHEMA)]  # judged by `SessionKey`
SessionPath = Annotated[str, Path(json_schema_extra=NAME_SCHEMA)]


class Rollup(BaseModel):
    """What of a URL counts when a stream is resumed."""

    rollup_ms: int = Field(default=0, ge=0, le=ROLLUP_LIMIT)


class ChatRequest(BaseModel):
    """The body of ``POST /v1/chat/stream``."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        json_schema_extra={"examples": [{"session_id": "s1", "message": "Hello"}]},
    )

    message: Message
    session_id: SessionId | None = None
    model: str | None = Field(default=None, max_length=OPTION_LIMIT)
    profile: str | None = Field(default=None, max_length=OPTION_LIMIT)
    system_prompt: str | None = None
    permission_mode: PermissionMode | None = None
    thinking_tokens: int | None = Field(default=None, ge=0, le=THINKING_LIMIT)
    on_worker_loss: Literal["retry", "fail"] = "retry"
    double_texting: Literal["enqueue", "interrupt", "reject"] = "enqueue"
    on_disconnect: Literal["continue", "cancel"] = "continue"
    rollup_ms: int = Field(default=0, ge=0, le=ROLLUP_LIMIT)

    def prepared(self, limit: int, idempotency_key: str | None, tenant: str) -> Request:
        """The user message to publish; ``limit`` is in bytes. Raises BadInput."""
        if idempotency_key is not None and self.session_id is None:
            raise Problem(Kind.INVALID_FIELD, "session_id is needed with an Idempotency-Key", "session_id")
        session = str(uuid.uuid4()) if self.session_id is None else self.session_id
        return prepare(
            SessionKey(tenant, session),
            self.message,
            TurnOptions.model_validate(self, from_attributes=True),
            now_ms=round(time() * 1000),
            limit=limit,
            idempotency_key=idempotency_key,
        )


async def from_body(http: HttpRequest, limit: int) -> ChatRequest:
    """The chat request in a body; ``limit`` is that of the message in bytes. Raises Problem."""
    return validated(ChatRequest, await json_body(http, limit))


async def json_body(http: HttpRequest, limit: int) -> bytearray:
    """A body that is declared as JSON, for a message of at most ``limit`` bytes. Raises Problem."""
    media_type = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem(Kind.WRONG_MEDIA_TYPE, f"content-type is {media_type or 'absent'}", "content-type")
    return await _read(http, limit)


def from_query(query: Mapping[str, str]) -> ChatRequest:
    """The chat request in a URL. Raises Problem."""
    request = validated(ChatRequest, query)
    if request.session_id is None:
        raise Problem(Kind.INVALID_FIELD, "session_id is needed, so that a reconnect finds it", "session_id")
    return request


async def _read(http: HttpRequest, limit: int) -> bytearray:
    """The body, never more of it than may be needed, whatever length was announced."""
    most = limit * ESCAPED + ROOM
    announced = http.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > most:
        raise _too_large(limit)
    body = bytearray()
    async for chunk in http.stream():
        if len(body) + len(chunk) > most:
            raise _too_large(limit)
        body += chunk
    return body


def _too_large(limit: int) -> Problem:
    return Problem(Kind.MESSAGE_TOO_LARGE, f"message may have {limit} bytes", "message", limit)


M = TypeVar("M", bound=BaseModel)


def validated(model: type[M], value: bytes | bytearray | Mapping[str, object]) -> M:
    """A body or a query. Raises Problem."""
    try:
        if isinstance(value, bytes | bytearray):
            return model.model_validate_json(value)
        return model.model_validate(dict(value))
    except ValidationError as error:
        raise problem_in(error) from None


def problem_in(error: ValidationError, skip: tuple[str, ...] = ()) -> Problem:
    """What is wrong, with the field's name; parts of its path that are in ``skip`` are no fields."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return Problem(Kind.NOT_JSON, first["msg"])
    field = ".".join(str(part) for part in first["loc"] if part not in skip) or None
    kind = Kind.UNKNOWN_FIELD if first["type"] == "extra_forbidden" else Kind.INVALID_FIELD
    text = (
        " is not known" if kind is Kind.UNKNOWN_FIELD else ": " + first["msg"][0].lower() + first["msg"][1:]
    )
    return Problem(kind, f"{field or 'body'}{text}", field)
