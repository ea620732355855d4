"""The same load over HTTP: a message is posted to one of several edges and followed as server-sent events.

When a connection breaks the viewer goes to the next edge: with `Last-Event-ID` once it has one, until then
with the same message under the same `Idempotency-Key`. A second viewer watches each session on NATS.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from time import monotonic

import httpx
import msgspec

from warmwire.broker.nats.login import NOBODY, Login
from warmwire.broker.wire.envelope import Cursor
from warmwire.broker.wire.events import TERMINAL
from warmwire.broker.wire.names import SessionKey, turn_id_for

from tests.conftest import SECONDS
from tests.system import history as h
from tests.system.cluster import until
from tests.system.load import TURN_WITHIN, Load, seen, shown

REFUSED = (409, 413, 422, 429)
"""Answers after which the message is certainly not accepted."""


@dataclass(frozen=True)
class Frame:
    """One server-sent event."""

    event: str
    data: str
    id: str


class _Gap(msgspec.Struct):
    after: str
    until: str


_gap = msgspec.json.Decoder(_Gap)


async def frames(lines: AsyncIterator[str]) -> AsyncIterator[Frame]:
    """The events in a response; one that is cut off in its middle is none."""
    fields: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif fields:
            yield Frame(fields.get("event", ""), fields.get("data", ""), fields.get("id", ""))
            fields = {}


class EdgeLoad(Load):
    """A load over the edges at these URLs. `edge_of` names the edge that serves a turn's viewer."""

    def __init__(
        self,
        url: str,
        seed: int,
        *,
        deltas: int,
        edges: list[str],
        name: str = "s",
        login: Login = NOBODY,
    ) -> None:
        super().__init__(url, seed, deltas=deltas, name=name, login=login)
        self.edges = edges
        self.edge_of: dict[str, str] = {}
        self._client = httpx.AsyncClient(timeout=httpx.Timeout(5, read=TURN_WITHIN), limits=httpx.Limits())
        self._following: list[asyncio.Task[None]] = []
        self._count = 0

    async def submit(self, key: SessionKey, text: str, expected: str, ends: dict[str, str]) -> str | None:
        """Post one message and follow its turn; the turn's id once it is accepted."""
        self._count += 1
        viewer = Viewer(self, key, text, f"key-{self._count}", self._count % len(self.edges), ends)
        self.notes.add(h.Joined(at=monotonic(), viewer=viewer.name, session=key.session, turn=viewer.turn))
        self._following.append(asyncio.create_task(viewer.follow(self._client)))
        await until(lambda: viewer.accepted is not None, "an answer of the edge", TURN_WITHIN)
        if viewer.accepted:
            accepted = h.Accepted(
                at=monotonic(), session=key.session, turn=viewer.turn, order=self._count, expected=expected
            )
            self.notes.add(accepted)
            return viewer.turn
        self.notes.add(h.Refused(at=monotonic(), session=key.session, turn=viewer.turn, why="refused"))
        return None

    async def viewers_done(self) -> None:
        """Wait until every viewer has had its end, or no time is left."""
        for task in self._following:
            if not task.done():
                await asyncio.wait({task}, timeout=TURN_WITHIN * SECONDS)
            task.cancel()
        for result in await asyncio.gather(*self._following, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        await self._client.aclose()


class Viewer:
    """One turn's viewer, which comes back when its connection breaks."""

    def __init__(
        self, load: EdgeLoad, key: SessionKey, text: str, idempotency: str, edge: int, ends: dict[str, str]
    ) -> None:
        self.turn = turn_id_for(key.tenant, key.session, idempotency)
        self.name = f"{self.turn}@one"
        self.accepted: bool | None = None
        self._load = load
        self._key = key
        self._text = text
        self._idempotency = idempotency
        self._edge = edge
        self._ends = ends
        self._last = ""
        self._over = False

    async def follow(self, client: httpx.AsyncClient) -> None:
        """Until the turn's end, over as many connections as it takes."""
        while not self._over:
            url = self._load.edges[self._edge]
            self._load.edge_of[self.turn] = url
            try:
                async with self._request(client, url) as response:
                    await self._read(response)
            except httpx.TransportError as error:
                if isinstance(error, httpx.ConnectError):
                    await asyncio.sleep(0.1)  # the pause of a client that tries again
                else:
                    self._load.notes.add(h.Broke(at=monotonic(), viewer=self.name))
            self._edge = (self._edge + 1) % len(self._load.edges)

    def _request(self, client: httpx.AsyncClient, url: str) -> AbstractAsyncContextManager[httpx.Response]:
        path = f"{url}/v1/chat/stream"
        if self._last:
            query = {"session_id": self._key.session, "message": self._text}
            return client.stream("GET", path, params=query, headers={"Last-Event-ID": self._last})
        body = {"session_id": self._key.session, "message": self._text}
        return client.stream("POST", path, json=body, headers={"Idempotency-Key": self._idempotency})

    async def _read(self, response: httpx.Response) -> None:
        if response.status_code == 204:
            self._over = True
        elif response.status_code in REFUSED:
            self.accepted, self._over = False, True
        elif response.status_code == 200:
            async for frame in frames(response.aiter_lines()):
                self._take(frame)
        else:
            await asyncio.sleep(0.2)  # the pause of a client that was told to come later

    def _take(self, frame: Frame) -> None:
        self._last = frame.id or self._last
        self.accepted = True
        if frame.data == "[DONE]":
            self._over = True
        elif frame.data and frame.event != "turn_queued":
            self._note(frame)

    def _note(self, frame: Frame) -> None:
        at, data = Cursor.parse(frame.id), frame.data.encode()
        if frame.event == "gap":
            gap = _gap.decode(data)
            after, lost = Cursor.parse(gap.after).position, Cursor.parse(gap.until).position
            self._load.notes.add(h.Gap(at=monotonic(), viewer=self.name, after=after, until=lost))
        elif frame.event == "snapshot":
            self._load.notes.add(shown(self.name, at.position, at.turn, data))
        else:
            self._load.notes.add(seen(self.name, at.position, at.turn, frame.event, data))
            if frame.event in TERMINAL:
                self._ends[self.turn] = frame.event
