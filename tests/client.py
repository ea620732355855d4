"""A client for tests: sends user messages and follows their turns with the broker's own pieces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import time_ns
from typing import Any

from warmwire.broker.nats import streams
from warmwire.broker.nats.bus import Bus, connect
from warmwire.broker.nats.store import Store
from warmwire.broker.reading.feed import Feeds
from warmwire.broker.reading.follower import Follower
from warmwire.broker.reading.reader import Item
from warmwire.broker.wire.envelope import Envelope
from warmwire.broker.wire.messages import TurnOptions, UserMessage
from warmwire.broker.wire.names import DEFAULT_TENANT, SessionKey, Subjects, new_turn_id

from tests.conftest import SECONDS


async def eventually(condition: Callable[[], object], what: str, deadline: float = 15) -> None:
    """Wait until ``condition`` holds; fail after ``deadline`` seconds."""
    try:
        async with asyncio.timeout(deadline * SECONDS):
            while not condition():  # noqa: ASYNC110 - conditions are anything; an event for each would be noise
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {deadline * SECONDS} s: {what}") from None


class Asked:
    """A turn that a test has sent, and what was seen of it."""

    def __init__(self, turn: str) -> None:
        self.turn = turn
        self.items: list[Item] = []

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events seen, parsed."""
        return [json.loads(item.event) for item in self.items if isinstance(item, Envelope)]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of one type."""
        return [event for event in self.events if event["type"] == kind]

    @property
    def text(self) -> str:
        """The text as a viewer that minds resets has it now."""
        text = ""
        for event in self.events:
            if event["type"] == "turn_reset":
                text = ""
            text += event.get("delta", {}).get("text", "") if event["type"] == "content_block_delta" else ""
        return text

    @property
    def end(self) -> dict[str, Any] | None:
        """The terminal event, once it is there."""
        last = self.items[-1] if self.items else None
        return self.events[-1] if isinstance(last, Envelope) and last.terminal else None

    async def ended(self) -> dict[str, Any]:
        """Wait for the terminal event."""
        await eventually(lambda: self.end, f"the end of turn {self.turn}")
        assert self.end is not None
        return self.end


class Client:
    """Sends and follows. Use ``connected``."""

    def __init__(self, bus: Bus, prefix: str) -> None:
        self.bus = bus
        self.subjects = Subjects(prefix)
        self.store = Store(bus, self.subjects)
        self.feeds = Feeds(bus, self.store, self.subjects)

    async def send(self, session: str, content: str, turn: str | None = None, **options: Any) -> Asked:
        """Submit a message and follow its turn."""
        key = SessionKey(DEFAULT_TENANT, session)
        now_ms = time_ns() // 1_000_000
        asked = Asked(turn or new_turn_id(now_ms))
        feed = await self.feeds.acquire(key)
        Follower(feed, self.store, asked.turn, asked.items.append).begin()
        credential = options.pop("credential", None)
        message = UserMessage(
            turn=asked.turn,
            content=content,
            options=TurnOptions(**options),
            sent_ms=now_ms,
            credential=credential,
        )
        await self.store.submit(key, message, {})
        return asked

    async def ask(self, session: str, content: str, **options: Any) -> Asked:
        """Submit a message and wait for its end."""
        asked = await self.send(session, content, **options)
        await asked.ended()
        return asked


@asynccontextmanager
async def on_own_streams(url: str, prefix: str) -> AsyncIterator[Client]:
    """A client with streams that are gone afterwards: what they reserve is the server's to give but once."""
    async with connected(url, prefix) as client:
        await streams.ensure(client.bus, client.subjects, 1, time_ns() // 1_000_000)
        try:
            yield client
        finally:
            subjects = client.subjects
            for stream in (subjects.request_stream, subjects.state_stream, subjects.log_stream):
                await client.bus.js.delete_stream(stream)


@asynccontextmanager
async def connected(url: str, prefix: str) -> AsyncIterator[Client]:
    """A client while it is needed."""
    client = Client(await connect(url, "test"), prefix)
    client.feeds.start()
    try:
        yield client
    finally:
        await client.feeds.stop()
        await client.bus.close()
