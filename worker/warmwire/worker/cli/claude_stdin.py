"""The `claude` dialect: what the CLI is told on stdin. (What it says: `claude`.)

Pure: values in, lines out. What is relied on holds for Claude Code 2.1.330; tests/worker/contract/ checks it
against the real CLI.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from warmwire.broker.wire.messages import Content
from warmwire.worker.cli.said import Wish


def user_line(content: Content, uuid: str) -> bytes:
    """One user message. `uuid` is its id in the CLI, which silently drops an id it has seen before."""
    return _line(
        {
            "type": "user",
            "message": {"role": "user", "content": content},
            "parent_tool_use_id": None,
            "session_id": "",
            "uuid": uuid,
            # Verbatim: without it the CLI reads the file named in "@/etc/passwd" and executes "/clear".
            "client_composed": True,
        }
    )


def interrupt_line(request_id: str) -> bytes:
    """Stop the running turn.

    A message that the CLI has read but not yet begun is cancelled: its `Lifecycle` says so and no `Result`
    follows. (Without `cancel_queued` an interrupt this early is lost now and then, and the turn runs.)
    """
    return _control(request_id, {"subtype": "interrupt", "cancel_queued": True})


READY = "ready"
COST = "cost"
ADOPT = "adopt"
SET_MODEL = "set-model"
SET_MODE = "set-permission-mode"
SET_THINKING = "set-thinking"
NEEDED = (ADOPT, SET_MODEL, SET_MODE, SET_THINKING)
"""Request ids of what is told between turns; a process that refuses it is of no use to its session."""


def ready_line() -> bytes:
    """Answered as soon as the CLI is up, by an error if need be.

    Not by `initialize`: the first of those fixes the system prompt for good.
    """
    return _control(READY, {"subtype": "mcp_status"})


def adopt_line(system_prompt: str) -> bytes:
    """Bind a process that was started without a system prompt; before its first message, and once."""
    return _control(ADOPT, {"subtype": "initialize", "systemPrompt": system_prompt})


def set_model_line(model: str | None) -> bytes:
    """From the next message on; None is what the CLI takes when it is not told. The API judges the name.

    Not by `set_model`, which first asks the API for a token of the new model, and the turn waits. Either way
    the CLI notes a change between turns in the conversation; one before the first message leaves no trace.
    """
    return _control(SET_MODEL, {"subtype": "apply_flag_settings", "settings": {"model": model}})


def mode_line(mode: str) -> bytes:
    """From the next message on, this is how tools get their leave."""
    return _control(SET_MODE, {"subtype": "set_permission_mode", "mode": mode})


def thinking_line(tokens: int | None) -> bytes:
    """From the next message on; None is what the CLI takes when it is not told."""
    return _control(SET_THINKING, {"subtype": "set_max_thinking_tokens", "max_thinking_tokens": tokens})


def cost_line() -> bytes:
    """What has the process cost? Answered at once, also within a turn, in words."""
    return _control(COST, {"subtype": "get_session_cost"})


def credential_line(token: str) -> bytes:
    """A user's OAuth token, from the next call of the API on; for a process without an API key."""
    return _line({"type": "update_environment_variables", "variables": {"CLAUDE_CODE_OAUTH_TOKEN": token}})


def allow_line(request_id: str, wish: Wish, instead: bytes | None = None) -> bytes:
    """Yes to a wish; the CLI uses the tool with the input that it is told here: its own, or another.

    ``instead`` is JSON in one line.
    """
    given = msgspec.Raw(wish.input if instead is None else instead)
    return _permission(request_id, {"behavior": "allow", "updatedInput": given})


def deny_line(request_id: str, reason: str) -> bytes:
    """No to a wish; the model is told the reason, and the turn goes on."""
    return _permission(request_id, {"behavior": "deny", "message": reason})


def _permission(request_id: str, answer: Mapping[str, object]) -> bytes:
    response = {"subtype": "success", "request_id": request_id, "response": answer}
    return _line({"type": "control_response", "response": response})


def refuse_line(request_id: str, reason: str) -> bytes:
    """Answer a `ControlRequest`: left without an answer it would hang the turn."""
    answer = {"subtype": "error", "request_id": request_id, "error": reason}
    return _line({"type": "control_response", "response": answer})


def _control(request_id: str, request: Mapping[str, object]) -> bytes:
    return _line({"type": "control_request", "request_id": request_id, "request": request})


def _line(message: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(message) + b"\n"
