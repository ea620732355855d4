"""The baseline: what one would write without a broker. One FastAPI process, a CLI process per session, and a
`StreamingResponse` over its lines; nothing survives the process. Started by `streams.py`; prints its port.

    python bench/baseline.py SOURCE
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

app = FastAPI()
sessions: dict[str, Process] = {}


class Chat(BaseModel):
    """A request."""

    session_id: str
    message: str


def ask(process: Process, message: str) -> asyncio.StreamReader:
    """Begin a turn; what the process says follows."""
    assert process.stdin is not None
    assert process.stdout is not None
    line = {"type": "user", "message": {"role": "user", "content": message}, "uuid": "u"}
    process.stdin.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    return process.stdout


async def answer(process: Process, message: str) -> AsyncIterator[str]:
    """The events of one turn."""
    async for raw in ask(process, message):
        said = json.loads(raw)
        if said["type"] == "result":
            return
        if said["type"] == "stream_event":
            yield f"data: {json.dumps(said['event'])}\n\n"


async def process_of(session: str) -> Process:
    """Find the session's process, or start it."""
    if session not in sessions:
        sessions[session] = await asyncio.create_subprocess_exec(sys.argv[1], stdin=PIPE, stdout=PIPE)
    return sessions[session]


@app.post("/v1/chat/stream")
async def chat(asked: Chat) -> StreamingResponse:
    """What the CLI says, as it says it."""
    process = await process_of(asked.session_id)
    return StreamingResponse(answer(process, asked.message), media_type="text/event-stream")


@app.post("/v1/chat")
async def whole(asked: Chat) -> Response:
    """The same, all of it at once when it is over."""
    process = await process_of(asked.session_id)
    said = [piece async for piece in answer(process, asked.message)]
    return Response("".join(said), media_type="text/event-stream")


def serve(app: FastAPI) -> None:
    """On a free port, which is printed, with uvloop and httptools."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        print(listening.getsockname()[1], flush=True)
        config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", access_log=False)
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    serve(app)
