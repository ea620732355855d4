"""The broker's error tree. Errors carry fields; whether to try again is data.

WarmwireError
├── BadInput(field, problem)         the caller's mistake: nothing was published
│   └── BadEnvelope                  something alien on an event subject
├── Unavailable                      NATS cannot be reached, or did not answer in time (retryable)
│   └── NoResponder                  nobody is subscribed to the asked subject (retryable)
├── QueueFull(session)               the session's queue holds its limit of user messages (retryable)
├── StoreFull                        the stream of user messages is full (retryable)
├── Conflict(subject)                compare-and-swap lost: somebody wrote first
├── Contended(subject)               the server is still at work on that subject (retryable)
└── Misconfigured                    the server cannot give what is needed; start-up ends
"""

from __future__ import annotations


class WarmwireError(Exception):
    """Base of every error this project raises.

    ``retryable`` tells whether the same call may succeed later without a change by the caller.
    """

    retryable = False


class BadInput(WarmwireError):
    """A value from outside is not acceptable. ``field`` names it, ``problem`` says what and the limit."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class BadEnvelope(BadInput):
    """Bytes on an event subject that are not an envelope of a version that we speak."""

    def __init__(self, problem: str) -> None:
        super().__init__("envelope", problem)


class Unavailable(WarmwireError):
    """NATS cannot be reached or did not answer within the time limit."""

    retryable = True


class NoResponder(Unavailable):
    """Nobody is subscribed to the subject. Not a death certificate: it means "ask again"."""


class QueueFull(WarmwireError):
    """A session's queue holds as many user messages as it may."""

    retryable = True

    def __init__(self, session: str, limit: int) -> None:
        super().__init__(f"session {session} already has {limit} messages waiting")
        self.session = session
        self.limit = limit


class StoreFull(WarmwireError):
    """The stream of user messages has reached its size limit."""

    retryable = True


class Conflict(WarmwireError):
    """A compare-and-swap found another value than expected."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"somebody else wrote {subject} first")
        self.subject = subject


class Contended(WarmwireError):
    """The server refused because an earlier write to the subject is not settled yet; try again."""

    retryable = True


class Misconfigured(WarmwireError):
    """The NATS server or a stream is not what is needed; the text says what to do."""
