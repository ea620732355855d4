"""sse-starlette: as the baseline, but with its EventSourceResponse, pings and all. Prints its port.

python -m bench.peers.sse SOURCE
"""

from __future__ import annotations

import json
from asyncio.subprocess import Process
from collections.abc import AsyncIterator

from fastapi import FastAPI
from sse_starlette import EventSourceResponse, JSONServerSentEvent

from bench.baseline import Chat, ask, process_of, serve

app = FastAPI()


async def answer(process: Process, message: str) -> AsyncIterator[JSONServerSentEvent]:
    """The events of one turn."""
    async for raw in ask(process, message):
        said = json.loads(raw)
        if said["type"] == "result":
            return
        if said["type"] == "stream_event":
            yield JSONServerSentEvent(said["event"])


@app.post("/v1/chat/stream")
async def chat(asked: Chat) -> EventSourceResponse:
    """What the CLI says, as it says it."""
    return EventSourceResponse(answer(await process_of(asked.session_id), asked.message))


if __name__ == "__main__":
    serve(app)
