"""`warmwire traces`: where the time of a turn went, by its spans, and its waterfalls."""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from warmwire.compose.operating.traces import BODY, QUIET, SPANS, TRACES, Trace, Traces
from warmwire.compose.operating.waterfall import rows, slow, svg, text, verdict

from tests.compose.running import Running, running
from tests.conftest import SECONDS, end

MS = 1_000_000


def span(
    name: str, number: int, above: int, begin: float, end: float, events: dict[str, float] | None = None
) -> Span:
    """Times in ms."""
    found = Span(
        name=name,
        trace_id=b"t" * 16,
        span_id=bytes([number]) * 8,
        parent_span_id=bytes([above]) * 8 if above else b"",
        start_time_unix_nano=round(begin * MS),
        end_time_unix_nano=round(end * MS),
    )
    for event, at in (events or {}).items():
        found.events.add(name=event, time_unix_nano=round(at * MS))
    return found


def turn(wait: float, start: float, think: float, how: str = "adopted") -> Trace:
    """A turn with these stages, in ms, one after the other."""
    begun, ready = 10 + wait, 10 + wait + start
    first = ready + think
    return [
        (
            "warmwire-edge",
            span("deliver turn", 2, 1, 1, first + 30, {"accepted": 5, "first delta": first + 2}),
        ),
        ("warmwire-worker", span("commit", 7, 5, first + 20, first + 25)),
        ("warmwire-worker", span("chat", 6, 5, ready, first + 20, {"first delta": first})),
        ("warmwire-worker", span(f"{how} process", 8, 5, begun, ready)),
        ("warmwire-worker", span("process ww.req", 5, 3, begun, first + 25)),
        ("warmwire-worker", span("wait", 4, 3, 10, begun)),
        ("warmwire-edge", span("send ww.req", 3, 1, 2, 8)),
        ("warmwire-edge", span("POST /v1/chat/stream", 1, 0, 0, first + 31)),
    ]


@pytest.mark.parametrize(
    ("spans", "longest", "said"),
    [
        (turn(900, 5, 20), "wait", "900 ms of them in `wait` (in the queue"),
        (turn(5, 700, 20), "process", "700 ms of them in `process` (until there was a CLI process"),
        (turn(5, 10, 1500), "chat", "1500 ms of them in `chat` (the CLI: the model"),
        (turn(5, 10, 1500, "spawned"), "chat", "(the CLI, which was started for this turn"),
        (turn(5, 10, 1500, "resumed"), "chat", "(the CLI, which was started for this turn"),
    ],
)
def test_the_longest_stage_before_the_first_delta_is_named(spans: Trace, longest: str, said: str) -> None:
    judged = verdict(rows(spans))
    assert judged is not None
    assert longest == judged.longest
    assert said in text(spans)
    assert said.split(" (", maxsplit=1)[0] in svg(spans)


def test_rows_are_a_tree_in_the_order_of_time() -> None:
    found = rows(turn(900, 5, 20))
    assert [
        ("POST /v1/chat/stream", 0),
        ("deliver turn", 1),
        ("send ww.req", 1),
        ("wait", 2),
        ("process ww.req", 2),
        ("adopted process", 3),
        ("chat", 3),
        ("commit", 3),
    ] == [(row.name, row.depth) for row in found]
    assert 0 == found[0].begin


def test_only_failed_turns_and_slow_ones_are_slow() -> None:
    quick, late = turn(5, 5, 20), turn(5, 5, 600)
    assert [False, True] == [slow(rows(spans), 0.5) for spans in (quick, late)]
    quick[0][1].status.code = Status.STATUS_CODE_ERROR
    assert slow(rows(quick), 0.5)


def test_a_turn_without_a_first_delta_is_drawn_without_a_verdict() -> None:
    spans = [(service, each) for service, each in turn(5, 5, 20) if each.name != "chat"]
    assert verdict(rows(spans)) is None
    assert "deliver turn" in text(spans)


def test_a_name_is_text_and_nothing_else() -> None:
    spans = turn(5, 5, 20)
    spans[0][1].name = '<script>&"'
    drawn = svg(spans)
    assert "<script>" not in drawn
    assert "&lt;script&gt;&amp;" in drawn


def test_a_trace_is_shown_once_it_is_whole_or_quiet_and_others_are_forgotten() -> None:
    known, spans = Traces(), turn(5, 5, 20)
    known.take(spans[:3], 0)
    assert [] == known.ready(QUIET)
    known.take(spans[3:], QUIET)
    assert [spans] == known.ready(QUIET)
    known.take(spans[:2], 100)
    assert [spans[:2]] == known.ready(100 + QUIET + 1)
    known.take(spans[6:], 200)
    assert [] == known.ready(200 + QUIET + 1)
    assert [] == known.ready(1000)


def test_neither_traces_nor_spans_grow_without_bound() -> None:
    known = Traces()
    for number in range(TRACES + 5):
        each = span("commit", 1, 9, 0, 1)
        each.trace_id = number.to_bytes(16, "big")
        known.take([("w", each)] * (SPANS + 1 if number == 0 else 1), 0)
    shown = known.ready(0)
    assert 5 == len(shown)
    assert SPANS == len(shown[0])


@contextmanager
def watching(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`warmwire traces`, and where it listens."""
    argv = [sys.executable, "-m", "warmwire.compose", "traces", "--port=0", *arguments]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip().partition("=")[2]
    finally:
        end(process)
        process.communicate()


def chat(up: Running, session: str) -> None:
    body = {"session_id": session, "message": "Hello"}
    httpx.post(f"{up.url}/v1/chat/stream", json=body, timeout=60 * SECONDS).raise_for_status()


def shown(process: subprocess.Popen[str]) -> list[str]:
    """One paragraph for each turn, once it has ended."""
    out, _ = process.communicate(timeout=60 * SECONDS)
    assert process.returncode == 0
    return out.strip().split("\n\n")


def test_a_slow_cli_and_a_full_worker_look_different(tmp_path: Path) -> None:
    picture = tmp_path / "turn.svg"
    with watching("--count=2", f"--svg={picture}") as (process, url):
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "WARMWIRE_MAX_TURNS": "1",
            "WARMWIRE_EMULATOR_TTFT_MS": "2500",  # longer than a process takes to start
            "WARMWIRE_EMULATOR_DELTAS": "100",
        }
        with running(tmp_path / "up", environment=environment) as up:
            up.wait_until_ready()
            people = [threading.Thread(target=chat, args=(up, name)) for name in ("s1", "s2")]
            for each in people:
                each.start()
            for each in people:
                each.join()
            first, second = shown(process)
    assert "of them in `chat` (the CLI" in first
    assert "of them in `wait` (in the queue" in second
    assert "Hello" not in first + second
    assert "`wait`" in picture.read_text()


def test_what_is_no_export_of_spans_is_refused() -> None:
    with watching() as (_, url):
        answers = [
            httpx.post(f"{url}/v1/{what}", content=body).status_code
            for what, body in (("traces", b"\xff\xff"), ("metrics", b""), ("nothing", b""))
        ]
        assert [400, 200, 404] == answers
        packed = {"content-encoding": "gzip"}
        for code, body in ((400, b"no gzip"), (413, gzip.compress(b"\0" * (BODY + 1)))):
            assert code == httpx.post(f"{url}/v1/traces", content=body, headers=packed).status_code
        with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), 30 * SECONDS) as line:
            line.sendall(f"POST /v1/traces HTTP/1.1\r\ncontent-length: {BODY + 1}\r\n\r\n".encode())
            assert b" 413 " in line.recv(100)
        with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), 30 * SECONDS) as line:
            line.sendall(b"POST /v1/traces HTTP/1.1\r\ncontent-length: -1\r\n\r\n")
            assert b" 400 " in line.recv(100)


def test_a_taken_port_is_named() -> None:
    with watching() as (_, url):
        argv = [sys.executable, "-m", "warmwire.compose", "traces", "--port", url.rpartition(":")[2]]
        said = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60 * SECONDS)
    assert said.returncode == 1
    assert "--port" in said.stderr
