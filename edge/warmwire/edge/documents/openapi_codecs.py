"""What the OpenAPI document says of the routes in the shapes of others. Pure."""

from __future__ import annotations

from warmwire.edge.documents.openapi import (
    EVENTS,
    FRAME,
    PROPERTIES,
    READING,
    SESSION_HEADER,
    SESSION_ID,
    STREAMING,
    TURN,
    Answer,
    Documented,
    Json,
    described,
    object_of,
    problems,
)
from warmwire.edge.errors import Kind

# -- completions

_COMPLETION = {
    "id": f"chatcmpl-{TURN}",
    "object": "chat.completion",
    "created": 1795404380,
    "model": "sonnet",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
}
COMPLETED: Documented = {
    200: {
        **EVENTS,
        "description": "The answer; with `stream: true` in chunks, server-sent events, then `data: [DONE]`.",
        "content": {
            "application/json": {"schema": {"type": "object"}, "example": _COMPLETION},
            "text/event-stream": {
                "schema": FRAME,
                "example": 'data: {"object":"chat.completion.chunk","choices":[{"index":0,'
                '"delta":{"content":"Hello"}}]}\n\n',
            },
        },
    },
    **problems(*READING, *STREAMING, Kind.TURN_FAILED),
}

# -- Anthropic's messages

_MESSAGE = {
    "id": f"msg_{TURN}",
    "type": "message",
    "role": "assistant",
    "model": "sonnet",
    "content": [{"type": "text", "text": "Hello!"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 12, "output_tokens": 3},
}
MESSAGE_ANSWERED: Documented = {
    200: {
        **EVENTS,
        "description": "The answer as one message; with `stream: true` as Anthropic's streaming events.",
        "content": {
            "application/json": {"schema": {"type": "object"}, "example": _MESSAGE},
            "text/event-stream": {
                "schema": FRAME,
                "example": 'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
                '"delta":{"type":"text_delta","text":"Hello"}}\n\n',
            },
        },
    },
    **problems(*READING, *STREAMING, Kind.TURN_FAILED),
}
_MODEL: Json = {"id": "default", "object": "model", "created": 0, "owned_by": "warmwire"}
MODEL: Documented = {
    200: described(object_of(_MODEL, id={"type": "string"}, object={"type": "string"}), "The model."),
    **problems(Kind.INVALID_FIELD, Kind.UNAVAILABLE),
}
MODELS: Documented = {
    200: described(
        object_of({"object": "list", "data": [_MODEL]}, object={"type": "string"}, data={"type": "array"}),
        "The models.",
    ),
    **problems(Kind.UNAVAILABLE),
}

# -- the AI SDK

_UI_PROPERTIES: Json = {
    "id": SESSION_ID | {"description": "The chat's id, which is the session."},
    "messages": {
        "type": "array",
        "minItems": 1,
        "items": {"type": "object"},
        "description": "UI messages; the last is the user's, and the only one that counts.",
    },
    "trigger": {"type": "string", "enum": ["submit-message"]},
    **{k: v for k, v in PROPERTIES.items() if k not in ("session_id", "message")},
}
UI_FIELDS: Json = {
    "type": "object",
    "required": ["id", "messages"],
    "properties": _UI_PROPERTIES,
    "additionalProperties": False,
    "examples": [
        {
            "id": "s1",
            "messages": [{"id": "m1", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}],
            "trigger": "submit-message",
        }
    ],
}
_UI_MESSAGE: Answer = {
    "description": "A UI-message stream, which ends with `data: [DONE]`.",
    "headers": SESSION_HEADER
    | {"x-vercel-ai-ui-message-stream": {"schema": {"type": "string", "enum": ["v1"]}}},
    "content": {
        "text/event-stream": {
            "schema": FRAME,
            "example": 'data: {"type":"text-delta","id":"1","delta":"Hello"}\n\n',
        }
    },
}
UI_STREAM: Documented = {200: _UI_MESSAGE, **problems(*READING, *STREAMING)}
UI_RESUMED: Documented = {
    200: _UI_MESSAGE,
    204: {"description": "Nothing runs."},
    **problems(Kind.INVALID_FIELD, Kind.TOO_MANY_STREAMS, Kind.UNAVAILABLE),
}
