"""What can go wrong in a worker.

    WorkerError
    ├── CredentialRefused   a user's credential cannot be used; carries an `ErrorCode`
    └── CliError            carries an `ErrorCode`
        ├── CliMissing      the command is not there or may not be run
        ├── CliStartFailed  it is there, but the process could not be started
        ├── CliStalled      it does not read its input
        └── CliGone         it has ended, or its input is closed

An `ErrorCode` is what a viewer sees in `turn_failed`; whether a retry can help is data, not a client's guess.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class ErrorCode(StrEnum):
    """code, one sentence for a person, whether sending the same message again can help."""

    message: str
    retryable: bool

    def __new__(cls, code: str, message: str, retryable: bool) -> Self:
        member = str.__new__(cls, code)
        member._value_ = code
        member.message = message
        member.retryable = retryable
        return member

    # The API said no.
    AUTH_FAILED = "auth_failed", "The API refused the credential.", False
    INVALID_REQUEST = "invalid_request", "The API refused the request as invalid.", False
    CREDENTIAL_EXPIRED = "credential_expired", "The credential was sent too long ago.", True
    CREDENTIAL_UNREADABLE = "credential_unreadable", "The credential cannot be opened.", False
    MODEL_NOT_FOUND = (
        "model_not_found",
        "The API does not know the model, or the credential may not use it.",
        False,
    )
    PROMPT_TOO_LONG = "prompt_too_long", "The conversation is longer than the model can read.", False
    RATE_LIMITED = "rate_limited", "The API's rate limit was reached.", True
    OVERLOADED = "overloaded", "The API is overloaded.", True
    API_ERROR = "api_error", "The API failed or could not be reached.", True
    # A limit of ours or of the profile.
    MAX_TURNS = "max_turns", "The turn needed more steps than it is allowed.", False
    TIME_LIMIT = "time_limit", "The turn took longer than it is allowed.", False
    BUDGET_EXCEEDED = "budget_exceeded", "The budget of the turn or its session is used up.", False
    UNKNOWN_PROFILE = "unknown_profile", "The worker does not know the profile.", False
    NOT_ALLOWED = "not_allowed", "The profile does not allow what the message asks for.", False
    SESSION_FIXED = "session_fixed", "What the message asks for cannot change within a session.", False
    TOO_MANY_ATTEMPTS = "too_many_attempts", "The turn was tried too often without success.", False
    # The CLI process.
    CLI_MISSING = "cli_missing", "The CLI is not installed where the worker looks for it.", False
    CLI_START_FAILED = "cli_start_failed", "The CLI process could not be started.", True
    CLI_CRASHED = "cli_crashed", "The CLI process ended in the middle of the turn.", True
    CLI_STALLED = "cli_stalled", "The CLI process stopped answering.", True
    CLI_FAILED = "cli_failed", "The CLI reported an error of its own.", True
    LINE_TOO_LONG = "line_too_long", "The CLI printed a line longer than the limit.", False
    BAD_LINE = "bad_line", "The CLI printed a line that could not be understood.", True
    # The worker.
    UNREADABLE_MESSAGE = "unreadable_message", "The worker cannot read the message.", False
    WORKER_LOST = "worker_lost", "The worker that ran the turn was lost.", True
    INTERNAL = "internal", "The worker failed; this is a bug.", True


class WorkerError(Exception):
    """The root: everything a worker raises on purpose."""


class CredentialRefused(WorkerError):
    """A user's credential is of no use; the text never holds it."""

    def __init__(self, code: ErrorCode, why: str) -> None:
        super().__init__(why)
        self.code = code


class CliError(WorkerError):
    """The CLI process is not usable."""

    code = ErrorCode.CLI_FAILED


class CliMissing(CliError):
    code = ErrorCode.CLI_MISSING


class CliStartFailed(CliError):
    code = ErrorCode.CLI_START_FAILED


class CliStalled(CliError):
    code = ErrorCode.CLI_STALLED


class CliGone(CliError):
    code = ErrorCode.CLI_CRASHED
