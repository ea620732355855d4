"""What an edge's refusal means, in this library's own errors: the same that ``Producer`` raises. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

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


def error_of(status: int, body: bytes, session: str, size: int = 0) -> WarmwireError:
    """The error that an answer stands for; ``size`` is that of the message, in bytes."""
    found = _document(body)
    code = str(found.get("type", "")).removeprefix(PROBLEM)
    detail, field = str(found.get("detail", f"the server answered {status}")), found.get("field")
    limit = int(found.get("limit") or 0)
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
    name = str(field) if field else None
    if status in (400, 415, 422):
        return BadInput(name or "request", detail.removeprefix(f"{name} "))
    return Refused(status, code or str(status), detail, name, 1 if status in PASSING else 0)


def passes(status: int, body: bytes, *, begun: bool) -> bool:
    """Whether to try again by ourselves; ``begun`` once a stream has been opened before."""
    code = str(_document(body).get("type", "")).removeprefix(PROBLEM)
    return status in PASSING and (begun or code in _BEFORE_ANYTHING)


def _document(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:  # a proxy's page
        return {}
    return found if isinstance(found, dict) else {}
