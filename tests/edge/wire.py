"""A plain HTTP client that shows every byte and every chunk as it comes."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any, Self

from tests.conftest import SECONDS

WITHIN = 10 * SECONDS
"""Seconds for anything that is expected, unless a test says otherwise."""


class Answer:
    """One response, read as it arrives. ``chunks`` are its HTTP chunks so far: one per write of the edge."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, within: float) -> None:
        self._reader = reader
        self._writer = writer
        self._seconds = within
        self._rest = b""
        self._over = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []

    async def head(self) -> Self:
        """Read the status line and the headers."""
        lines = (await self._within(self._reader.readuntil(b"\r\n\r\n"))).decode().split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)
        }
        return self

    async def chunk(self) -> bytes:
        """The next chunk, whatever it holds; not to be mixed with ``frame`` and ``event``."""
        assert await self._more(), "the response has ended"
        rest, self._rest = self._rest, b""
        return rest

    async def frame(self) -> bytes:
        """The next frame, up to and with its blank line; b"" when the response has ended."""
        while b"\n\n" not in self._rest:
            if not await self._more():
                rest, self._rest = self._rest, b""
                return rest
        end = self._rest.index(b"\n\n") + 2
        frame, self._rest = self._rest[:end], self._rest[end:]
        return frame

    async def event(self) -> tuple[str, dict[str, Any], str]:
        """The next frame that has data: its type, its parsed data, its id."""
        while True:
            frame = await self.frame()
            assert frame, "the response has ended"
            fields = dict(line.split(": ", 1) for line in frame.decode().splitlines() if ": " in line)
            if "data" in fields:
                data = fields["data"]
                parsed = {} if data == "[DONE]" else json.loads(data)
                return fields.get("event", data), parsed, fields.get("id", "")

    async def until(self, type_: str) -> list[tuple[str, dict[str, Any], str]]:
        """All events up to and with the first of that type."""
        events = [await self.event()]
        while events[-1][0] != type_:
            events.append(await self.event())
        return events

    async def body(self) -> bytes:
        """The rest of the response."""
        while await self._more():
            pass
        rest, self._rest = self._rest, b""
        return rest

    async def json(self) -> Any:
        """The body of an answer."""
        return json.loads(await self.body())

    async def problem(self) -> dict[str, Any]:
        """The body of an error answer."""
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(await self.body())
        return document

    async def leave(self) -> None:
        """Close the connection, whatever is still to come."""
        self._writer.close()
        await self._writer.wait_closed()

    async def _more(self) -> bool:
        if self._over:
            return False
        if "chunked" in self.headers.get("transfer-encoding", ""):
            chunk = await self._chunk()
        else:
            chunk = await self._within(self._reader.readexactly(int(self.headers.get("content-length", "0"))))
            self._over = True
        self._over = self._over or not chunk
        if chunk:
            self.chunks.append(chunk)
            self._rest += chunk
        return bool(chunk)

    async def _chunk(self) -> bytes:
        line = await self._within(self._reader.readline())
        if not line:
            raise asyncio.IncompleteReadError(b"", None)
        size = int(line, 16)
        return (await self._within(self._reader.readexactly(size + 2)))[:-2]

    async def _within(self, reading: Any) -> bytes:
        async with asyncio.timeout(self._seconds):
            data: bytes = await reading
            return data


class Wire:
    """Talks to one edge. Every request has a connection of its own."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.within = WITHIN
        self._answers: list[Answer] = []

    async def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Send a request; returns once the headers of its answer are there."""
        given = {"host": self.host, **({"content-length": str(len(body))} if body else {}), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        answer = await self.raw(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        return await answer.head()

    async def raw(self, data: bytes) -> Answer:
        """Send these bytes."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        answer = Answer(reader, writer, self.within)
        self._answers.append(answer)
        writer.write(data)
        await writer.drain()
        return answer

    async def post(self, body: object, headers: dict[str, str] | None = None) -> Answer:
        """Send a chat request."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"content-type": "application/json", **(headers or {})}
        return await self.request("POST", "/v1/chat/stream", given, content)

    async def send(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """A request with a JSON body, if any; underscores in header names are dashes."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is None:
            return await self.request(method, path, given)
        return await self.request(
            method, path, {"content-type": "application/json", **given}, json.dumps(body).encode()
        )

    async def ready(self, headers: dict[str, str] | None = None) -> None:
        """Wait until a health check says that a message would be answered: a heartbeat may be late."""
        async with asyncio.timeout(self.within):
            while (await self.request("GET", "/readyz", headers)).status != 200:  # noqa: ASYNC110 - over there
                await asyncio.sleep(0.02)

    async def watch(self, session: str, cursor: str | None = None, query: str = "") -> Answer:
        """Watch a session."""
        headers = {"last-event-id": cursor} if cursor is not None else {}
        return await self.request("GET", f"/v1/sessions/{session}/events{query}", headers)

    async def resume(self, session: str, cursor: str) -> Answer:
        """Come back as an EventSource does."""
        path = f"/v1/chat/stream?session_id={session}&message=Hello"
        return await self.request("GET", path, {"last-event-id": cursor})

    async def close(self) -> None:
        """Leave every connection, also those that the edge has cut."""
        for answer in self._answers:
            with suppress(ConnectionError):
                await answer.leave()
