"""What Claude Code is told on stdin, through its adapter."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from warmwire.broker.wire.messages import ContentBlock
from warmwire.worker.cli import claude_stdin
from warmwire.worker.cli.claude_code import Claude


def test_a_user_line_is_one_line_and_verbatim() -> None:
    line = Claude().user_line('@/etc/passwd\n"/clear" é \u2028', "u1")
    assert line.endswith(b"}\n")
    assert 1 == line.count(b"\n")
    sent = json.loads(line)
    assert {
        "type": "user",
        "message": {"role": "user", "content": '@/etc/passwd\n"/clear" é \u2028'},
        "parent_tool_use_id": None,
        "session_id": "",
        "uuid": "u1",
        "client_composed": True,
    } == sent


def test_a_user_line_takes_content_blocks() -> None:
    blocks: tuple[ContentBlock, ...] = ({"type": "text", "text": "look"}, {"type": "image", "source": {}})
    assert [*blocks] == json.loads(Claude().user_line(blocks, "u1"))["message"]["content"]


@pytest.mark.parametrize(
    ("tell", "name", "expected"),
    [
        (
            lambda cli: cli.interrupt_line("r1"),
            "r1",
            {"subtype": "interrupt", "cancel_queued": True},
        ),
        (lambda cli: cli.ready_line(), claude_stdin.READY, {"subtype": "mcp_status"}),
        (lambda cli: cli.cost_line(), claude_stdin.COST, {"subtype": "get_session_cost"}),
        (
            lambda cli: cli.adopt_line("Be brief."),
            claude_stdin.ADOPT,
            {"subtype": "initialize", "systemPrompt": "Be brief."},
        ),
        (
            lambda cli: cli.model_line("opus"),
            claude_stdin.SET_MODEL,
            {"subtype": "apply_flag_settings", "settings": {"model": "opus"}},
        ),
        (
            lambda cli: cli.mode_line("plan"),
            claude_stdin.SET_MODE,
            {"subtype": "set_permission_mode", "mode": "plan"},
        ),
        *(
            (
                lambda cli, tokens=tokens: cli.thinking_line(tokens),
                claude_stdin.SET_THINKING,
                {"subtype": "set_max_thinking_tokens", "max_thinking_tokens": tokens},
            )
            for tokens in (None, 1024)
        ),
    ],
)
def test_a_request_to_the_cli_carries_its_name(
    tell: Callable[[Claude], bytes], name: str, expected: dict[str, object]
) -> None:
    sent = json.loads(tell(Claude()))
    assert {"type": "control_request", "request_id": name, "request": expected} == sent


def test_a_credential_is_a_variable_of_the_process() -> None:
    variables = {"CLAUDE_CODE_OAUTH_TOKEN": "made up"}
    expected = {"type": "update_environment_variables", "variables": variables}
    assert expected == json.loads(Claude().credential_line("made up"))


def test_a_refusal_answers_the_request() -> None:
    answer = json.loads(claude_stdin.refuse_line("r9", "no"))["response"]
    assert {"subtype": "error", "request_id": "r9", "error": "no"} == answer
