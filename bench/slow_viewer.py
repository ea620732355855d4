"""A viewer that reads one byte a second, beside fifty that read everything: what it costs the others.

    python -m bench.slow_viewer [--viewers 50] [--deltas 4000] [--rate 300] [--rounds 3] [--json FILE]

The emulator stamps each delta. Each round streams two answers: to the fifty alone, and to the fifty
and the slow one. Then the slow one reads all the rest, and its text must be what the others have. Ends with 1
if it is not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import uvloop

from bench import measure

SMALL = 4096
"""Bytes that the slow viewer's own socket is to hold, at most."""
STAMP = re.compile(rb'"text":"(\d{19}) ')
END = b"event: turn_completed"
PARTS = {"p50_ms": 0.5, "p99_ms": 0.99}
WITHIN = 120.0
"""Seconds that anything waited for may take."""


class Viewer(asyncio.Protocol):
    """Keeps each read with its time; it is looked at when all is over."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, bytes]] = []
        self.opened = asyncio.Event()
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """A part of the stream."""
        self.reads.append((time.time_ns(), data))
        self.opened.set()
        if END in data:
            self.ended.set()

    def late(self) -> list[float]:
        """Milliseconds from each delta's making to its arrival."""
        return [(at - int(stamp)) / 1e6 for at, data in self.reads for stamp in STAMP.findall(data)]

    @property
    def bytes(self) -> bytes:
        """All of it."""
        return b"".join(data for _, data in self.reads)


def text_of(stream: bytes) -> str:
    """The text that a client has at the end of a stream of a session."""
    text = ""
    for event in events_of(stream):
        if event["type"] == "turn_reset":
            text = ""
        elif event["type"] == "snapshot":
            text = "".join(block["text"] for block in event["blocks"] if block["kind"] == "text")
        elif event["type"] == "content_block_delta":
            text += event["delta"].get("text", "")
    return text


def events_of(stream: bytes) -> list[dict[str, Any]]:
    """The whole events in a response."""
    body = stream.partition(b"\r\n\r\n")[2]
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        whole, body = whole + body[:length], body[length + 2 :]
        if not length:
            break
    whole = whole[: whole.rfind(b"\n\n")]
    return [json.loads(line[6:]) for line in whole.split(b"\n") if line.startswith(b"data: {")]


def request(session: str) -> bytes:
    """Watches a session."""
    return f"GET /v1/sessions/{session}/events HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()


class SlowViewer:
    """Reads one byte a second; then, all there is."""

    def __init__(self, port: int, session: str) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        self._socket.connect(("127.0.0.1", port))
        self._socket.sendall(request(session))
        self._socket.setblocking(False)
        self.bytes = b""
        self.behind = 0

    async def crawl(self) -> None:
        """One byte a second, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self.bytes += await loop.sock_recv(self._socket, 1)
            await asyncio.sleep(1)

    async def run(self) -> str:
        """Everything else, as fast as it comes; the text."""
        self.behind = len(self.bytes)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(WITHIN):
            while END not in self.bytes[-4096:]:
                data = await loop.sock_recv(self._socket, 1 << 16)
                assert data, "the slow viewer was cut"
                self.bytes += data
        self._socket.close()
        return text_of(self.bytes)


async def round_of(edge: measure.Served, viewers: int, *, slow: bool) -> dict[str, Any]:
    """One answer."""
    loop, session = asyncio.get_running_loop(), uuid.uuid4().hex
    connections = [await loop.create_connection(Viewer, "127.0.0.1", edge.port) for _ in range(viewers)]
    for transport, _ in connections:
        transport.write(request(session))
    others = [viewer for _, viewer in connections]
    crawler = SlowViewer(edge.port, session) if slow else None
    crawling = asyncio.create_task(crawler.crawl()) if crawler else None
    async with asyncio.timeout(WITHIN):
        await asyncio.gather(*[viewer.opened.wait() for viewer in others])
        before = rss(edge)
        sampling = asyncio.create_task(highest(edge))
        await send(edge.port, session)
        await asyncio.gather(*[viewer.ended.wait() for viewer in others])
    sampling.cancel()
    during = await sampling
    text = None
    if crawler and crawling:
        crawling.cancel()
        text = await crawler.run()
    for transport, _ in connections:
        transport.close()
    return {
        **of_others(others, text),
        "rss_before": before,
        "rss_during": during,
        "rss_after": rss(edge),
        "slow_had": crawler.behind if crawler else None,
        "slow_bytes": len(crawler.bytes) if crawler else None,
    }


def of_others(others: list[Viewer], text: str | None) -> dict[str, Any]:
    """Their delays, and whether they and the slow one, if there was one, have the same text."""
    late = sorted(ms for viewer in others for ms in viewer.late())
    expected = text_of(others[0].bytes)
    return {
        **{part: percentile(late, where) for part, where in PARTS.items()},
        "deltas": len(late),
        "bytes": len(others[0].bytes),
        "right": text in (None, expected) and {expected} == {text_of(viewer.bytes) for viewer in others},
    }


async def send(port: int, session: str) -> None:
    """A message whose answer is as long as the emulator was told."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b'{"message":"Hello"}'
    head = f"POST /v1/sessions/{session}/messages HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.read()
    assert b" 202 " in answer[:16], answer
    writer.close()


def rss(edge: measure.Served) -> int:
    """Bytes of the edge's resident memory."""
    (pid,) = edge.roles["edge"]
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("bench: the edge is gone")


async def highest(edge: measure.Served) -> int:
    """The most that it takes, until cancelled."""
    most = 0
    try:
        while True:
            most = max(most, rss(edge))
            await asyncio.sleep(0.2)
    except asyncio.CancelledError:
        return most


def percentile(values: list[float], part: float) -> float:
    """Of sorted values."""
    return values[min(len(values) - 1, int(len(values) * part))]


async def measured(options: argparse.Namespace, edge: measure.Served) -> dict[bool, list[dict[str, Any]]]:
    """All rounds, without and with the slow one in turns; the first pair only warms up."""
    found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for number in range(options.rounds + 1):
        for slow in (False, True):
            one = await round_of(edge, options.viewers, slow=slow)
            if number:
                found[slow].append(one)
            if not one["right"]:
                raise SystemExit("bench: a viewer's text is not complete, or not right")  # exit code 1
    return found


def row_of(name: str, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """One line of the table: medians over the rounds."""
    return {
        "viewers": name,
        **{part: round(statistics.median(one[part] for one in rounds), 2) for part in PARTS},
        "deltas": sum(one["deltas"] for one in rounds),
        **{
            f"rss_{when}_mb": round(max(one[f"rss_{when}"] for one in rounds) / 2**20, 1)
            for when in ("before", "during", "after")
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--deltas", type=int, default=4000)
    parser.add_argument("--rate", type=float, default=300, help="deltas a second")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file to write the figures to, too")
    options = parser.parse_args()
    emulated = {"emulator_deltas": options.deltas, "emulator_rate": options.rate, "emulator_stamp": 1}
    with (
        tempfile.TemporaryDirectory() as folder,
        measure.product(Path(folder) / "up", "emulator", viewer_patience=3600, **emulated) as edge,
    ):
        found = uvloop.run(measured(options, edge))
    rows = [row_of(f"{options.viewers} alone", found[False]), row_of("and one at 1 byte/s", found[True])]
    pairs = list(zip(found[False], found[True], strict=True))
    ratios = {
        part: round(statistics.median(with_it[part] / alone[part] for alone, with_it in pairs), 2)
        for part in PARTS
    }
    slow = found[True][-1]
    print(measure.table(tuple(rows[0]), [tuple(row.values()) for row in rows]))
    print(f"\nothers with / without the slow one: p50 × {ratios['p50_ms']}, p99 × {ratios['p99_ms']}")
    print(
        f"the slow one had {slow['slow_had']} bytes when the answer had ended, of {slow['bytes']}; "
        f"it then got {slow['slow_bytes']} bytes in all, and its text is complete and right"
    )
    measure.report(options.json, "slow viewer", {"ratios": ratios, **vars(options) | {"json": None}}, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
