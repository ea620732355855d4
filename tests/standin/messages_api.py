"""A stand-in for the Messages API, so that the real CLI can be tested without an account or a network.

It speaks just enough HTTP/1.1 by hand, because the faults it plays (a stream cut in mid-chunk, a server that
accepts and then says nothing) are what a web framework takes care to prevent.

As a library:

    async with MessagesApi(Behaviour(text="Hello", rate=20)) as api:
        ...                                      # give the CLI ANTHROPIC_BASE_URL=api.url
        api.behaviour = Behaviour(error=429)     # from the next request on
        api.once.append(Behaviour(cut_after=3))  # for one request only
        api.on["stumble"] = Behaviour(error=529) # for requests whose last message holds the word

As a process: `python -m tests.standin.messages_api --port 8090 --rate 20`; it prints `ready http://…`.

The message `recall` is answered with the user's earlier messages, one per line, as the request holds them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, fields, replace
from queue import SimpleQueue
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
DEFAULT_TEXT = "Hello! This is the stand-in Messages API; it answers every message with the same few words."
# What the CLI itself writes into user messages; a person never typed it.
ADDED_BY_CLI = re.compile(
    r"<(system-reminder|command-(?:name|message|args)|local-command-(?:caveat|stdout))>.*?</\1>\s*", re.DOTALL
)
INTERRUPTED = "[Request interrupted by user"
SECRETS = {"authorization", "x-api-key", "cookie"}

Json = dict[str, Any]


def fingerprint(credential: str) -> str:
    """Enough to tell credentials apart."""
    return hashlib.sha256(credential.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Behaviour:
    """What the API does with a request for a message. The fields are the flags of the command, too."""

    text: str = field(default=DEFAULT_TEXT, metadata={"help": "what it answers"})
    deltas: int = field(default=0, metadata={"help": "pieces the text is cut into; 0: one per word"})
    rate: float = field(default=0.0, metadata={"help": "deltas per second; 0: no pause between them"})
    ttft: float = field(default=0.0, metadata={"help": "seconds before it begins to answer"})
    error: int = field(
        default=0, metadata={"help": f"HTTP status answered instead: {', '.join(map(str, ERRORS))}"}
    )
    complaint: str = field(default="", metadata={"help": "the words of that error"})
    cut_after: int = field(default=-1, metadata={"help": "deltas after which the connection is dropped"})
    hang_after: int = field(default=-1, metadata={"help": "deltas after which it falls silent for good"})
    tool: str = field(default="", metadata={"help": "a Bash command that it asks for before it answers"})


@dataclass(frozen=True)
class Request:
    """One request as it came, without its secrets."""

    method: str
    path: str
    headers: dict[str, str]
    body: Json
    credential: str  # names the key or token, as `fingerprint` does


@dataclass
class MessagesApi:
    """The server. `behaviour` holds for every request, `on` for those about a word, `once` for the next."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    host: str = "127.0.0.1"
    port: int = 0
    once: deque[Behaviour] = field(default_factory=deque)
    on: dict[str, Behaviour] = field(default_factory=dict)
    takes: set[str] = field(default_factory=set)  # fingerprints of credentials; none: it takes any
    requests: list[Request] = field(default_factory=list)
    _clients: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def asked(self) -> list[Json]:
        """The bodies of the requests for a message; the CLI makes others beside them."""
        return [r.body for r in self.requests if r.path == "/v1/messages"]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(_Client(reader, writer)))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, client: _Client) -> None:
        try:
            while True:
                request = await client.request()
                self.requests.append(request)
                await self._answer(client, request)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            client.drop()  # the client has left, was cut off as asked, or the server closes

    async def _answer(self, client: _Client, request: Request) -> None:
        if request.path == "/v1/messages/count_tokens":
            await client.send(200, {"input_tokens": len(json.dumps(request.body)) // 4})
        elif request.path == "/v1/messages":
            behaviour = self.once.popleft() if self.once else self._about(request.body)
            if self.takes and request.credential not in self.takes:
                behaviour = replace(behaviour, error=401)
            await _behave(client, request.body, behaviour)
        else:
            await client.send(404, _error(404))

    def _about(self, body: Json) -> Behaviour:
        *_, last = ["", *user_texts(body)]
        return next((played for word, played in self.on.items() if word in last), self.behaviour)


# --- HTTP ------------------------------------------------------------------------------------------------


class _Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def request(self) -> Request:
        head = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        method, target, _ = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        raw = await self._reader.readexactly(int(headers.get("content-length", "0")))
        shown = {name: value for name, value in headers.items() if name not in SECRETS}
        credential = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        body = json.loads(raw) if raw else {}
        return Request(method, target.partition("?")[0], shown, body, fingerprint(credential))

    async def send(self, status: int, body: Json) -> None:
        data = json.dumps(body).encode()
        await self._head(status, "application/json", f"content-length: {len(data)}")
        await self._write(data)

    async def begin_stream(self) -> None:
        await self._head(200, "text/event-stream", "transfer-encoding: chunked")

    async def stream(self, event: Json) -> None:
        data = f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
        await self._write(b"%x\r\n%b\r\n" % (len(data), data))

    async def end_stream(self) -> None:
        await self._write(b"0\r\n\r\n")

    async def wait_until_gone(self) -> None:
        await self._reader.read()
        raise ConnectionResetError

    def drop(self) -> None:
        self._writer.transport.abort()

    async def _head(self, status: int, kind: str, length: str) -> None:
        lines = (f"HTTP/1.1 {status} Stand-in", f"content-type: {kind}", length, "request-id: req_standin")
        await self._write("\r\n".join((*lines, "", "")).encode())

    async def _write(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError
        self._writer.write(data)
        await self._writer.drain()


# --- what it does ----------------------------------------------------------------------------------------

_numbers = itertools.count(1)


async def _behave(client: _Client, body: Json, behaviour: Behaviour) -> None:
    if behaviour.hang_after == 0:
        await client.wait_until_gone()
    await asyncio.sleep(behaviour.ttft)
    if behaviour.error:
        await client.send(behaviour.error, _error(behaviour.error, behaviour.complaint))
    elif body.get("stream"):
        await _stream(client, body, behaviour)
    else:
        await client.send(200, _message(body, _block(body, behaviour)))


async def _stream(client: _Client, body: Json, behaviour: Behaviour) -> None:
    await client.begin_stream()
    deltas = 0
    async for event in _events(body, _block(body, behaviour), behaviour):
        if event["type"] == "content_block_delta":
            if deltas == behaviour.cut_after:
                raise ConnectionResetError
            if deltas == behaviour.hang_after:
                await client.wait_until_gone()
            deltas += 1
        await client.stream(event)
    await client.end_stream()


def _error(status: int, complaint: str = "") -> Json:
    error = {"type": ERRORS.get(status, "api_error"), "message": complaint or f"stand-in error {status}"}
    return {"type": "error", "error": error}


def _block(body: Json, behaviour: Behaviour) -> Json:
    """The one content block of the answer."""
    last = [message for message in body["messages"] if message["role"] == "user"][-1]["content"]
    if behaviour.tool and not any(block["type"] == "tool_result" for block in _blocks(last)):
        return {
            "type": "tool_use",
            "id": f"toolu_{next(_numbers)}",
            "name": "Bash",
            "input": {"command": behaviour.tool},
        }
    said = user_texts(body)
    if said and said[-1].strip() == "recall":
        return {"type": "text", "text": "\n".join(said[:-1]) or "(no earlier messages)"}
    return {"type": "text", "text": behaviour.text}


def user_texts(body: Json) -> list[str]:
    """What the user said in this conversation, oldest first, without what the CLI has added."""
    texts: list[str] = []
    for message in body["messages"]:
        if message["role"] == "user":
            texts += _typed(_blocks(message["content"]))
    return texts


def _typed(blocks: list[Json]) -> Iterator[str]:
    for number, block in enumerate(blocks, start=1):
        text = ADDED_BY_CLI.sub("", block.get("text", ""))
        if number < len(
            blocks
        ):  # the CLI joins messages that had no answer and ends all but the last with this
            text = text.removesuffix("\n")
        if text and not text.startswith(INTERRUPTED):
            yield text


def _blocks(content: str | list[Json]) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _usage(output: int) -> Json:
    cache = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"input_tokens": 12, **cache, "output_tokens": output}


def _message(body: Json, block: Json) -> Json:
    return {
        "id": f"msg_{next(_numbers)}",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [block],
        "stop_reason": _stop_reason(block),
        "stop_sequence": None,
        "usage": _usage(7),
    }


def _stop_reason(block: Json) -> str:
    return "tool_use" if block["type"] == "tool_use" else "end_turn"


async def _events(body: Json, block: Json, behaviour: Behaviour) -> AsyncIterator[Json]:
    start = {**_message(body, block), "content": [], "stop_reason": None, "usage": _usage(1)}
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


def _pieces(text: str, deltas: int) -> list[str]:
    if not deltas:
        return re.findall(r"\S+\s*|\s+", text)
    size = max(1, -(-len(text) // deltas))
    return [text[start : start + size] for start in range(0, len(text), size)]


# --- as a thread, as a process ---------------------------------------------------------------------------


@contextlib.contextmanager
def in_thread(behaviour: Behaviour | None = None) -> Iterator[MessagesApi]:
    """The server on a loop of its own, for tests that are not async."""
    api = MessagesApi(behaviour or Behaviour())
    started: SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = SimpleQueue()

    async def run() -> None:
        stop = asyncio.Event()
        async with api:
            started.put((asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    loop, stop = started.get()
    try:
        yield api
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A stand-in Messages API on loopback.")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 picks a free one")
    for option in fields(Behaviour):
        flag = f"--{option.name.replace('_', '-')}"
        parser.add_argument(
            flag, type=type(option.default), default=option.default, help=option.metadata["help"]
        )
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
