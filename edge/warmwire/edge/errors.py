"""What an HTTP client is told when something is wrong: problem documents (RFC 9457).

EdgeError
├── Problem(kind, detail, field, limit)   answered as application/problem+json
└── AddressError                          the address cannot be listened on; start-up ends

https://www.rfc-editor.org/rfc/rfc9457
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from warmwire.broker.errors import BadInput, QueueFull, StoreFull, Unavailable, WarmwireError
from warmwire.broker.wire.names import NAME_LIMIT
from warmwire.producer.errors import KeyReused, MessageTooLarge, NotAsked, QuestionClosed, SessionBusy
from warmwire.producer.request import KEY_LIMIT

CLOSED_REQUEST = 499
"""The status for a client that left before its answer, as nginx logs it; nobody receives it."""
LIMITS = {"session_id": NAME_LIMIT, "Idempotency-Key": KEY_LIMIT}
"""Characters in a field, at most; a problem names it."""


class Kind(StrEnum):
    """code, status, what it means, seconds after which another try makes sense (0: it does not)."""

    status: int
    what: str
    retry_after: int

    def __new__(cls, code: str, status: int, what: str, retry_after: int = 0) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.status = status
        member.what = what
        member.retry_after = retry_after
        return member

    NOT_JSON = "not_json", 400, "The body is not JSON"
    UNAUTHENTICATED = "unauthenticated", 401, "A token is needed"
    INVALID_TOKEN = "invalid_token", 401, "The token is not valid"
    TOKEN_EXPIRED = "token_expired", 401, "The token has expired: come back with a new one"
    INVALID_TICKET = "invalid_ticket", 401, "The ticket lets nobody in"
    UNUSABLE_TOKEN = "unusable_token", 403, "The token is genuine, but a claim of it is of no use here"
    MISSING_SCOPE = "missing_scope", 403, "The token does not allow that"
    FOREIGN_SESSION = "foreign_session", 403, "The session is somebody else's"
    FOREIGN_ORIGIN = "foreign_origin", 403, "Pages from there may not use this"
    FOREIGN_HOST = "foreign_host", 403, "This edge does not go by that name"
    NOT_FOUND = "not_found", 404, "There is nothing here"
    UNKNOWN_SESSION = "unknown_session", 404, "Nobody has used the session"
    UNKNOWN_QUESTION = "unknown_question", 404, "The session's owner has not asked that"
    METHOD_NOT_ALLOWED = "method_not_allowed", 405, "The method is not allowed here"
    SESSION_BUSY = "session_busy", 409, "The session is busy with another turn", 1
    QUESTION_CLOSED = "question_closed", 409, "The question is open no longer"
    REQUEST_TIMEOUT = "request_timeout", 408, "The request came too slowly", 1
    MESSAGE_TOO_LARGE = "message_too_large", 413, "The message is too large"
    WRONG_MEDIA_TYPE = "wrong_media_type", 415, "The body must be application/json"
    INVALID_FIELD = "invalid_field", 422, "A field is not acceptable"
    UNKNOWN_FIELD = "unknown_field", 422, "A field is not known"
    KEY_REUSED = "key_reused", 422, "The Idempotency-Key stands for another message"
    QUEUE_FULL = "queue_full", 429, "The session has too many messages waiting", 2
    RATE_LIMITED = "rate_limited", 429, "Too many requests", 1
    TOO_MANY_STREAMS = "too_many_streams", 429, "Too many streams are open", 5
    TOO_MANY_TURNS = "too_many_turns", 429, "The tenant has too many turns waiting or running", 2
    TOO_MANY_SESSIONS = "too_many_sessions", 429, "The tenant has too many sessions: delete some", 5
    HEADERS_TOO_LARGE = "headers_too_large", 431, "The request's headers are too large"
    INTERNAL = "internal", 500, "The edge failed; this is a bug"
    TURN_FAILED = "turn_failed", 502, "The turn ended without a complete answer", 2
    EDGE_FULL = "edge_full", 503, "This edge has too many connections", 2
    KEYS_UNAVAILABLE = "keys_unavailable", 503, "Tokens cannot be checked at the moment", 5
    NOT_READY = "not_ready", 503, "Not ready", 1
    POOL_FULL = "pool_full", 503, "Every worker is busy", 2
    STORE_FULL = "store_full", 503, "Too many messages are waiting", 5
    UNAVAILABLE = "unavailable", 503, "The message queue does not answer", 2


class EdgeError(WarmwireError):
    """The root: everything an edge raises on purpose."""


class AddressError(EdgeError):
    """The HTTP address cannot be had."""


class Problem(EdgeError):
    """An answer that is an error. ``field`` and ``limit`` name what is wrong and what would be right.

    ``retry_after`` is in seconds, where more is known than the kind says; 0: another try makes no sense.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        field: str | None = None,
        limit: float | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.field = field
        self.limit = limit
        self.retry_after = kind.retry_after if retry_after is None else retry_after

    def headers(self) -> dict[str, str]:
        """The headers that the answer has because of what it says."""
        retry = {"retry-after": str(self.retry_after)} if self.retry_after else {}
        challenge = {"www-authenticate": self._challenge()} if self.kind.status == 401 else {}
        return {"cache-control": "no-store"} | retry | challenge

    def _challenge(self) -> str:
        """https://www.rfc-editor.org/rfc/rfc6750#section-3"""
        bare = 'Bearer realm="warmwire"'
        return bare if self.kind is Kind.UNAUTHENTICATED else f'{bare}, error="invalid_token"'

    def document(self) -> dict[str, str | float]:
        """The body of the answer."""
        kind = self.kind
        whole: dict[str, str | float | None] = {
            "type": f"urn:warmwire:problem:{kind}",
            "title": kind.what,
            "status": kind.status,
            "detail": self.detail,
            "field": self.field,
            "limit": self.limit,
        }
        return {name: value for name, value in whole.items() if value is not None}


_KINDS: dict[type[WarmwireError], Kind] = {
    QuestionClosed: Kind.QUESTION_CLOSED,  # before its base
    NotAsked: Kind.UNKNOWN_QUESTION,
    SessionBusy: Kind.SESSION_BUSY,
    StoreFull: Kind.STORE_FULL,
    Unavailable: Kind.UNAVAILABLE,
}


def problem_of(error: WarmwireError) -> Problem:
    """What a client is told of an error from below."""
    match error:
        case Problem():
            return error
        case MessageTooLarge(field=field, limit=limit):
            return Problem(Kind.MESSAGE_TOO_LARGE, f"message {error.problem}", field, limit)
        case KeyReused():
            return Problem(Kind.KEY_REUSED, "the same key came with another message", "Idempotency-Key")
        case BadInput():
            field = "Idempotency-Key" if error.field == "idempotency_key" else error.field
            return Problem(Kind.INVALID_FIELD, f"{field} {error.problem}", field, LIMITS.get(field))
        case QueueFull(limit=limit):
            return Problem(Kind.QUEUE_FULL, str(error), limit=limit)
    kind = next((kind for type_, kind in _KINDS.items() if isinstance(error, type_)), None)
    return Problem(kind, str(error)) if kind else Problem(Kind.INTERNAL, "see the edge's log")
