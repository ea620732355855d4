"""What the OpenAPI document says beyond the types of the code: answers, examples, parameters. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NotRequired, TypedDict

from fastapi import APIRouter
from starlette.responses import Response

from warmwire.broker.wire.messages import REASON_LIMIT
from warmwire.edge.chat import NAME_SCHEMA, ROLLUP_LIMIT, ChatRequest
from warmwire.edge.errors import Kind

Json = dict[str, object]
"""A piece of a document, or a JSON schema: written here, read by others."""


class Answer(TypedDict):
    """A response object."""

    description: str
    headers: NotRequired[Json]
    content: NotRequired[Json]


Documented = dict[int | str, Answer]
"""The answers of a route, by status."""

SESSION_ID: Json = NAME_SCHEMA
TURN_ID: Json = {"type": "string"}
TURN = "0197f3a2-6c1e-7d4b-9a55-0c2f8e1b7d10"
_QUESTION = "1795404380883-1"
CURSOR = f"{TURN}.1795404380883.4"


def problems(*kinds: Kind) -> Documented:
    """The error answers of a route, by status."""
    by_status: dict[int, list[Kind]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    return {status: _refused(*found) for status, found in by_status.items()}


def _refused(*kinds: Kind) -> Answer:
    answer: Answer = {
        "description": "; ".join(f"`{kind}`: {kind.what}" for kind in kinds),
        "content": _problem(kinds[0]),
    }
    if any(kind.retry_after for kind in kinds):
        answer["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return answer


def _problem(kind: Kind) -> Json:
    example = {
        "type": f"urn:warmwire:problem:{kind}",
        "title": kind.what,
        "status": kind.status,
        "detail": "what is wrong, in words",
    }
    return {"application/problem+json": {"schema": PROBLEM, "example": example}}


PROBLEM: Json = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "field": {"type": "string"},
        "limit": {"type": "integer"},
    },
}


Route = Callable[..., Awaitable[Response]]


def serve(
    api: APIRouter,
    what: str,
    route: Route,
    answers: Documented,
    extra: Json | None = None,
    tag: str | None = None,
) -> None:
    """Have ``POST /v1/somewhere`` answered by this route, with these answers and no others."""
    method, _, path = what.partition(" ")
    api.add_api_route(
        path,
        route,
        methods=[method],
        tags=[tag] if tag else None,
        responses={status: dict(answer) for status, answer in answers.items()},
        status_code=min(int(status) for status in answers),
        response_class=Response,  # of no media type: FastAPI documents none of its own
        openapi_extra=extra,
    )


_ASKING = (
    *(Kind.UNAUTHENTICATED, Kind.INVALID_TOKEN, Kind.TOKEN_EXPIRED),
    *(Kind.UNUSABLE_TOKEN, Kind.MISSING_SCOPE, Kind.FOREIGN_SESSION, Kind.FOREIGN_ORIGIN, Kind.FOREIGN_HOST),
    *(Kind.KEYS_UNAVAILABLE, Kind.UNAVAILABLE),
    *(Kind.REQUEST_TIMEOUT, Kind.RATE_LIMITED, Kind.HEADERS_TOO_LARGE, Kind.EDGE_FULL),
)
SECURITY: Json = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A JSON Web Token; its scopes: `chat:read`, `chat:write`, `sessions:admin`.",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "From `POST /v1/tickets`: opens one stream, for browsers, and resumes it.",
    },
}


class Operation(TypedDict):
    """What FastAPI says of a route, and what is added."""

    responses: dict[str, Answer]
    security: NotRequired[list[dict[str, list[str]]]]


def secured(document: dict[str, Any], *, optional: bool) -> dict[str, Any]:
    """The document with what authentication adds to each route; ``optional``: it is off, and says so."""
    paths: dict[str, dict[str, Operation]] = document["paths"]
    for path, operations in paths.items():
        if not path.startswith(("/v1/", "/chat/")):
            continue
        for method, operation in operations.items():
            streams = method == "get" and path.endswith(("/events", "/chat/stream"))
            kinds = (*_ASKING, Kind.INVALID_TICKET) if streams else _ASKING
            _add(operation["responses"], problems(*kinds))
            names = ["bearer"] + ["ticket"] * streams
            security: list[dict[str, list[str]]] = [{name: []} for name in names]
            operation["security"] = [{}, *security] if optional else security
    document.setdefault("components", {})["securitySchemes"] = SECURITY
    return document


def _add(answers: dict[str, Answer], more: Documented) -> None:
    for status, answer in more.items():
        known = answers.setdefault(str(status), answer)
        if known is not answer and answer["description"] not in known["description"]:
            known["description"] += f"; {answer['description']}"


def object_of(example: Json, **properties: Json) -> Answer:
    """A JSON answer; every property is there."""
    schema = {"type": "object", "required": list(properties), "properties": properties}
    return {"description": "", "content": {"application/json": {"schema": schema, "example": example}}}


def described(answer: Answer, text: str) -> Answer:
    """An answer with its text."""
    return {**answer, "description": text}


def parameter(where: str, name: str, schema: Json, text: str, *, required: bool = False) -> Json:
    """A parameter."""
    return {"in": where, "name": name, "schema": schema, "description": text, "required": required}


# -- streams

FRAME: Json = {
    "type": "object",
    "description": "Each event of the stream.",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}, "id": {"type": "string"}},
}
SESSION_HEADER: Json = {
    "X-Session-Id": {"schema": {"type": "string"}, "description": "The session, also when made here."}
}
EVENTS: Answer = {
    "description": "Server-sent events: docs/reference/events.md lists their types.",
    "headers": SESSION_HEADER,
    "content": {
        "text/event-stream": {
            "schema": FRAME,
            "example": "event: content_block_delta\n"
            'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}\n'
            f"id: {CURSOR}\n\n",
        }
    },
}
_ACCEPTING = (
    Kind.KEY_REUSED,
    Kind.SESSION_BUSY,
    Kind.QUEUE_FULL,
    Kind.TOO_MANY_TURNS,
    Kind.STORE_FULL,
    Kind.POOL_FULL,
    Kind.UNAVAILABLE,
)
STREAMING = (Kind.TOO_MANY_STREAMS, *_ACCEPTING)
READING = (
    Kind.NOT_JSON,
    Kind.MESSAGE_TOO_LARGE,
    Kind.WRONG_MEDIA_TYPE,
    Kind.INVALID_FIELD,
    Kind.UNKNOWN_FIELD,
)
STREAM: Documented = {200: EVENTS, **problems(*READING, *STREAMING)}
RESUMED: Documented = {
    200: EVENTS,
    204: {"description": "`Last-Event-ID` is the end of the turn: everything has been delivered."},
    **problems(Kind.MESSAGE_TOO_LARGE, Kind.INVALID_FIELD, Kind.UNKNOWN_FIELD, *STREAMING),
}
WATCHED: Documented = {
    200: EVENTS,
    **problems(Kind.INVALID_FIELD, Kind.UNKNOWN_FIELD, Kind.TOO_MANY_STREAMS, Kind.UNAVAILABLE),
}

FIELDS = ChatRequest.model_json_schema()
PROPERTIES: dict[str, Json] = FIELDS["properties"]
MESSAGE_FIELDS: Json = {
    **FIELDS,
    "properties": {k: v for k, v in PROPERTIES.items() if k not in ("session_id", "rollup_ms")},
    "examples": [{"message": "Hello"}],
}
KEY = parameter(
    "header",
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255},
    "The same key in the same session is the same turn: a repetition follows it and sends nothing.",
)
ROLLUP = parameter(
    "query",
    "rollup_ms",
    {"type": "integer", "minimum": 0, "maximum": ROLLUP_LIMIT, "default": 0},
    "Milliseconds that a text delta may wait for others; the first of a turn never does.",
)
CURSORS = [
    parameter(
        "query", "last_event_id", {"type": "string"}, "As `Last-Event-ID`, where headers cannot be set."
    ),
    parameter("header", "Last-Event-ID", {"type": "string"}, "The id of the last event that was received."),
]

HEALTHY: Documented = {
    200: described(object_of({"status": "ok"}, status={"type": "string"}), "The process answers."),
}
READY: Documented = {
    200: described(object_of({"status": "ready"}, status={"type": "string"}), "A message would be answered."),
    **problems(Kind.NOT_READY),
}


def body(schema: Json, *parameters: Json, required: bool = True) -> Json:
    """A JSON body."""
    return {
        "parameters": list(parameters),
        "requestBody": {"required": required, "content": {"application/json": {"schema": schema}}},
    }


BODY = body(FIELDS, KEY)
_IN_QUERY = [
    parameter(
        "query",
        name,
        {"type": "string", "minLength": 1} if name == "message" else schema,
        "",
        required=name == "session_id",
    )
    for name, schema in PROPERTIES.items()
]
QUERY: Json = {"parameters": _IN_QUERY + CURSORS}
EITHER = body(FIELDS, *(each | {"required": False} for each in _IN_QUERY), KEY, required=False)

# -- tickets

ISSUED: Documented = {
    201: described(
        object_of(
            {"ticket": "wwt_…", "session_id": "s1", "expires_in": 60},
            ticket={"type": "string"},
            session_id=SESSION_ID,
            expires_in={"type": "integer"},
        ),
        "Opens one stream of that session, until `expires_in` seconds are over.",
    ),
    **problems(*READING, Kind.UNAVAILABLE),
}

# -- sessions

ACCEPTED: Documented = {
    202: described(
        object_of({"turn": TURN, "session_id": "s1"}, turn=TURN_ID, session_id=SESSION_ID),
        "Accepted: it will be answered. A repeated `Idempotency-Key` is answered alike.",
    ),
    **problems(*READING, *_ACCEPTING),
}
_STOPPED = object_of(
    {"session_id": "s1", "turn": TURN},
    session_id=SESSION_ID,
    turn={"anyOf": [TURN_ID, {"type": "null"}]},
)
INTERRUPTED: Documented = {
    200: described(_STOPPED, "There is nothing to stop."),
    202: described(_STOPPED, "The turn stops; its end comes as `turn_interrupted`."),
    **problems(*READING, Kind.UNAVAILABLE),
}
PERMITTED: Documented = {
    200: described(
        object_of(
            {"session_id": "s1", "request": _QUESTION, "allow": True},
            session_id=SESSION_ID,
            request=SESSION_ID,
            allow={"type": "boolean"},
        ),
        "The CLI has this answer.",
    ),
    **problems(*READING, Kind.UNKNOWN_QUESTION, Kind.QUESTION_CLOSED, Kind.UNAVAILABLE),
}
VERDICT: Json = {
    "type": "object",
    "required": ["allow"],
    "properties": {
        "allow": {"type": "boolean"},
        "input": {"type": "object", "description": "What the tool gets instead; with `allow: true`."},
        "reason": {
            "type": "string",
            "maxLength": REASON_LIMIT,
            "description": "Why not: the model is told; with `allow: false`.",
        },
        "turn": {"type": "string", "description": "Only if the question is this turn's."},
    },
    "additionalProperties": False,
    "examples": [{"allow": True}, {"allow": False, "reason": "Not on a Friday."}],
}
INTERRUPT: Json = {
    "type": "object",
    "properties": {
        "turn": {"anyOf": [{"type": "string", "pattern": SESSION_ID["pattern"]}, {"type": "null"}]}
    },
    "additionalProperties": False,
    "examples": [{}, {"turn": TURN}],
}
_ASKED: Json = {
    "type": "object",
    "required": ["turn", "message", "message_truncated"],
    "properties": {
        "turn": TURN_ID,
        "message": {"type": "string", "description": "The user message's text, up to 64 KiB of it."},
        "message_truncated": {"type": "boolean"},
    },
}
STANDING: Documented = {
    200: described(
        object_of(
            {
                "session_id": "s1",
                "state": "running",
                "turns": [TURN],
                "messages": [{"turn": TURN, "message": "Hello", "message_truncated": False}],
                "viewers": 1,
            },
            session_id=SESSION_ID,
            state={"type": "string", "enum": ["idle", "running"]},
            turns={"type": "array", "items": TURN_ID},
            messages={"type": "array", "items": _ASKED},
            viewers={"type": "integer"},
        ),
        "`turns` wait or run, in order, `messages` are theirs; `viewers` are counted over all edges.",
    ),
    **problems(Kind.UNKNOWN_SESSION, Kind.INVALID_FIELD, Kind.UNAVAILABLE),
}
DELETED: Documented = {
    204: {"description": "Its turns have stopped, its process is gone, nothing of it is stored."},
    **problems(Kind.UNKNOWN_SESSION, Kind.INVALID_FIELD, Kind.UNAVAILABLE),
}
_ENDED_TURN: Json = {
    "type": "object",
    "required": [
        "turn",
        "ending",
        "text",
        "truncated",
        "message",
        "message_truncated",
        "attempt",
        "cursor",
        "event",
    ],
    "properties": {
        "turn": TURN_ID,
        "ending": {"type": "string", "enum": ["completed", "interrupted", "failed"]},
        "text": {"type": "string"},
        "truncated": {"type": "boolean"},
        "message": {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "What was asked."},
        "message_truncated": {"type": "boolean"},
        "attempt": {"type": "integer"},
        "cursor": {"type": "string"},
        "event": {"type": "object", "description": "The terminal event."},
    },
}
TURNS: Documented = {
    200: described(
        object_of(
            {
                "turns": [
                    {
                        "turn": TURN,
                        "ending": "completed",
                        "text": "Hello!",
                        "truncated": False,
                        "message": "Hello",
                        "message_truncated": False,
                        "attempt": 1,
                        "cursor": CURSOR,
                        "event": {"type": "turn_completed", "turn": TURN, "attempt": 1, "duration_ms": 812},
                    }
                ],
                "next": None,
            },
            turns={"type": "array", "items": _ENDED_TURN},
            next={"anyOf": [{"type": "integer"}, {"type": "null"}]},
        ),
        "Turns that have ended, the oldest first; `next` is the `after` of the next page.",
    ),
    **problems(Kind.INVALID_FIELD, Kind.UNKNOWN_FIELD, Kind.UNAVAILABLE),
}
