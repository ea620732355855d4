"""What is refused, with which words, and that nothing is published then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from warmwire.broker.wire.messages import UserMessage
from warmwire.broker.wire.names import SessionKey, new_turn_id
from warmwire.edge.chat import ChatRequest
from warmwire.edge.errors import Kind

from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeWorker
from tests.edge.wire import Wire

CHAT = "/v1/chat/stream"
SESSION_RULE = "session_id must be 1 to 64 characters of A-Z a-z 0-9 _ -"
NOT_CONTENT = 'message must be text, or a list of content blocks: objects with a "type"'


@pytest.mark.parametrize(
    ("body", "code", "field", "detail"),
    [
        ({"message": ""}, "invalid_field", "message", "message must not be empty"),
        ({"message": " \n\t"}, "invalid_field", "message", "message must not be empty"),
        ({"message": []}, "invalid_field", "message", "message must not be empty"),
        (
            {"message": [{"type": "text", "text": ""}]},
            "invalid_field",
            "message",
            "message must not be empty",
        ),
        ({"message": 7}, "invalid_field", "message", NOT_CONTENT),
        ({"message": None}, "invalid_field", "message", NOT_CONTENT),
        ({"message": {"type": "text", "text": "Hello"}}, "invalid_field", "message", NOT_CONTENT),
        ({"message": ["Hello"]}, "invalid_field", "message", NOT_CONTENT),
        ({"message": [{"text": "Hello"}]}, "invalid_field", "message", NOT_CONTENT),
        ({}, "invalid_field", "message", "message: field required"),
        ([], "invalid_field", None, "body: input should be an object"),
        ({"message": "Hello", "session_id": "a.b"}, "invalid_field", "session_id", SESSION_RULE),
        ({"message": "Hello", "session_id": "*"}, "invalid_field", "session_id", SESSION_RULE),
        ({"message": "Hello", "session_id": ">"}, "invalid_field", "session_id", SESSION_RULE),
        ({"message": "Hello", "session_id": ""}, "invalid_field", "session_id", SESSION_RULE),
        ({"message": "Hello", "session_id": "s\n"}, "invalid_field", "session_id", SESSION_RULE),
        ({"message": "Hello", "session_id": "é"}, "invalid_field", "session_id", SESSION_RULE),
        ({"message": "Hello", "session_id": "x" * 65}, "invalid_field", "session_id", SESSION_RULE),
        (
            {"message": "Hello", "session_id": 7},
            "invalid_field",
            "session_id",
            "session_id: input should be a valid string",
        ),
        ({"message": "Hello", "model": 7}, "invalid_field", "model", "model: input should be a valid string"),
        (
            {"message": "Hello", "on_worker_loss": "panic"},
            "invalid_field",
            "on_worker_loss",
            "on_worker_loss: input should be 'retry' or 'fail'",
        ),
        ({"message": "Hello", "temperature": 1}, "unknown_field", "temperature", "temperature is not known"),
    ],
)
async def test_a_bad_body_is_422_and_names_the_field(
    wire: Wire, worker: FakeWorker, body: object, code: str, field: str | None, detail: str
) -> None:
    answer = await wire.post(body)
    problem = await answer.problem()
    assert answer.status == problem["status"] == 422
    assert f"urn:warmwire:problem:{code}" == problem["type"]
    assert field == problem.get("field")
    assert detail == problem["detail"]
    assert await queued(worker) == 0


async def queued(worker: FakeWorker) -> int:
    """User messages that were ever published."""
    stream = await worker.bus.js.stream_info(worker.subjects.request_stream)
    return int(stream.state.last_seq)


async def test_the_limit_of_a_name_is_named(wire: Wire) -> None:
    problem = await (await wire.post({"message": "Hello", "session_id": "x" * 65})).problem()
    assert problem["limit"] == 64


@pytest.mark.parametrize("body", [b"", b"{", b'{"message": "Hello"', b"\xff", b'{"message": "\\ud800"}'])
async def test_what_is_not_json_is_400(wire: Wire, body: bytes) -> None:
    answer = await wire.post(body)
    problem = await answer.problem()
    assert (400, "urn:warmwire:problem:not_json") == (answer.status, problem["type"])


@pytest.mark.parametrize(
    "given", [{"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}, {}]
)
async def test_what_is_not_declared_as_json_is_415(wire: Wire, given: dict[str, str]) -> None:
    answer = await wire.request("POST", CHAT, given, b'{"message": "Hello"}')
    problem = await answer.problem()
    assert (415, "content-type") == (answer.status, problem["field"])


async def test_a_message_at_the_limit_is_accepted_and_one_byte_more_is_413(
    start: Start, worker: FakeWorker
) -> None:
    wire = (await start(max_message_bytes=1000)).wire
    accepted = await wire.post({"message": "é" * 500})
    refused = await wire.post({"message": "é" * 500 + "x"})
    problem = await refused.problem()
    assert (200, 413) == (accepted.status, refused.status)
    assert problem["type"] == "urn:warmwire:problem:message_too_large"
    assert ("message", 1000) == (problem["field"], problem["limit"])
    assert problem["detail"] == "message has 1001 bytes, 1000 are allowed"
    assert await queued(worker) == 1


def head(line: str) -> bytes:
    """The head of a chat request with that line."""
    return f"POST {CHAT} HTTP/1.1\r\nhost: [::1]\r\ncontent-type: application/json\r\n{line}\r\n\r\n".encode()


async def test_an_announced_length_beyond_the_limit_is_413_before_a_byte_of_it(start: Start) -> None:
    wire = (await start(max_message_bytes=1000)).wire
    answer = await (await wire.raw(head("content-length: 100000000"))).head()
    problem = await answer.problem()
    assert (413, 1000) == (answer.status, problem["limit"])


async def test_an_unannounced_length_beyond_the_limit_is_413_while_it_comes(start: Start) -> None:
    wire = (await start(max_message_bytes=1000)).wire
    chunk = b"%x\r\n%b\r\n" % (40_000, b" " * 40_000)
    answer = await (
        await wire.raw(head("transfer-encoding: chunked") + chunk * 2)
    ).head()  # its end never comes
    problem = await answer.problem()
    assert (413, 1000) == (answer.status, problem["limit"])


async def test_escapes_do_not_make_a_message_too_large(start: Start) -> None:
    wire = (await start(max_message_bytes=1_000_000)).wire
    body = json.dumps({"message": "é" * 500_000})  # three million bytes of \u00e9
    assert (await wire.post(body.encode())).status == 200


@pytest.mark.parametrize("key", ["", "x" * 256, "naïve"])
async def test_a_bad_idempotency_key_is_422(wire: Wire, key: str) -> None:
    answer = await wire.post({"session_id": "s1", "message": "Hello"}, {"idempotency-key": key})
    problem = await answer.problem()
    assert (422, "Idempotency-Key", 255) == (answer.status, problem["field"], problem["limit"])


async def test_an_idempotency_key_needs_a_session(wire: Wire) -> None:
    answer = await wire.post({"message": "Hello"}, {"idempotency-key": "k1"})
    assert (422, "session_id") == (answer.status, (await answer.problem())["field"])


async def test_the_same_key_with_another_message_is_422(wire: Wire, worker: FakeWorker) -> None:
    worker.answer_all("Hi")
    key = {"idempotency-key": "k1"}
    await (await wire.post({"session_id": "s1", "message": "Hello"}, key)).until("[DONE]")
    answer = await wire.post({"session_id": "s1", "message": "Good bye"}, key)
    problem = await answer.problem()
    assert (422, "urn:warmwire:problem:key_reused") == (answer.status, problem["type"])


async def test_a_full_session_is_429_with_a_time_to_wait(wire: Wire, worker: FakeWorker) -> None:
    for _ in range(16):
        message = UserMessage(turn=new_turn_id(1), content="Hello", sent_ms=1)
        await worker.store.submit(SessionKey("default", "s1"), message, {})
    answer = await wire.post({"session_id": "s1", "message": "Hello"})
    problem = await answer.problem()
    assert (429, 16, "2") == (answer.status, problem["limit"], answer.headers["retry-after"])
    assert problem["type"] == "urn:warmwire:problem:queue_full"


async def test_double_texting_reject_is_409_while_a_turn_runs_and_fine_after_it(
    wire: Wire, worker: FakeWorker
) -> None:
    request = {"session_id": "s1", "message": "Hello", "double_texting": "reject"}
    first = await wire.post(request)
    turn = await worker.next_turn()
    await turn.start()
    second = await wire.post(request)
    problem = await second.problem()
    assert (200, 409, "urn:warmwire:problem:session_busy") == (first.status, second.status, problem["type"])
    await turn.complete()
    assert (await wire.post(request)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/chat/stream/", 404, "not_found"),
        ("PUT", CHAT, 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("DELETE", "/", 405, "method_not_allowed"),
    ],
)
async def test_unknown_routes_and_methods_are_problems_too(
    wire: Wire, method: str, path: str, status: int, code: str
) -> None:
    answer = await wire.request(method, path)
    problem: dict[str, Any] = await answer.problem()
    assert (status, f"urn:warmwire:problem:{code}") == (answer.status, problem["type"])
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (CHAT, "GET, POST"),
        ("/chat/stream", "GET, POST"),
        ("/v1/sessions/s1", "DELETE, GET"),
        ("/healthz", "GET"),
    ],
)
async def test_a_refused_method_is_told_which_ones_there_are(wire: Wire, path: str, allowed: str) -> None:
    assert allowed == (await wire.request("PUT", path)).headers["allow"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("message=Hello", "session_id"),
        ("session_id=s1", "message"),
        ("session_id=s1&message=", "message"),
        ("session_id=a.b&message=Hello", "session_id"),
        ("session_id=s1&message=Hello&colour=red", "colour"),
    ],
)
async def test_a_bad_url_is_422_and_names_the_field(wire: Wire, query: str, field: str) -> None:
    answer = await wire.request("GET", f"{CHAT}?{query}")
    assert (422, field) == (answer.status, (await answer.problem())["field"])


@pytest.mark.parametrize("kind", list(Kind))
def test_every_problem_is_listed_with_its_status_and_whether_to_try_again(kind: Kind) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "http.md").read_text()
    assert f"| `{kind}` | {kind.status} | {'yes' if kind.retry_after else 'no'} |" in page


@pytest.mark.parametrize("field", list(ChatRequest.model_fields))
def test_every_field_is_listed(field: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "http.md").read_text()
    assert f"| `{field}` |" in page
