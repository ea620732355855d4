"""Starts the service, posts a ticket as a forgetful caller would, reads its answer, stops the service."""

from __future__ import annotations

import argparse
import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import uvicorn

from examples.local import run
from examples.microservice.app import app

TEXT = "I have paid twice for order 1138 and want one of the two back."


@asynccontextmanager
async def serving(port: int) -> AsyncIterator[str]:
    """The service's address while it serves; 0 takes a free port. It stops in order."""
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True


async def call(given: argparse.Namespace) -> None:
    """What a caller of the service does."""
    trace, ticket = uuid.uuid4().hex, {"id": f"t-{uuid.uuid4()}", "text": given.text}
    headers = {"traceparent": f"00-{trace}-{trace[:16]}-01"}
    async with serving(given.port) as url, httpx2.AsyncClient(base_url=url, timeout=given.patience) as http:
        first = (await http.post("/tickets", json=ticket, headers=headers)).raise_for_status().json()
        again = (await http.post("/tickets", json=ticket)).raise_for_status().json()
        print(f"posted twice, turns: {first['turn']} {again['turn']}")
        async with http.stream("GET", f"/tickets/{ticket['id']}/answer") as answer:
            async for text in answer.aiter_text():
                print(text, end="", flush=True)
        stored = await _ended(http, ticket["id"])
        other = await http.post("/tickets", json=ticket | {"text": "Another text"})
    print(f"\nstored: {stored['state']}, {len(stored['answer'])} characters")
    print(f"the same id with another text: {other.status_code}")
    print(f"one trace: {stored['traceparent'].split('-')[1] == trace}")
    if first["turn"] != again["turn"] or stored["state"] != "turn_completed":
        raise SystemExit("one ticket, one answer: that does not hold")


async def _ended(http: httpx2.AsyncClient, ticket: str) -> dict[str, str]:
    """The stored ticket, once its turn has ended."""
    while True:
        stored: dict[str, str] = (await http.get(f"/tickets/{ticket}")).raise_for_status().json()
        if stored["state"] not in ("turn_queued", "turn_started"):
            return stored
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.microservice", description=__doc__)
    parser.add_argument("--text", default=TEXT, help="what the customer writes")
    parser.add_argument("--port", type=int, default=0, help="where the service listens; 0 takes a free port")
    run(call, parser)
