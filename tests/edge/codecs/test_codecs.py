"""What the SDKs of others make of a turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import anthropic
import openai
import pytest
from anthropic.types import RawMessageStreamEvent
from openai.types.chat import ChatCompletionChunk

from warmwire.broker.wire.events import TurnCompleted, TurnReset, Usage

from tests.client import eventually
from tests.edge.access import tokens
from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeTurn, FakeWorker, begun
from tests.edge.wire import Wire

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
USED = Usage(input_tokens=2, output_tokens=3, cache_read_input_tokens=10)


@pytest.fixture
async def sdk(wire: Wire) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client of the edge."""
    async with asked_at(wire) as client:
        yield client


def asked_at(wire: Wire, key: str = "unused") -> openai.AsyncOpenAI:
    """The same, with a token."""
    return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{wire.port}/v1", api_key=key, max_retries=0)


async def message_ends(turn: FakeTurn) -> None:
    """The last events of a message, as the CLI prints them."""
    for event in (
        b'{"type":"content_block_stop","index":0}',
        b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}',
        b'{"type":"message_stop"}',
    ):
        await turn.publish(event)


async def ended(turn: FakeTurn, reason: str = "end_turn") -> None:
    """Its end, with what it used."""
    end = TurnCompleted(turn=turn.id, attempt=1, duration_ms=1, stop_reason=reason, usage=USED)
    await turn.end(end)


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    """The answer."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def test_openai_stream(sdk: openai.AsyncOpenAI, worker: FakeWorker) -> None:
    stream = await sdk.chat.completions.create(
        model="opus",
        messages=[{"role": "system", "content": "Be brief."}, *HELLO],
        user="s1",
        stream=True,
        stream_options={"include_usage": True},
        temperature=0.5,
    )
    turn = await begun(worker, "Hi ", "there é")
    await ended(turn)
    chunks = [chunk async for chunk in stream]
    assert text_of(chunks) == "Hi there é"
    assert ("assistant", "stop") == (chunks[0].choices[0].delta.role, chunks[-2].choices[0].finish_reason)
    assert {f"chatcmpl-{turn.id}"} == {chunk.id for chunk in chunks}
    assert chunks[-1].usage is not None
    assert (12, 3, 15) == (
        chunks[-1].usage.prompt_tokens,
        chunks[-1].usage.completion_tokens,
        chunks[-1].usage.total_tokens,
    )
    message = turn.message
    assert ("s1", "Hello", "opus") == (turn.session_id, message.content, message.options.model)
    assert message.options.system_prompt == "Be brief."


async def test_openai_a_tools_input_is_no_text_whatever_it_is(
    sdk: openai.AsyncOpenAI, worker: FakeWorker
) -> None:
    stream = await sdk.chat.completions.create(model="opus", messages=HELLO, user="s1", stream=True)
    turn = await begun(worker, "Hi ")
    await turn.publish(
        b'{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"text_delta"}}'
    )
    await turn.delta("there")
    await ended(turn)
    assert text_of([chunk async for chunk in stream]) == "Hi there"


async def test_openai_in_one_piece(sdk: openai.AsyncOpenAI, worker: FakeWorker) -> None:
    asking = asyncio.ensure_future(
        sdk.chat.completions.with_raw_response.create(
            model="default", messages=HELLO, extra_headers={"X-Session-Id": "s2"}, user="s1"
        )
    )
    turn = await begun(worker, "Hi ", "there")
    await ended(turn, "max_tokens")
    answer = await asking
    completion = answer.parse()
    assert ("Hi there", "length") == (
        completion.choices[0].message.content,
        completion.choices[0].finish_reason,
    )
    assert ("s2", "s2", None) == (
        answer.headers["x-session-id"],
        turn.session_id,
        turn.message.options.model,
    )


async def test_openai_a_session_is_sent_what_it_has_not_heard(
    sdk: openai.AsyncOpenAI, worker: FakeWorker
) -> None:
    parts: Any = [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]
    said: list[Any] = [
        *({"role": role, "content": role} for role in ("user", "assistant")),
        *({"role": "user", "content": content} for content in ("b", parts)),
    ]
    asking = asyncio.create_task(sdk.chat.completions.create(model="opus", messages=said, user="s1"))
    turn = await begun(worker)
    await ended(turn)
    await asking
    assert turn.message.content == "b\n\nc\n\nd"
    assert worker.waiting == 0


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"messages": [*HELLO, {"role": "assistant", "content": "Hi"}, *HELLO]}, "messages"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "Hi"}], "user": "s1"}, "messages"),
        ({"messages": []}, "messages"),
        ({"user": "a.b"}, "session_id"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
    ],
)
async def test_openai_what_cannot_be_done_is_refused(
    sdk: openai.AsyncOpenAI, worker: FakeWorker, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        await sdk.chat.completions.create(**{"model": "opus", "messages": HELLO, **given})
    assert caught.value.response.json()["field"].startswith(field)
    assert worker.waiting == 0


async def test_openai_a_turn_that_fails_is_an_error(sdk: openai.AsyncOpenAI, worker: FakeWorker) -> None:
    stream = await sdk.chat.completions.create(model="opus", messages=HELLO, stream=True)
    await (await begun(worker, "so far")).fail("overloaded", "The API is overloaded.")
    seen: list[ChatCompletionChunk] = []

    async def read() -> None:
        async for chunk in stream:
            seen.append(chunk)  # noqa: PERF401 - it is looked at after the error

    with pytest.raises(openai.APIError) as streamed:
        await read()
    assert ("overloaded", "so far") == (streamed.value.code, text_of(seen))
    asking = asyncio.create_task(sdk.chat.completions.create(model="opus", messages=HELLO))
    await (await begun(worker)).fail("overloaded", "The API is overloaded.")
    with pytest.raises(openai.InternalServerError) as whole:
        await asking
    assert ("2", 502) == (whole.value.response.headers["retry-after"], whole.value.status_code)
    assert whole.value.response.json()["detail"] == "overloaded: The API is overloaded."


async def test_openai_text_that_is_void_is_an_error_and_stops_the_turn(
    sdk: openai.AsyncOpenAI, worker: FakeWorker
) -> None:
    stream = await sdk.chat.completions.create(model="opus", messages=HELLO, stream=True)
    turn = await begun(worker, "shown")
    await turn.publish(TurnReset(turn=turn.id, attempt=2, reason="worker_lost").encode())

    async def read() -> None:
        async for chunk in stream:
            assert "again" not in text_of([chunk])

    with pytest.raises(openai.APIError, match="void"):
        await read()
    await eventually(lambda: worker.interrupts == [turn.id], "the turn is not tried again")
    await turn.interrupted()


async def test_openai_a_client_that_leaves_counts_as_a_viewer_that_left(
    start: Start, worker: FakeWorker
) -> None:
    serves = await start()
    async with asked_at(serves.wire) as sdk:
        asking = asyncio.create_task(sdk.chat.completions.create(model="opus", messages=HELLO, user="s1"))
        turn = await begun(worker)
        assert serves.edge.viewers == 1
        asking.cancel()
        await eventually(lambda: serves.edge.viewers == 0, "its client has left")
        await turn.complete()


async def test_openai_an_edge_that_leaves_says_so(start: Start, worker: FakeWorker) -> None:
    serves = await start()
    async with asked_at(serves.wire) as sdk:
        asking = asyncio.create_task(sdk.chat.completions.create(model="opus", messages=HELLO, user="s1"))
        turn = await begun(worker)
        serves.edge.end_streams()
        with pytest.raises(openai.InternalServerError) as caught:
            await asking
        assert "leaving" in caught.value.response.json()["detail"]
        await turn.complete()


async def test_openai_the_key_is_the_token(start: Start, worker: FakeWorker, tmp_path: Path) -> None:
    serves = await start(**tokens.with_secret(tmp_path))
    worker.answer_all("Hi")
    for token, session, refused in (
        ("nonsense", "s1", openai.AuthenticationError),
        (tokens.token(scope="chat:read"), "s1", openai.PermissionDeniedError),
        (tokens.token(sessions=["mine"]), "s1", openai.PermissionDeniedError),
    ):
        async with asked_at(serves.wire, token) as sdk:
            with pytest.raises(refused):
                await sdk.chat.completions.create(model="opus", messages=HELLO, user=session)
    async with asked_at(serves.wire, tokens.token()) as sdk:
        answer = await sdk.chat.completions.create(model="opus", messages=HELLO, user="s1")
    assert answer.choices[0].message.content == "Hi"


async def test_anthropics_parser_takes_the_native_stream(wire: Wire, worker: FakeWorker) -> None:
    async with anthropic.AsyncAnthropic(base_url=f"http://127.0.0.1:{wire.port}", api_key="unused") as sdk:
        stream = await sdk.post(
            "/v1/chat/stream",
            body={"session_id": "s1", "message": "Hello"},
            cast_to=cast(Any, RawMessageStreamEvent),  # a union, as the SDK itself has it
            stream=True,
            stream_cls=anthropic.AsyncStream[RawMessageStreamEvent],
        )
        turn = await begun(worker, "Hi ", "there é")
        await message_ends(turn)
        await turn.complete()
        events = [event async for event in stream]
    ours = ("turn_queued", "turn_started", "turn_completed")
    assert ours == tuple(str(event.type) for event in events if str(event.type).startswith("turn_"))
    theirs = [event for event in events if str(event.type) not in ours]
    assert [event.type for event in theirs if event.type != "content_block_delta"] == [
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    deltas = [event.delta for event in theirs if event.type == "content_block_delta"]
    assert "".join(delta.text for delta in deltas if delta.type == "text_delta") == "Hi there é"


async def test_openai_a_refusal_has_its_shape(sdk: openai.AsyncOpenAI, worker: FakeWorker) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        await sdk.chat.completions.create(model="opus", messages=HELLO, user="a.b")
    refused = caught.value
    assert ("invalid_field", "session_id", "invalid_request_error") == (
        refused.code,
        refused.param,
        refused.type,
    )
    assert worker.waiting == 0


async def test_openai_a_stream_whose_edge_leaves_is_an_error(start: Start, worker: FakeWorker) -> None:
    serves = await start()
    async with asked_at(serves.wire) as sdk:
        stream = await sdk.chat.completions.create(model="opus", messages=HELLO, stream=True)
        turn = await begun(worker, "so far")
        serves.edge.end_streams()
        with pytest.raises(openai.APIError, match="leaving"):
            [chunk async for chunk in stream]
        await turn.complete()


async def test_openai_and_anthropic_list_models(sdk: openai.AsyncOpenAI, wire: Wire) -> None:
    assert ["default"] == [model.id async for model in sdk.models.list()]
    assert "opus" == (await sdk.models.retrieve("opus")).id
    async with claude_at(wire) as claude:
        assert ["default"] == [model.id async for model in claude.models.list()]


# -- Anthropic's Messages API


def said_in(message: Any) -> str:
    """The text of its one block."""
    (block,) = message.content
    return str(block.text)


def claude_at(wire: Wire, auth: str = "unused") -> anthropic.AsyncAnthropic:
    """Anthropic's client of the edge."""
    return anthropic.AsyncAnthropic(base_url=f"http://127.0.0.1:{wire.port}", auth_token=auth, max_retries=0)


ASKED: Any = {"model": "opus", "max_tokens": 1024, "messages": HELLO}


async def test_anthropics_client_streams_a_message(wire: Wire, worker: FakeWorker) -> None:
    async with (
        claude_at(wire) as claude,
        claude.messages.stream(**ASKED, system="Be brief.", metadata={"user_id": "s1"}) as stream,
    ):
        turn = await begun(worker, "Hi ", "there é")
        await message_ends(turn)
        await ended(turn)
        texts = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    assert "Hi there é" == "".join(texts) == said_in(message)
    assert (f"msg_{turn.id}", "opus", "end_turn") == (message.id, message.model, message.stop_reason)
    assert (2, 3, 10) == (
        message.usage.input_tokens,
        message.usage.output_tokens,
        message.usage.cache_read_input_tokens,
    )
    options = turn.message.options
    assert ("s1", "opus", "Be brief.") == (turn.session_id, options.model, options.system_prompt)


THINKS_AND_CALLS = (
    b'{"type":"message_start","message":{}}',
    b'{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":""}}',
    b'{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"hm"}}',
    b'{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"s"}}',
    b'{"type":"content_block_stop","index":0}',
    b'{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"c","name":"Bash"}}',
    b'{"type":"content_block_stop","index":1}',
    b'{"type":"message_stop"}',
)
THEN_SAYS = (
    b'{"type":"message_start","message":{}}',
    b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
)


async def test_anthropics_client_gets_a_turn_with_tools_as_one_message(
    wire: Wire, worker: FakeWorker
) -> None:
    async with claude_at(wire) as claude, claude.messages.stream(**ASKED) as stream:
        turn = await worker.next_turn()
        await turn.begin()
        for event in THINKS_AND_CALLS + THEN_SAYS:
            await turn.publish(event)
        await turn.delta("Done.")
        await turn.complete()
        message = await stream.get_final_message()
    assert [{"thinking": "hm", "signature": "s"}, {"text": "Done."}] == [
        block.model_dump(include={"thinking", "signature", "text"}) for block in message.content
    ]


async def test_anthropics_client_waits_for_a_message_in_a_session(wire: Wire, worker: FakeWorker) -> None:
    said: Any = [
        *HELLO,
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": [{"type": "text", "text": "And"}]},
    ]
    async with claude_at(wire) as claude:
        asking = asyncio.create_task(
            claude.messages.create(**{**ASKED, "messages": said}, extra_headers={"X-Session-Id": "s2"})
        )
        turn = await begun(worker, "Hi ", "there")
        await ended(turn, "max_tokens")
        message = await asking
    assert ("Hi there", "max_tokens") == (said_in(message), message.stop_reason)
    content: Any = turn.message.content
    assert ("s2", [{"type": "text", "text": "And"}]) == (turn.session_id, list(content))


async def test_anthropics_client_is_told_what_is_wrong(wire: Wire, worker: FakeWorker) -> None:
    async with claude_at(wire) as claude:
        for wrong in ({"tools": [{"name": "x", "input_schema": {}}]}, {"metadata": {"user_id": "a.b"}}):
            with pytest.raises(anthropic.UnprocessableEntityError) as refused:
                await claude.messages.create(**{**ASKED, **wrong})
            assert refused.value.type == "invalid_request_error"
        async with claude.messages.stream(**ASKED) as stream:
            await (await begun(worker, "so far")).fail("overloaded", "The API is overloaded.")
            with pytest.raises(anthropic.APIStatusError, match="overloaded: The API"):
                await stream.get_final_message()
        async with claude.messages.stream(**ASKED) as stream:
            turn = await begun(worker, "shown")
            await turn.publish(TurnReset(turn=turn.id, attempt=2, reason="worker_lost").encode())
            await turn.publish(b'{"type":"message_start","message":{}}')
            await turn.delta("other")
            with pytest.raises(anthropic.APIStatusError, match="text_void"):
                await stream.get_final_message()
        await turn.complete()


async def test_anthropics_token_is_ours(start: Start, worker: FakeWorker, tmp_path: Path) -> None:
    serves = await start(**tokens.with_secret(tmp_path))
    worker.answer_all("Hi")
    async with claude_at(serves.wire, "nonsense") as claude:
        with pytest.raises(anthropic.AuthenticationError):
            await claude.messages.create(**ASKED)
    async with claude_at(serves.wire, tokens.token()) as claude:
        assert "Hi" == said_in(await claude.messages.create(**ASKED))
