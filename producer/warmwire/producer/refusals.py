"""What an edge's refusal means, in this library's own errors: the same that ``Producer`` raises. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from warmwire.broker.errors import BadInput, QueueFull, StoreFull, Unavailable, WarmwireError
from warmwire.producer.errors import (
    KeyReused,
    MessageTooLarge,
    NotAsked,
    QuestionClosed,
    Refused,
    SessionBusy,
)

PROBLEM = "urn:warmwire:problem:"
PASSING = frozenset({408, 429, 502, 503, 504})
"""Statuses of what passes. Who is in the middle of an answer waits for that."""
_BEFORE_ANYTHING = frozenset({"", "edge_full", "keys_unavailable", "request_timeout", "unavailable"})
"""What says nothing about the message itself; the empty one is a proxy's."""


class _Document(msgspec.Struct):
    """A problem document (RFC 9457), as far as it is read. A proxy sends none."""

    type: str = ""
    detail: str | None = None
    field: str | None = None
    limit: int | None = None

    @property
    def code(self) -> str:
        return self.type.removeprefix(PROBLEM)


def error_of(status: int, body: bytes, session: str, size: int = 0) -> WarmwireError:
    """The error that an answer stands for; ``size`` is that of the message, in bytes."""
    found = _document(body)
    code, limit = found.code, found.limit or 0
    detail = f"the server answered {status}" if found.detail is None else found.detail
    known: dict[str, Callable[[], WarmwireError]] = {
        "message_too_large": lambda: MessageTooLarge(size, limit),
        "queue_full": lambda: QueueFull(session, limit),
        "store_full": lambda: StoreFull(detail),
        "key_reused": KeyReused,
        "session_busy": lambda: SessionBusy(session),
        "question_closed": lambda: QuestionClosed(detail.partition(" ")[0]),
        "unknown_question": lambda: NotAsked(detail.partition(" ")[0]),
        "unavailable": lambda: Unavailable(detail),
    }
    if code in known:
        return known[code]()
    if status in (400, 415, 422):
        return BadInput(found.field or "request", detail.removeprefix(f"{found.field} "))
    return Refused(status, code or str(status), detail, found.field, 1 if status in PASSING else 0)


def passes(status: int, body: bytes, *, begun: bool) -> bool:
    """Whether to try again by ourselves; ``begun`` once a stream has been opened before."""
    return status in PASSING and (begun or _document(body).code in _BEFORE_ANYTHING)


def _document(body: bytes) -> _Document:
    try:
        return msgspec.json.decode(body, type=_Document)
    except msgspec.DecodeError:  # a proxy's page
        return _Document()
