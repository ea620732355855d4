"""The OpenAPI document against what the edge answers: thousands of made-up requests, none answered 5xx."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from .conftest import Start
from .fake_worker import FakeWorker

EXAMPLES = 10
"""Requests per operation and kind."""
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.slow
async def test_no_made_up_request_is_answered_5xx_or_otherwise_than_documented(
    start: Start, worker: FakeWorker, tmp_path: Path
) -> None:
    worker.answer_all("Hi")
    # Streams of sessions end by their age: nobody else would end them.
    serves = await start(max_age=0.05, drain_timeout=0)
    url = f"http://127.0.0.1:{serves.wire.port}/openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "run", url, "--checks", CHECKS]
    command += ["--max-examples", str(EXAMPLES), "--generation-deterministic", "--workers", "1"]
    command += ["--request-timeout", "20", "--phases", "examples,coverage,fuzzing", "--no-color"]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT, cwd=tmp_path)
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()[-8_000:]


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
