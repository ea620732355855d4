"""``/v1/chat/ws`` as an AsyncAPI document, made from the models of its frames.

What clients send is described by the models that read it, in ``frames``; what they are sent by those below.
https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from warmwire.edge import frames
from warmwire.edge.chat import ROLLUP_LIMIT
from warmwire.edge.documents.openapi import CURSOR, TURN, Json
from warmwire.edge.frames import Close


class Said(BaseModel):
    """What all frames to a client share."""

    model_config = ConfigDict(extra="forbid")


class Answer(Said):
    """What answers share: ``id`` is that of the request."""

    id: Annotated[str, Field(max_length=64)]


class Event(Said):
    """An event of a watched session. ``cursor`` resumes after it, here and over HTTP."""

    session_id: str
    cursor: str
    event: dict[str, object]


class Accepted(Answer):
    """The message has been accepted: it will be answered."""

    type: Literal["accepted"]
    session_id: str
    turn: str


class Interrupting(Answer):
    """The turn stops. Without ``turn`` there was nothing to stop."""

    type: Literal["interrupting"]
    session_id: str
    turn: str | None = None


class Answered(Answer):
    """The CLI has been told what was decided."""

    type: Literal["answered"]
    session_id: str
    request: str


class Watching(Answer):
    """What came before ``cursor`` has been sent; what follows is live."""

    type: Literal["watching"]
    session_id: str
    cursor: str


class Unwatched(Answer):
    """Nothing more of the session is sent."""

    type: Literal["unwatched"]
    session_id: str


class Pong(Said):
    """The answer to ``ping``, with or without an ``id``."""

    type: Literal["pong"]
    id: str | None = None


class Error(Said):
    """A frame was refused; the connection goes on. ``code`` and ``status`` are those of HTTP problems."""

    type: Literal["error"]
    id: str | None = None
    session_id: str | None = None
    code: str
    title: str
    status: int
    detail: str
    field: str | None = None
    limit: float | None = None
    retry_after: int | None = None


class Reconnect(Said):
    """The connection is about to be closed; connect again after that time."""

    type: Literal["reconnect"]
    retry_ms: int


Reply = Event | Accepted | Interrupting | Answered | Watching | Unwatched | Pong | Error | Reconnect

EXAMPLES: dict[str, Json] = {
    "user_message": {"type": "user_message", "session_id": "s1", "message": "Hello", "id": "1"},
    "interrupt": {"type": "interrupt", "session_id": "s1", "id": "2"},
    "permission": {"type": "permission", "session_id": "s1", "request": "req_1", "allow": True, "id": "3"},
    "watch": {"type": "watch", "session_id": "s1", "cursor": CURSOR, "id": "4"},
    "unwatch": {"type": "unwatch", "session_id": "s1", "id": "5"},
    "ping": {"type": "ping", "id": "6"},
    "event": {
        "session_id": "s1",
        "cursor": CURSOR,
        "event": {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "Hello"},
        },
    },
    "accepted": {"type": "accepted", "id": "1", "session_id": "s1", "turn": TURN},
    "interrupting": {"type": "interrupting", "id": "2", "session_id": "s1", "turn": TURN},
    "answered": {"type": "answered", "id": "3", "session_id": "s1", "request": "req_1"},
    "watching": {"type": "watching", "id": "4", "session_id": "s1", "cursor": CURSOR},
    "unwatched": {"type": "unwatched", "id": "5", "session_id": "s1"},
    "pong": {"type": "pong", "id": "6"},
    "error": {
        "type": "error",
        "id": "1",
        "session_id": "s1",
        "code": "queue_full",
        "title": "The session has too many messages waiting",
        "status": 429,
        "detail": "16 messages are waiting",
        "limit": 16,
        "retry_after": 2,
    },
    "reconnect": {"type": "reconnect", "retry_ms": 1740},
}
"""One frame of each name."""


def named(union: UnionType) -> dict[str, type[BaseModel]]:
    """The models of a union, each by the ``type`` of its frames; an event has none of its own."""
    models: tuple[type[BaseModel], ...] = get_args(union)
    return {_name(model): model for model in models}


def _name(model: type[BaseModel]) -> str:
    literal = model.model_fields.get("type")
    return str(get_args(literal.annotation)[0]) if literal else "event"


REQUESTS = named(frames.Request)
REPLIES = named(Reply)


def document(version: str) -> Json:
    """The whole document, for this version of the API."""
    models = REQUESTS | REPLIES
    refs, schemas = models_json_schema(
        [(model, "validation") for model in models.values()], ref_template="#/components/schemas/{model}"
    )
    messages = {name: _message(name, model, refs[(model, "validation")]) for name, model in models.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "warmwire", "version": version, "description": _closes()},
        "defaultContentType": "application/json",
        "channels": {"chat": _channel(list(models))},
        "operations": {
            "receive": _operation("receive", list(REQUESTS), "What a client sends."),
            "send": _operation("send", list(REPLIES), "What a client is sent."),
        },
        "components": {"messages": messages, "schemas": schemas["$defs"]},
    }


def _message(name: str, model: type[BaseModel], schema: Json) -> Json:
    return {
        "title": name,
        "summary": model.__doc__,
        "contentType": "application/json",
        "payload": schema,
        "examples": [{"payload": EXAMPLES[name]}],
    }


def _channel(names: list[str]) -> Json:
    rollup = {"type": "integer", "minimum": 0, "maximum": ROLLUP_LIMIT, "default": 0}
    return {
        "address": "/v1/chat/ws",
        "description": "Any number of sessions over one connection; one JSON object in each text frame.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"ws": {"query": {"type": "object", "properties": {"rollup_ms": rollup}}}},
    }


def _operation(action: str, names: list[str], summary: str) -> Json:
    """The edge is the application: it receives what clients send."""
    return {
        "action": action,
        "channel": {"$ref": "#/channels/chat"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/chat/messages/{name}"} for name in names],
    }


def _closes() -> str:
    codes = "; ".join(f"{close.code}: {close.reason}" for close in Close)
    return f"Close codes: {' '.join((Close.__doc__ or '').split())} {codes}."
