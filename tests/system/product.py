"""An edge and real workers in the test's own loop: what a client sees over HTTP of what a CLI does."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from warmwire.edge.edge import Edge
from warmwire.edge.settings import EdgeSettings
from warmwire.worker.app import Worker
from warmwire.worker.settings import WorkerSettings

from tests.client import eventually, on_own_streams
from tests.edge.conftest import serving
from tests.edge.wire import Answer, Wire

Events = list[tuple[str, dict[str, Any], str]]


class Product:
    """Use ``producing``."""

    def __init__(self, nats: str, prefix: str, folder: Path, wire: Wire, edge: Edge) -> None:
        self.wire = wire
        self.workers: list[Worker] = []
        self.given: dict[str, Any] = {"nats": nats, "prefix": prefix}
        self._folder = folder
        self.edge = edge

    async def work(self, **settings: Any) -> Worker:
        """One more worker, with emulators unless told otherwise; the edge knows it when this returns."""
        given = {"data": self._folder / "data", "spares": 0, "drain_timeout": 5.0, **settings}
        worker = Worker(WorkerSettings(**self.given, **given))
        await worker.start()
        self.workers.append(worker)
        await eventually(lambda: self.edge.not_ready() is None, "the edge hears the worker")
        return worker

    async def chat(self, message: str, session: str = "s1", **options: Any) -> Answer:
        """Send a message; its stream."""
        answer = await self.wire.post({"session_id": session, "message": message, **options})
        assert answer.status == 200, await answer.body()
        return answer

    async def ask(self, message: str, session: str = "s1", **options: Any) -> Events:
        """Send a message; all events of its turn."""
        return await ended(await self.chat(message, session, **options))

    async def interrupt(self, session: str = "s1", **body: Any) -> tuple[int, str | None]:
        """The status, and the turn that is stopped."""
        answer = await self.wire.send("POST", f"/v1/sessions/{session}/interrupt", body)
        return answer.status, (await answer.json())["turn"]

    async def permit(self, request: str, session: str = "s1", **body: Any) -> tuple[int, str]:
        """The status of an answer to a question, and what kind of a problem it is, if it is one."""
        answer = await self.wire.send("POST", f"/v1/sessions/{session}/permissions/{request}", body)
        kind = (await answer.json()).get("type", "")
        return answer.status, kind.removeprefix("urn:warmwire:problem:")


async def ended(answer: Answer) -> Events:
    """The events of a turn's stream, from here to its end."""
    return (await answer.until("[DONE]"))[:-1]


def end_of(events: Events) -> dict[str, Any]:
    """The terminal event."""
    return events[-1][1]


def text_of(events: Events) -> str:
    """The answer's text."""
    return "".join(
        data["delta"].get("text", "") for type_, data, _ in events if type_ == "content_block_delta"
    )


def only(type_: str, events: Events) -> dict[str, Any]:
    """The one event of that type."""
    (found,) = [data for each, data, _ in events if each == type_]
    return found


@asynccontextmanager
async def producing(nats: str, folder: Path) -> AsyncIterator[Product]:
    """An edge, and no worker yet; all of it is gone afterwards."""
    prefix = f"t{secrets.token_hex(6)}"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(on_own_streams(nats, prefix))
        edge = await stack.enter_async_context(serving(EdgeSettings(nats=nats, prefix=prefix, port=0)))
        product = Product(nats, prefix, folder, edge.wire, edge.edge)
        stack.push_async_callback(_stopped, product)
        yield product


@pytest.fixture
async def product(nats_server: str, tmp_path: Path) -> AsyncIterator[Product]:
    """For one test; the folders above have it in their conftest.py."""
    async with producing(nats_server, tmp_path) as product:
        yield product


async def _stopped(product: Product) -> None:
    for worker in product.workers:
        if not worker.stopped:
            await worker.stop()
