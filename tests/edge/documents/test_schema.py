"""The OpenAPI document against what the edge answers: thousands of made-up requests, none answered 5xx."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest
from fastapi.routing import iter_route_contexts

from warmwire.edge.app import build

from tests.edge.conftest import Start
from tests.edge.fake_worker import FakeWorker

EXAMPLES = 10
"""Requests per operation and kind."""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
)
UNDOCUMENTED = re.compile(r"/|/page/.*|/icon.svg|/(openapi|asyncapi).json|/metrics|/v1/chat/ws|/chat/ws")
"""Paths that are not part of the HTTP API: the page, the documents themselves, and WebSockets."""


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_made_up_request_is_answered_5xx_or_otherwise_than_documented(
    start: Start, worker: FakeWorker, tmp_path: Path
) -> None:
    worker.answer_all("Hi")
    # Streams of sessions end by their age: nobody else would end them.
    serves = await start(max_age=0.05, drain_timeout=0)
    url = f"http://127.0.0.1:{serves.wire.port}/openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", url, "--checks", ",".join(CHECKS)]
    command += ["--max-examples", str(EXAMPLES), "--generation-deterministic", "--workers", "1"]
    command += ["--request-timeout", "20", "--phases", "examples,coverage,fuzzing", "--no-color"]
    command += ["--mode", "all"]  # what the document allows, and what it does not
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT, cwd=tmp_path)
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()[-8_000:]
    paths = build(serves.edge).openapi()["paths"].values()
    assert f"Tested: {sum(len(methods) for methods in paths)}\n" in out.decode()


async def test_every_route_is_documented_with_its_refusals(start: Start) -> None:
    app = build((await start()).edge)
    paths = app.openapi()["paths"]
    routes = [context.path or "" for context in iter_route_contexts(app.routes)]
    assert paths.keys() == {path for path in routes if not UNDOCUMENTED.fullmatch(path)}
    for path, methods in paths.items():
        for method, operation in methods.items():
            refusals = {status: each for status, each in operation["responses"].items() if status >= "400"}
            assert refusals or path == "/healthz", f"{method} {path} is never refused"
            for each in refusals.values():
                assert ["application/problem+json"] == list(each["content"])


async def test_every_operation_has_answers_with_examples(start: Start) -> None:
    wire = (await start()).wire
    paths = json.loads(await (await wire.request("GET", "/openapi.json")).body())["paths"]
    operations = [(path, method, each) for path, methods in paths.items() for method, each in methods.items()]
    assert {"/v1/sessions/{session_id}/events", "/chat/stream", "/v1/chat/stream"} <= paths.keys()
    for path, method, operation in operations:
        assert operation["summary"], (path, method)
        for status, answer in operation["responses"].items():
            assert answer["description"], (path, method, status)
            for content in answer.get("content", {}).values():
                assert "example" in content, (path, method, status)
