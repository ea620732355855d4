"""A stand-in for the Messages API, so that the real CLI can be tested without an account or a network.

It speaks just enough HTTP/1.1 by hand, because the faults it plays (a stream cut in mid-chunk, a server that
accepts and then says nothing) are what a web framework takes care to prevent.

As a library:

    async with MessagesApi(Behaviour(text="Hello", rate=20)) as api:
        ...                                   # ANTHROPIC_BASE_URL=api.url
        api.behaviour = Behaviour(error=429)  # from the next request on
        api.once.append(Behaviour(cut_after=3))  # for one request only

As a process: `python -m tests.standin.messages_api --port 8090 --rate 20`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
REASONS = {200: "OK", **{status: name.replace("_", " ").title() for status, name in ERRORS.items()}}
DEFAULT_TEXT = "Hello! This is the stand-in Messages API; it answers every message with the same few words."
# What the CLI itself writes into user messages; a person never typed it.
ADDED_BY_CLI = re.compile(r"<system-reminder>.*?</system-reminder>\s*", re.DOTALL)
INTERRUPTED = "[Request interrupted by user"
SECRETS = {"authorization", "x-api-key", "cookie"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Behaviour:
    """What the API does with a request to /v1/messages."""

    text: str = DEFAULT_TEXT
    deltas: int = 0  # pieces the text is cut into; 0: one per word
    rate: float = 0.0  # deltas per second; 0: as fast as they can be written
    ttft: float = 0.0  # seconds before message_start
    error: int = 0  # HTTP status answered instead of a message
    cut_after: int = -1  # drop the connection after so many deltas; -1: never
    hang_after: int = -1  # say nothing more after so many deltas (0: not even headers); -1: never
    tool: Json | None = None  # a tool_use block {name, input} asked for, until its result comes back


@dataclass(frozen=True)
class Request:
    """One request as it came, without its secrets."""

    method: str
    path: str
    headers: dict[str, str]
    body: Json


@dataclass
class MessagesApi:
    """The server: `behaviour` holds for every request, `once` for the next ones, one each."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    host: str = "127.0.0.1"
    port: int = 0
    once: deque[Behaviour] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def messages(self) -> list[Request]:
        """The requests that asked for a message (the CLI makes others beside them)."""
        return [r for r in self.requests if r.path == "/v1/messages"]

    async def __aenter__(self) -> Self:
        self._streams: set[asyncio.StreamWriter] = set()
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._streams:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._streams.add(writer)
        try:
            while (request := await _read_request(reader)) is not None:
                self.requests.append(request)
                await self._answer(request, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away: an interrupt or a killed CLI, both part of the tests
        finally:
            self._streams.discard(writer)
            writer.transport.abort()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == "/v1/messages/count_tokens":
            await _send_json(writer, 200, {"input_tokens": len(json.dumps(request.body)) // 4})
        elif request.path != "/v1/messages":
            await _send_json(writer, 200 if request.method == "HEAD" else 404, _error_body(404))
        else:
            await _behave(writer, request.body, self.once.popleft() if self.once else self.behaviour)


# --- HTTP ------------------------------------------------------------------------------------------------


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    raw = await reader.readexactly(int(headers.get("content-length", "0")))
    shown = {name: value for name, value in headers.items() if name not in SECRETS}
    return Request(method, target.partition("?")[0], shown, json.loads(raw) if raw else {})


async def _send_json(writer: asyncio.StreamWriter, status: int, body: Json) -> None:
    data = json.dumps(body).encode()
    writer.write(
        f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\nrequest-id: req_standin\r\n\r\n".encode()
        + data
    )
    await writer.drain()


def _error_body(status: int) -> Json:
    kind = ERRORS.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": f"stand-in error {status}"}}


def _chunk(event: Json) -> bytes:
    data = f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


async def _behave(writer: asyncio.StreamWriter, body: Json, behaviour: Behaviour) -> None:
    if behaviour.hang_after == 0:
        await asyncio.Event().wait()
    await asyncio.sleep(behaviour.ttft)
    if behaviour.error:
        await _send_json(writer, behaviour.error, _error_body(behaviour.error))
    elif body.get("stream"):
        await _send_stream(writer, body, behaviour)
    else:
        await _send_json(writer, 200, _whole_message(body, _block(body, behaviour)))


async def _send_stream(writer: asyncio.StreamWriter, body: Json, behaviour: Behaviour) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: req_standin\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    deltas = 0
    async for event in _events(body, _block(body, behaviour), behaviour):
        if event["type"] == "content_block_delta":
            if deltas == behaviour.cut_after:
                raise ConnectionResetError("cut, as asked")
            if deltas == behaviour.hang_after:
                await asyncio.Event().wait()
            deltas += 1
        writer.write(_chunk(event))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


# --- what is said ----------------------------------------------------------------------------------------


def _block(body: Json, behaviour: Behaviour) -> Json:
    """The one content block of the answer."""
    if behaviour.tool and not _has_tool_result(body):
        return {"type": "tool_use", "id": "toolu_standin", **behaviour.tool}
    said = user_texts(body)
    if said and said[-1].strip() == "recall":
        return {"type": "text", "text": "\n".join(said[:-1]) or "(nothing)"}
    return {"type": "text", "text": behaviour.text}


def user_texts(body: Json) -> list[str]:
    """What the user said in this request, oldest first, without what the CLI added."""
    texts: list[str] = []
    for message in body.get("messages", []):
        if message["role"] == "user":
            texts += _typed(message["content"])
    return texts


def _typed(content: str | list[Json]) -> Iterator[str]:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for block in blocks:
        text = ADDED_BY_CLI.sub("", block["text"]) if block["type"] == "text" else ""
        if text and not text.startswith(INTERRUPTED):
            yield text


def _has_tool_result(body: Json) -> bool:
    content = body["messages"][-1]["content"]
    return not isinstance(content, str) and any(block["type"] == "tool_result" for block in content)


def _pieces(text: str, deltas: int) -> list[str]:
    if not deltas:
        return re.findall(r"\S+\s*|\s+", text)
    size = max(1, -(-len(text) // deltas))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _usage(output: int) -> Json:
    return {
        "input_tokens": 12,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output,
    }


def _whole_message(body: Json, block: Json) -> Json:
    return {
        "id": "msg_standin",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", "standin"),
        "content": [block],
        "stop_reason": _stop_reason(block),
        "stop_sequence": None,
        "usage": _usage(7),
    }


def _stop_reason(block: Json) -> str:
    return "tool_use" if block["type"] == "tool_use" else "end_turn"


async def _events(body: Json, block: Json, behaviour: Behaviour) -> AsyncIterator[Json]:
    start = {**_whole_message(body, block), "content": [], "stop_reason": None, "usage": _usage(1)}
    yield {"type": "message_start", "message": start}
    empty: Json = {"text": ""} if block["type"] == "text" else {"input": {}}
    yield {"type": "content_block_start", "index": 0, "content_block": {**block, **empty}}
    yield {"type": "ping"}
    deltas = _deltas(block, behaviour)
    for delta in deltas:
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
        if behaviour.rate:
            await asyncio.sleep(1 / behaviour.rate)
    yield {"type": "content_block_stop", "index": 0}
    stop = {"stop_reason": _stop_reason(block), "stop_sequence": None}
    yield {"type": "message_delta", "delta": stop, "usage": {"output_tokens": len(deltas)}}
    yield {"type": "message_stop"}


def _deltas(block: Json, behaviour: Behaviour) -> list[Json]:
    if block["type"] == "tool_use":
        return [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
    return [{"type": "text_delta", "text": text} for text in _pieces(block["text"], behaviour.deltas)]


# --- as a thread, as a process ---------------------------------------------------------------------------


@contextlib.contextmanager
def in_thread(behaviour: Behaviour | None = None) -> Iterator[MessagesApi]:
    """The server on a loop of its own, for tests that are not async."""
    api = MessagesApi(behaviour or Behaviour())
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        async with api:
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield api
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A stand-in Messages API on loopback.")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 picks a free one")
    parser.add_argument("--text", default=DEFAULT_TEXT, help="what it answers")
    parser.add_argument("--deltas", type=int, default=0, help="deltas per answer; 0: one per word")
    parser.add_argument("--rate", type=float, default=0.0, help="deltas per second; 0: no pause")
    parser.add_argument("--ttft", type=float, default=0.0, help="seconds before the first event")
    parser.add_argument(
        "--error", type=int, default=0, choices=[0, *ERRORS], help="HTTP status answered instead"
    )
    parser.add_argument("--cut-after", type=int, default=-1, help="drop the connection after so many deltas")
    parser.add_argument("--hang-after", type=int, default=-1, help="fall silent after so many deltas")
    return parser.parse_args()


async def _main(arguments: argparse.Namespace) -> None:
    options = vars(arguments)
    port = options.pop("port")
    async with MessagesApi(Behaviour(**options), port=port) as api:
        print(f"ready {api.url}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(_arguments()))
