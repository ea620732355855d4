"""What can go wrong in the producer library, beside the broker's errors.

WarmwireError (broker)
├── BadInput (broker)
│   ├── MessageTooLarge(size, limit)    nothing was published
│   └── KeyReused                       the idempotency key already stands for another message
├── SessionBusy(session)                asked to reject, and another turn is waiting or running (retryable)
├── NotAsked(request)                   the session's owner has not asked that
│   └── QuestionClosed                  it has, but it is open no longer
├── Lagging(cursor)                     the events were not read in time; resume from the cursor (retryable)
└── TurnFailed(code, text)              the turn ended without a (complete) answer
"""

from __future__ import annotations

from warmwire.broker.errors import BadInput, WarmwireError


class MessageTooLarge(BadInput):
    """The message is larger than allowed. ``size`` and ``limit`` are in bytes of UTF-8."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__("message", f"has {size} bytes, {limit} are allowed")
        self.size = size
        self.limit = limit


class KeyReused(BadInput):
    """The same idempotency key was used in this session for a message that was not the same."""

    def __init__(self) -> None:
        super().__init__("idempotency_key", "was used in this session for another message")


class SessionBusy(WarmwireError):
    """The session has a turn that waits or runs, and the caller asked not to queue behind it."""

    retryable = True

    def __init__(self, session: str) -> None:
        super().__init__(f"session {session} is busy with another turn")
        self.session = session


class NotAsked(WarmwireError):
    """The session's owner has not asked the question that is answered, or not in that turn."""

    problem = "is not a question of the session's owner"

    def __init__(self, request: str) -> None:
        super().__init__(f"{request} {self.problem}")
        self.request = request


class QuestionClosed(NotAsked):
    """It was answered before, its time is up, or its turn has ended."""

    problem = "is a question that is open no longer"


class Lagging(WarmwireError):
    """Events came faster than they were read. None is lost: they continue after ``cursor``."""

    retryable = True

    def __init__(self, cursor: str) -> None:
        super().__init__(f"events were not read in time; resume from {cursor}")
        self.cursor = cursor


class TurnFailed(WarmwireError):
    """The turn ended without a complete answer; ``text`` is what there was of it."""

    def __init__(self, code: str, message: str, text: str, *, retryable: bool) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.text = text
        self.retryable = retryable
