"""How turns fail, and what is left of the process and the conversation."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from warmwire.worker.cli.launch import CREDENTIAL
from warmwire.worker.cli.said import Assistant, Retry, StreamEvent
from warmwire.worker.errors import ErrorCode

from tests.standin.messages_api import Behaviour
from tests.worker.contract.chat import (
    STUMBLE,
    Chat,
    ask,
    left_out,
    on_one_loop,
    real_only,
    relied_on,
    text_of,
    types,
)

pytestmark = on_one_loop

AT_ONCE = {
    400: ErrorCode.INVALID_REQUEST,
    403: ErrorCode.AUTH_FAILED,
    404: ErrorCode.MODEL_NOT_FOUND,
    413: ErrorCode.PROMPT_TOO_LONG,
}
AFTER_RETRIES = {
    401: ErrorCode.AUTH_FAILED,
    429: ErrorCode.RATE_LIMITED,
    500: ErrorCode.API_ERROR,
    529: ErrorCode.OVERLOADED,
}


@relied_on
@pytest.mark.parametrize(("status", "code"), [*AT_ONCE.items(), *AFTER_RETRIES.items()])
async def test_an_error_of_the_api_ends_the_turn_and_not_the_process(
    chat: Chat, status: int, code: ErrorCode
) -> None:
    plays = Behaviour(error=status)
    cli = await (chat(plays=plays) if chat.emulated else chat.shared())
    chat.play(plays)
    heard, result = await ask(cli, STUMBLE)
    assert ("failed", code, status) == (result.ending, result.error, result.api_status)
    assert [] == types(heard)
    assert [True] == [line.synthetic for line in heard if isinstance(line, Assistant)]
    assert "completed" == (await ask(cli, "Again"))[1].ending


@left_out("an API error")
async def test_what_may_pass_is_tried_twice_more(chat: Chat) -> None:
    cli = await chat(plays=Behaviour(error=429))
    heard, _ = await ask(cli, STUMBLE)
    assert [(1, 429), (2, 429)] == [(line.attempt, line.status) for line in heard if isinstance(line, Retry)]


@relied_on
async def test_what_failed_stays_in_the_conversation(chat: Chat) -> None:
    cli = await chat(plays=Behaviour(error=400))
    await ask(cli, STUMBLE)
    assert STUMBLE == (await ask(cli, "recall"))[1].text


@left_out("a process without a credential")
async def test_without_a_credential_no_call_is_made(chat: Chat) -> None:
    chat.environment = {name: value for name, value in chat.environment.items() if name != CREDENTIAL}
    _, result = await ask(await chat(), "Hi")
    assert ("failed", ErrorCode.AUTH_FAILED) == (result.ending, result.error)
    assert [] == chat.api.asked


@real_only("the words of an API error")
@pytest.mark.parametrize(
    "complaint",
    [
        "prompt is too long: 210000 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000",
    ],
)
async def test_a_conversation_too_long_is_told_from_other_bad_requests(chat: Chat, complaint: str) -> None:
    cli = await chat.shared()
    chat.play(Behaviour(error=400, complaint=complaint))
    _, result = await ask(cli, STUMBLE)
    assert ("failed", ErrorCode.PROMPT_TOO_LONG) == (result.ending, result.error)


@relied_on
async def test_a_stream_that_breaks_off_begins_again_from_its_start(chat: Chat) -> None:
    cli = await chat(plays=Behaviour(text="lost words here", rate=2, cut_after=2))  # time to read each
    heard, result = await ask(cli, "Hi")
    (retry,) = [line for line in heard if isinstance(line, Retry)]
    before, after = heard[: heard.index(retry)], heard[heard.index(retry) :]
    assert 0 < types(before).count("content_block_delta") <= 2  # the cut may overtake the last
    assert "message_delta" not in types(before)
    assert "message_start" == types(after)[0]
    assert result.text == text_of(after) != ""


@left_out("the last retry of a stream")
async def test_after_the_last_retry_the_answer_comes_without_deltas(chat: Chat) -> None:
    cli = await chat(plays=Behaviour(text="lost words", rate=20, cut_after=1))
    chat.api.once.extend([chat.api.once[0]] * 2)
    heard, result = await ask(cli, "Hi")
    assert 2 == len([line for line in heard if isinstance(line, Retry)])
    (answer,) = [line for line in heard if isinstance(line, Assistant)]
    assert (result.text, False) == (answer.text, answer.synthetic)
    assert answer.message_id not in message_ids(heard)
    assert "completed" == result.ending


def message_ids(heard: Sequence[object]) -> list[str]:
    starts = [line for line in heard if isinstance(line, StreamEvent) and line.type == "message_start"]
    return [json.loads(line.event)["message"]["id"] for line in starts]


@left_out("limits on money and steps")
async def test_a_budget_that_is_used_up_fails_every_later_turn(chat: Chat) -> None:
    cli = await chat(flags=["--max-budget-usd=0.000001"])
    errors = [(await ask(cli, text))[1].error for text in ("one", "two")]
    assert [ErrorCode.BUDGET_EXCEEDED] * 2 == errors


@left_out("limits on money and steps")
async def test_a_turn_of_too_many_steps_fails(chat: Chat) -> None:
    flags = ["--tools=Bash", "--allowedTools=Bash", "--max-turns=1"]
    cli = await chat(plays=Behaviour(tool="true"), flags=flags)
    assert ErrorCode.MAX_TURNS == (await ask(cli, "Hi"))[1].error
