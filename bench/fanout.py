"""One session with 1000 viewers, and 1000 sessions with one each: what a delivered event costs the edge.

    python -m bench.fanout [--viewers 1000] [--per-second 5000] [--seconds 10] [--rounds 3] [--json FILE]

Events are published on NATS as a worker does, and counted at raw sockets as they arrive. Beside it stands a
process that only writes as many bytes to as many connections, at the same times, by uvloop. Rounds of both
take turns, and what counts is the ratio of their CPU per delivered event. Ends with 1 if an event is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvloop

from bench import measure
from warmwire.broker.nats.bus import Arrived, Bus, connect
from warmwire.broker.wire.envelope import EnvelopeWriter
from warmwire.broker.wire.messages import OwnerView, Replay, decode_control
from warmwire.broker.wire.names import DEFAULT_TENANT, SessionKey, Subjects, new_turn_id

SUBJECTS = Subjects()
MARK = b" word"
"""Part of each event that stays as often as there were events when the edge merges some of them."""
EVENT = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" word"}}'
TICK = 0.01
"""Seconds between two batches, where there is more than one session."""
WITHIN = 60.0
"""Seconds that anything waited for may take."""
FILES = 8192
"""Open files that the benchmark asks for."""


class Counter(asyncio.Protocol):
    """Counts the events that arrive on one connection."""

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0
        self._tail = b""
        self.opened = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """A part of the stream."""
        self.opened.set()
        self.bytes += len(data)
        data = self._tail + data
        self.events += data.count(MARK)
        self._tail = data[1 - len(MARK) :]  # a mark may be cut by the end of a read


@dataclass
class Shape:
    """``sessions`` with ``viewers`` each, and ``events`` a second in all."""

    sessions: int
    viewers: int
    events: float

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.sessions} × {self.viewers}"

    def batches(self, seconds: float) -> Iterator[tuple[float, range]]:
        """When which sessions have an event."""
        size = max(1, round(self.events * TICK))
        count, every = round(self.events * seconds / size), size / self.events
        for number in range(count):
            yield number * every, range(number * size, (number + 1) * size)


@contextmanager
def opened(connections: list[tuple[asyncio.Transport, Counter]]) -> Iterator[list[Counter]]:
    """Connections, closed afterwards."""
    try:
        yield [counter for _, counter in connections]
    finally:
        for transport, _ in connections:
            transport.close()


async def connected(port: int, paths: list[str]) -> list[tuple[asyncio.Transport, Counter]]:
    """One connection to each path, each with an answer."""
    loop, connections = asyncio.get_running_loop(), []
    for path in paths:
        transport, counter = await loop.create_connection(Counter, "127.0.0.1", port)
        transport.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        connections.append((transport, counter))
    async with asyncio.timeout(WITHIN):
        await asyncio.gather(*[counter.opened.wait() for _, counter in connections])
    return connections


async def arrived(counters: list[Counter], expected: int) -> None:
    """Wait until all events are there."""
    end = time.monotonic() + WITHIN
    while (there := sum(counter.events for counter in counters)) < expected:
        if time.monotonic() > end:
            raise SystemExit(f"bench: {expected - there} of {expected} events are lost")
        await asyncio.sleep(0.02)


class Owner:
    """Publishes a session's events, and answers what the edge asks of it, as a worker does."""

    def __init__(self, bus: Bus, key: SessionKey) -> None:
        self.key = key
        self._bus = bus
        self._turn = new_turn_id(1)
        self._writer = EnvelopeWriter(1, self._turn, 1)
        self._sent: list[bytes] = []

    async def publish(self) -> None:
        """One event more."""
        self._sent.append(self._writer.wrap(len(self._sent) + 1, EVENT))
        await self._bus.publish(SUBJECTS.events(self.key), self._sent[-1])

    def answer(self, request: Replay) -> OwnerView:
        """All since the asked position; without one, where it stands. It is between two turns, as it were."""
        if request.epoch is None or request.seq is None:
            return OwnerView(epoch=1, seq=len(self._sent))
        since = self._sent[request.seq if request.epoch == 1 else 0 :]
        return OwnerView(epoch=1, seq=len(self._sent), events=tuple(sent.decode() for sent in since))


class Owners:
    """All of them, behind one subscription."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._by_key: dict[SessionKey, Owner] = {}
        self._answering: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Answer from now on."""
        await self._bus.subscribe(f"{SUBJECTS.prefix}.ctl.*.*", self._asked)

    def more(self, sessions: int) -> list[Owner]:
        """Of so many new sessions."""
        new = [Owner(self._bus, SessionKey(DEFAULT_TENANT, uuid.uuid4().hex)) for _ in range(sessions)]
        self._by_key |= {owner.key: owner for owner in new}
        return new

    def _asked(self, message: Arrived) -> None:
        owner, request = self._by_key[SUBJECTS.session_of(message.subject)], decode_control(message.data)
        assert isinstance(request, Replay), request
        answer = self._bus.publish(message.reply, owner.answer(request).encode())
        task = asyncio.create_task(answer)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)


async def through_the_edge(
    edge: measure.Served, owners: list[Owner], shape: Shape, seconds: float
) -> dict[str, float]:
    """One round of the product."""
    sessions = [owner.key.session for owner in owners for _ in range(shape.viewers)]
    paths = [f"/v1/sessions/{session}/events" for session in sessions]
    with opened(await connected(edge.port, paths)) as counters:
        await asyncio.sleep(1)  # what follows a connection is over
        (pid,), begun, said = edge.roles["edge"], time.monotonic(), sum(each.bytes for each in counters)
        before, events = measure.cpu(pid), 0
        for at, batch in shape.batches(seconds):
            await asyncio.sleep(begun + at - time.monotonic())
            for number in batch:
                await owners[number % shape.sessions].publish()
            events += len(batch)
        delivered = events * shape.viewers
        await arrived(counters, delivered)
        used = measure.cpu(pid) - before
        size = (sum(each.bytes for each in counters) - said) / delivered
    return {"us": used / delivered * 1e6, "bytes": size, "delivered": delivered}


async def through_raw_sockets(shape: Shape, size: int, seconds: float) -> dict[str, float]:
    """One round of the process that only writes."""
    argv = [sys.executable, "-m", "bench.fanout", "--raw", str(size), "--seconds", str(seconds)]
    argv += ["--shape", f"{shape.sessions},{shape.viewers},{shape.events}"]
    process = await asyncio.to_thread(
        subprocess.Popen[bytes], argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    try:
        port = int(await asyncio.to_thread(process.stdout.readline))
        with opened(await connected(port, ["/"] * (shape.sessions * shape.viewers))) as counters:
            before = measure.cpu(process.pid)
            process.stdin.write(b"go\n")
            process.stdin.flush()
            events = sum(len(batch) for _, batch in shape.batches(seconds))
            delivered = events * shape.viewers
            await arrived(counters, delivered)
            return {"us": (measure.cpu(process.pid) - before) / delivered * 1e6}
    finally:
        process.kill()
        process.wait()


async def raw(shape: Shape, size: int, seconds: float) -> None:
    """The process that only writes: these bytes, at these times."""
    transports: list[asyncio.Transport] = []

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transports.append(cast(asyncio.Transport, transport))
            transports[-1].write(b"hello")

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Accepted, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    data, begun = MARK.ljust(size, b"x"), time.monotonic()
    for at, batch in shape.batches(seconds):
        await asyncio.sleep(begun + at - time.monotonic())
        for number in batch:
            first = number % shape.sessions * shape.viewers
            for transport in transports[first : first + shape.viewers]:
                transport.write(data)
    await asyncio.sleep(WITHIN)


async def measured(edge: measure.Served, nats: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Both shapes, product and raw sockets in turns; the first round only warms up."""
    bus = await connect(nats, "bench")
    known = Owners(bus)
    await known.listen()
    many = options.viewers
    rows = []
    for shape in (Shape(1, many, options.per_second / many), Shape(many, 1, options.per_second)):
        owners = known.more(shape.sessions)
        found: list[tuple[float, float]] = []
        one: dict[str, float] = {}
        for number in range(options.rounds + 1):
            one = await through_the_edge(edge, owners, shape, options.seconds if number else 2)
            raws = await through_raw_sockets(shape, round(one["bytes"]), options.seconds if number else 2)
            if number:
                found.append((one["us"], raws["us"]))
        rows.append(
            {
                "sessions × viewers": shape.name,
                "delivered": one["delivered"],
                "bytes": round(one["bytes"]),
                "edge_us": round(statistics.median(edge for edge, _ in found), 1),
                "raw_us": round(statistics.median(raw for _, raw in found), 1),
                "ratio": round(statistics.median(edge / raw for edge, raw in found), 2),
            }
        )
    await bus.close()
    return rows


def more_files() -> None:
    """As many open files as may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--viewers", type=int, default=1000)
    parser.add_argument("--per-second", type=float, default=5000, help="delivered events a second, in all")
    parser.add_argument("--seconds", type=float, default=10, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file to write the figures to, too")
    parser.add_argument("--raw", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    options = parser.parse_args()
    more_files()
    if options.raw is not None:
        sessions, viewers, events = options.shape.split(",")
        uvloop.run(raw(Shape(int(sessions), int(viewers), float(events)), options.raw, options.seconds))
        return 0
    with (
        tempfile.TemporaryDirectory() as folder,
        measure.product(Path(folder) / "up", "emulator", spares=0) as edge,
    ):
        said = re.search(r"NATS at (\S+)", (Path(folder) / "up" / "stderr").read_text())
        assert said, "the product says where its NATS is"
        print(f"edge: process {edge.roles['edge'][0]}, bench: {os.getpid()}", file=sys.stderr)
        rows = uvloop.run(measured(edge, said[1], options))
    print(measure.table(tuple(rows[0]), [tuple(row.values()) for row in rows]))
    settings = {name: getattr(options, name) for name in ("viewers", "per_second", "seconds", "rounds")}
    measure.report(options.json, "fan-out", settings, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
