"""The dialect on recorded lines.

recorded/ holds what Claude Code 2.1.330 printed when it talked to the stand-in API; paths, ids and
attachments are shortened.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmwire.worker.cli import claude, claude_stdin
from warmwire.worker.cli.claude import parse
from warmwire.worker.cli.lines import Lines, LineTooLong
from warmwire.worker.cli.said import (
    Assistant,
    BadLine,
    ControlReply,
    ControlRequest,
    Ignored,
    Init,
    Lifecycle,
    Line,
    Mirror,
    Result,
    Retry,
    StreamEvent,
    ToolResult,
    ToolResults,
    ToolUse,
    Usage,
)
from warmwire.worker.errors import ErrorCode

RECORDED = Path(__file__).parents[1] / "recorded"
RECORDINGS = sorted(path.stem for path in RECORDED.glob("*.jsonl"))
SESSION = "00000000-0000-4000-8000-000000000003"
MESSAGE = "00000000-0000-4000-8000-000000000001"


def recorded(name: str) -> list[bytes]:
    return (RECORDED / f"{name}.jsonl").read_bytes().splitlines()


def read(name: str) -> list[Line]:
    return [parse(line) for line in recorded(name)]


def of(kind: type[Line], lines: list[Line]) -> list[Any]:
    return [line for line in lines if isinstance(line, kind)]


def said(**line: object) -> bytes:
    return json.dumps(line).encode()


# --- whole turns -----------------------------------------------------------------------------------------


def test_a_plain_turn() -> None:
    lines = read("completed")
    assert [Lifecycle(MESSAGE, "queued"), Lifecycle(MESSAGE, "started")] == lines[:2]
    assert Init(SESSION, "claude-sonnet-4-5", "2.1.330") == lines[2]
    events = of(StreamEvent, lines)
    assert [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ] == [event.type for event in events]
    assert "Hello, Grüße!" == "".join(text_of(event) for event in events)
    assert ["Hello, Grüße!"] == [block.text for block in of(Assistant, lines)]
    (result,) = of(Result, lines)
    assert ("completed", None, "Hello, Grüße!") == (result.ending, result.error, result.text)
    assert Lifecycle(MESSAGE, "completed") == lines[lines.index(result) + 1]


def text_of(event: StreamEvent) -> str:
    delta: dict[str, str] = json.loads(event.event).get("delta", {})
    return delta.get("text", "")


@pytest.mark.parametrize("name", RECORDINGS)
def test_an_event_is_passed_on_byte_for_byte(name: str) -> None:
    for line in recorded(name):
        found = parse(line)
        if isinstance(found, StreamEvent):
            assert b'"event":' + found.event + b',"session_id"' in line
            assert json.loads(line)["event"] == json.loads(found.event)
            assert json.loads(found.event)["type"] == found.type


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_recorded_line_is_understood(name: str) -> None:
    lines = read(name)
    assert [] == of(BadLine, lines)
    assert {"system/status", "user"} >= {line.type for line in of(Ignored, lines)}
    assert 1 == len(of(Result, lines))


@pytest.mark.parametrize("name", RECORDINGS)
def test_mirrored_entries_are_the_lines_of_the_transcript(name: str) -> None:
    lines = recorded(name)
    sent = [entry for line in lines for entry in json.loads(line).get("entries", [])]
    mirrors = of(Mirror, [parse(line) for line in lines])
    assert sent == [json.loads(entry) for mirror in mirrors for entry in mirror.entries]
    assert {f"/data/sessions/s1/home/.claude/projects/-data-sessions-s1-work/{SESSION}.jsonl"} == {
        mirror.file for mirror in mirrors
    }


def test_the_answer_is_mirrored_before_the_result() -> None:
    lines = read("completed")
    before = lines[: lines.index(of(Result, lines)[0])]
    assert any(b'"role":"assistant"' in entry for mirror in of(Mirror, before) for entry in mirror.entries)


def test_a_tool_loop() -> None:
    lines = read("tool")
    (use,) = [tool for block in of(Assistant, lines) for tool in block.tools]
    assert ToolUse(use.id, "Bash", b'{"command":"echo hi"}') == use
    assert [ToolResults((ToolResult(use.id, False, b'"hi"'),))] == of(ToolResults, lines)
    (result,) = of(Result, lines)
    assert ("completed", "Done.") == (result.ending, result.text)
    assert 24 == result.usage.input_tokens  # both calls of the API


def test_a_stream_that_broke_off_is_told_as_a_retry() -> None:
    lines = read("cut")
    (retry,) = of(Retry, lines)
    assert Retry(1, None) == retry
    later = [line.type for line in of(StreamEvent, lines[lines.index(retry) :])]
    assert "message_start" == later[0]
    assert "completed" == of(Result, lines)[0].ending


def test_an_interrupt() -> None:
    lines = read("interrupted")
    assert [ControlReply("interrupt-1", True, "", b'{"still_queued":[],"cancelled":[]}')] == of(
        ControlReply, lines
    )
    (result,) = of(Result, lines)
    assert ("interrupted", None, "", "") == (result.ending, result.error, result.detail, result.text)
    assert Usage(input_tokens=12, output_tokens=1) == result.usage
    assert 0.000051 == result.cost_usd
    assert Lifecycle(MESSAGE, "cancelled") in lines[lines.index(result) :]


def test_a_refused_request() -> None:
    lines = read("refused")
    (result,) = of(Result, lines)
    assert ("failed", ErrorCode.INVALID_REQUEST, 400) == (result.ending, result.error, result.api_status)
    assert "API Error: 400 stand-in error 400" == result.detail
    assert (MESSAGE,) == result.message_uuids
    assert [True] == [block.synthetic for block in of(Assistant, lines)]
    assert [] == of(StreamEvent, lines)


@pytest.mark.parametrize("name", RECORDINGS)
def test_an_entry_names_its_session(name: str) -> None:
    found = [entry for mirror in of(Mirror, read(name)) for entry in mirror.entries]
    assert {SESSION} == {claude.session_of(entry) for entry in found}


@pytest.mark.parametrize("entry", [b"", b"{}", b"[]", b'{"sessionId":7}', b"\xff"])
def test_an_entry_that_names_none_is_no_error(entry: bytes) -> None:
    assert "" == claude.session_of(entry)


# --- endings ---------------------------------------------------------------------------------------------

BROKEN = {"is_error": True, "subtype": "error_during_execution"}
FAILED = {"is_error": True, "subtype": "success", "terminal_reason": "api_error"}
TOO_LARGE = {**FAILED, "terminal_reason": "image_error"}


@pytest.mark.parametrize(
    ("fields", "ending", "error"),
    [
        ({"subtype": "success", "terminal_reason": "completed"}, "completed", None),
        ({}, "completed", None),
        ({**BROKEN, "terminal_reason": "aborted_streaming"}, "interrupted", None),
        ({**BROKEN, "terminal_reason": "aborted_tools"}, "interrupted", None),
        ({"subtype": "success", "terminal_reason": "aborted_streaming"}, "interrupted", None),
        ({**FAILED, "api_error_status": 400}, "failed", ErrorCode.INVALID_REQUEST),
        ({**FAILED, "api_error_status": 401}, "failed", ErrorCode.AUTH_FAILED),
        ({**FAILED, "api_error_status": 403}, "failed", ErrorCode.AUTH_FAILED),
        ({**FAILED, "result": "Not logged in · Please run /login"}, "failed", ErrorCode.AUTH_FAILED),
        ({**FAILED, "api_error_status": 404}, "failed", ErrorCode.MODEL_NOT_FOUND),
        ({**FAILED, "api_error_status": 413}, "failed", ErrorCode.PROMPT_TOO_LONG),
        ({**FAILED, "api_error_status": 429}, "failed", ErrorCode.RATE_LIMITED),
        ({**FAILED, "api_error_status": 529}, "failed", ErrorCode.OVERLOADED),
        ({**FAILED, "api_error_status": 500}, "failed", ErrorCode.API_ERROR),
        ({**FAILED, "api_error_status": None}, "failed", ErrorCode.API_ERROR),
        ({**FAILED, "terminal_reason": "blocking_limit"}, "failed", ErrorCode.PROMPT_TOO_LONG),
        ({**FAILED, "terminal_reason": "prompt_too_long"}, "failed", ErrorCode.PROMPT_TOO_LONG),
        (TOO_LARGE, "failed", ErrorCode.INVALID_REQUEST),
        ({**TOO_LARGE, "api_error_status": 413}, "failed", ErrorCode.PROMPT_TOO_LONG),
        ({**FAILED, "terminal_reason": "model_error"}, "failed", ErrorCode.API_ERROR),
        ({**BROKEN, "terminal_reason": "max_turns"}, "failed", ErrorCode.MAX_TURNS),
        ({"is_error": True, "subtype": "error_max_turns"}, "failed", ErrorCode.MAX_TURNS),
        ({"is_error": True, "subtype": "error_max_budget_usd"}, "failed", ErrorCode.BUDGET_EXCEEDED),
        (BROKEN, "failed", ErrorCode.CLI_FAILED),
        ({"is_error": True, "subtype": "some_day"}, "failed", ErrorCode.CLI_FAILED),
    ],
)  # fmt: skip
def test_how_a_turn_ended(fields: dict[str, object], ending: str, error: ErrorCode | None) -> None:
    result = parse(said(type="result", **fields))
    assert isinstance(result, Result)
    assert (ending, error) == (result.ending, result.error)


@pytest.mark.parametrize(
    ("code", "retryable"),
    [
        (ErrorCode.AUTH_FAILED, False),
        (ErrorCode.INVALID_REQUEST, False),
        (ErrorCode.RATE_LIMITED, True),
        (ErrorCode.OVERLOADED, True),
        (ErrorCode.API_ERROR, True),
        (ErrorCode.PROMPT_TOO_LONG, False),
    ],
)
def test_whether_a_retry_can_help(code: ErrorCode, retryable: bool) -> None:
    assert retryable is code.retryable


@pytest.mark.parametrize("code", ErrorCode)
def test_each_error_says_what_it_is_in_one_sentence(code: ErrorCode) -> None:
    assert code.message.endswith(".")
    assert f'"{code.value}"'.encode() == msgspec.json.encode(code)


def test_a_failure_tells_all_that_the_cli_said() -> None:
    result = parse(said(type="result", is_error=True, result="first", errors=["second", {"odd": 1}]))
    assert isinstance(result, Result)
    assert ("first; second", "") == (result.detail, result.text)


def test_usage_without_the_sums_of_the_turn_is_the_plain_one() -> None:
    result = parse(said(type="result", usage={"input_tokens": 3, "output_tokens": 4, "iterations": []}))
    assert isinstance(result, Result)
    assert Usage(input_tokens=3, output_tokens=4) == result.usage


def test_usage_of_a_turn_is_that_of_all_its_models_since_the_last_one() -> None:
    names = ("inputTokens", "outputTokens", "cacheCreationInputTokens", "cacheReadInputTokens", "costUSD")
    one, two = (dict(zip(names, values, strict=True)) for values in ((1, 2, 3, 4, 0.5), (10, 20, 30, 40, 1)))
    line = said(type="result", session_id="s", model_usage_since_last_result={"a": one, "b": two})
    result = parse(line)
    assert isinstance(result, Result)
    assert (1.5, "s") == (result.cost_usd, result.session_id)
    assert result.usage == Usage(
        input_tokens=11, output_tokens=22, cache_creation_input_tokens=33, cache_read_input_tokens=44
    )


def test_what_a_process_has_cost_is_in_the_answer_to_that_question_alone() -> None:
    asked = ControlReply(claude_stdin.COST, True, "", b'{"text":"$0.01"}')
    assert "$0.01" == claude.cost_in(asked)
    assert "" == claude.cost_in(ControlReply("another", True, "", asked.response))
    assert "" == claude.cost_in(ControlReply(claude_stdin.COST, True, "", b"[]"))


def test_an_error_that_is_no_text_is_told_as_none() -> None:
    answer = {"subtype": "error", "request_id": "r1", "error": {"odd": 1}}
    assert ControlReply("r1", False, "", b"") == parse(said(type="control_response", response=answer))


def test_a_result_tells_why_the_model_stopped_and_what_the_api_said() -> None:
    result = parse(said(type="result", result="Hi", stop_reason="end_turn", api_error_status=529))
    assert isinstance(result, Result)
    assert ("Hi", "end_turn", 529) == (result.text, result.stop_reason, result.api_status)


def test_a_transcript_is_of_the_first_session_that_it_names() -> None:
    named = b'{"type":"x"}\n{"sessionId":"a"}\n{"sessionId":"b"}\n'
    assert "a" == claude.session_of_transcript(named)
    assert "" == claude.session_of_transcript(b"") == claude.session_of_transcript(b'{"type":"x"}\n')


# --- single lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            b'{"type":"stream_event","event":{"index":0, "type":"ping"},"parent_tool_use_id":"toolu_1"}',
            StreamEvent(b'{"index":0, "type":"ping"}', "ping", "toolu_1"),
        ),
        (
            b'{"parent_tool_use_id":null,"event":{"type":"ping"},"type":"stream_event"}',
            StreamEvent(b'{"type":"ping"}', "ping"),
        ),
        (
            said(type="control_request", request_id="r1", request={"subtype": "can_use_tool"}),
            ControlRequest("r1", "can_use_tool", b'{"subtype": "can_use_tool"}'),
        ),
        (
            said(type="control_response", response={"subtype": "error", "request_id": "r1", "error": "no"}),
            ControlReply("r1", False, "no", b""),
        ),
        (
            said(
                type="system",
                subtype="api_retry",
                attempt=2,
                max_retries=3,
                retry_delay_ms=500,
                error_status=529,
                error="overloaded",
            ),
            Retry(2, 529),
        ),
        (said(type="system", subtype="task_started"), Ignored("system/task_started")),
        (said(type="conversation_reset"), Ignored("conversation_reset")),
        (said(type="rate_limit_event", rate_limit_info={}), Ignored("rate_limit_event")),
        (said(type="user", message={"role": "user", "content": "hello"}), Ignored("user")),
        (said(type="assistant", message={"content": "hello", "id": "m"}), Assistant("m", "hello")),
        (b"", Ignored("")),
        (b" \r", Ignored("")),
    ],
)
def test_what_a_line_means(line: bytes, expected: Line) -> None:
    assert expected == parse(line)


@pytest.mark.parametrize(
    "line",
    [
        b"Warning: something",
        b"{}",
        b"[]",
        b'"result"',
        b'{"type":1}',
        b'{"type":"result"',
        b'{"type":"result","result":{}}',
        b'{"type":"stream_event"}',
        b'{"type":"stream_event","event":7}',
        b'{"type":"stream_event","event":{"type":"\xff"}}',
        b'{"type":"stream_event","event":{"type":"ping","x":"\xff"}}',
        b'{"type":"assistant","message":null}',
        b'{"type":"control_request","request_id":"r1","request":7}',
        b'{"type":"stream_event","event":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_alien_input_is_a_bad_line_never_an_exception(line: bytes) -> None:
    found = parse(line)
    assert isinstance(found, BadLine)
    assert ErrorCode.BAD_LINE == found.code
    assert line.startswith(found.head)


@given(st.binary(max_size=100))
def test_no_bytes_make_parse_raise(line: bytes) -> None:
    parse(line)
    parse(b'{"type":"stream_event","event":' + line)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(
    st.sampled_from([*claude._READERS, "new"]),
    st.sampled_from(sorted({name for line in recorded("tool") for name in json.loads(line)} - {"type"})),
    JSON,
)
def test_no_value_of_a_field_makes_parse_raise(type_: str, name: str, value: object) -> None:
    parse(msgspec.json.encode({"type": type_, name: value}))


def test_a_line_too_long_is_told_as_such() -> None:
    (head,) = Lines(limit=100).feed(recorded("completed")[2] + b"\n")
    assert isinstance(head, LineTooLong)
    found = parse(head)
    assert isinstance(found, BadLine)
    assert ErrorCode.LINE_TOO_LONG == found.code


def test_a_recorded_stream_survives_any_chunking() -> None:
    stream = (RECORDED / "tool.jsonl").read_bytes()
    lines = Lines()
    pieces = [stream[start : start + 97] for start in range(0, len(stream), 97)]
    assert read("tool") == [parse(line) for piece in pieces for line in lines.feed(piece)]


@pytest.mark.parametrize(
    ("type_", "unknown"), [("no_such_type", True), ("keep_alive", False), ("system", False)]
)
def test_a_line_of_an_unknown_type_is_told_from_one_of_no_importance(type_: str, unknown: bool) -> None:
    found = parse(msgspec.json.encode({"type": type_}))
    assert isinstance(found, Ignored)
    assert unknown == found.unknown


def test_no_recorded_line_is_of_an_unknown_type() -> None:
    names = [path.stem for path in RECORDED.glob("*.jsonl")]
    assert [] == [line for name in names for line in of(Ignored, read(name)) if line.unknown]


@given(st.binary(max_size=200), st.lists(st.integers(0, 4000), max_size=8))
def test_noise_between_lines_costs_the_lines_around_it_nothing(noise: bytes, cuts: list[int]) -> None:
    lines = recorded("completed")
    half = len(lines) // 2
    stream = b"\n".join([*lines[:half], noise.replace(b"\n", b" "), *lines[half:], b""])
    framer, edges = Lines(), sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    heard = [parse(line) for piece in pieces for line in framer.feed(piece)]
    assert read("completed") == heard[:half] + heard[half + 1 :]
