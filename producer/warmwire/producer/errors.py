"""What can go wrong in the producer library, beside the broker's errors.

WarmwireError (broker)
├── BadInput (broker)
│   ├── MessageTooLarge(size, limit)    nothing was published
│   └── KeyReused                       the idempotency key already stands for another message
├── SessionBusy(session)                asked to reject, and another turn is waiting or running (retryable)
├── NotAsked(request)                   the session's owner has not asked that
│   └── QuestionClosed                  it has, but it is open no longer
├── Lagging(cursor)                     the events were not read in time; resume from the cursor (retryable)
├── Refused(status, code, field)        an edge has refused the request; nothing was published
├── NotAnEdge                           what answers at the URL is no edge
├── TextVoid(text)                      text that was given out is void, and cannot be taken back
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


class Refused(WarmwireError):
    """An edge has refused a request. ``code`` is the problem's, as docs/reference/http.md lists them.

    ``retry_after`` is in seconds, 0 where another try makes no sense.
    """

    def __init__(self, status: int, code: str, detail: str, field: str | None, retry_after: float) -> None:
        super().__init__(f"{code}: {detail}")
        self.status = status
        self.code = code
        self.field = field
        self.retry_after = retry_after
        self.retryable = retry_after > 0


class NotAnEdge(WarmwireError):
    """What answers at the URL does not speak as an edge does."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"what answers there is no edge: {problem}")


class TextVoid(WarmwireError):
    """The answer begins again otherwise, and who was given ``text`` of it can only be given more."""

    def __init__(self, text: str) -> None:
        super().__init__("text that was given out is void: the turn was begun again")
        self.text = text
