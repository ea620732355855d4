"""One turn's trace as a picture: which stage took how long, and what the first delta waited for. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

Spans = Sequence[tuple[str, Span]]
"""Each with the service that has sent it."""

MS = 1_000_000
"""Nanoseconds."""
BAR = 40
"""Characters of a bar."""
NAME = 26
"""Characters of a span's name, with what it is indented by."""
CAUSES = {
    "wait": "in the queue: no worker had room",
    "process": "until there was a CLI process",
    "chat": "the CLI: the model, or its API",
    "started": "the CLI, which was started for this turn: no spare, or a parked session",
    "else": "between these: storing, NATS, the edge",
}
FIRST = "first delta"
STARTED = ("spawned", "resumed")
"""Processes of which the start is part of what the first delta waits for."""


@dataclass(frozen=True)
class Row:
    """A span. Times are in ms since the trace's first; ``depth`` is how many spans are above it."""

    name: str
    service: str
    depth: int
    begin: float
    end: float
    events: tuple[tuple[str, float], ...]
    failed: bool

    @property
    def ms(self) -> float:
        """How long it took."""
        return self.end - self.begin


@dataclass(frozen=True)
class Verdict:
    """What the first delta waited for: ms, and those of them in each stage. ``how`` it got its process."""

    first_delta: float
    parts: dict[str, float]
    how: str

    @property
    def longest(self) -> str:
        """The one that took longest."""
        return max(self.parts, key=lambda part: self.parts[part])

    def __str__(self) -> str:
        most = self.longest
        cause = CAUSES["started" if most == "chat" and self.how in STARTED else most]
        where = f"{self.parts[most]:.0f} ms of them in `{most}` ({cause})"
        return f"first delta after {self.first_delta:.0f} ms, {where}"


def rows(spans: Spans) -> list[Row]:
    """The spans as a tree, each level in the order in which they began."""
    known = {span.span_id for _, span in spans}
    below: defaultdict[bytes, list[tuple[str, Span]]] = defaultdict(list)
    for service, span in spans:
        below[span.parent_span_id if span.parent_span_id in known else b""].append((service, span))
    zero = min((span.start_time_unix_nano for _, span in spans), default=0)
    return list(_tree(below, b"", 0, zero))


def _tree(below: dict[bytes, list[tuple[str, Span]]], above: bytes, depth: int, zero: int) -> Iterator[Row]:
    for service, span in sorted(below.pop(above, []), key=lambda each: each[1].start_time_unix_nano):
        yield Row(
            span.name,
            service.removeprefix("warmwire-"),
            depth,
            (span.start_time_unix_nano - zero) / MS,
            (span.end_time_unix_nano - zero) / MS,
            tuple((event.name, (event.time_unix_nano - zero) / MS) for event in span.events),
            span.status.code == Status.STATUS_CODE_ERROR,
        )
        yield from _tree(below, span.span_id, depth + 1, zero)


def verdict(found: Sequence[Row]) -> Verdict | None:
    """None where there was no first delta."""
    ends = [at for row in found if _stage(row) == "chat" for name, at in row.events if name == FIRST]
    if not ends:
        return None
    end = ends[-1]
    parts: dict[str, float] = dict.fromkeys(("wait", "process", "chat", "else"), 0.0)
    how = ""
    for row in found:
        stage = _stage(row)
        how = row.name.split(" ")[0] if stage == "process" else how
        if stage in parts:
            parts[stage] += max(0.0, min(row.end, end) - row.begin)
    parts["else"] = max(0.0, end - sum(parts.values()))
    return Verdict(end, parts, how)


def _stage(row: Row) -> str:
    if row.name.endswith(" process"):
        return "process"
    return row.name.split(" ")[0] if row.name.startswith(("wait", "chat")) else ""


def about(spans: Spans) -> dict[str, str]:
    """What the trace is of: trace, turn, session, as far as the spans say."""
    names = {"messaging.message.id": "turn", "gen_ai.conversation.id": "session"}
    told = {
        names[each.key]: each.value.string_value
        for _, span in spans
        for each in span.attributes
        if each.key in names
    }
    return {"trace": spans[0][1].trace_id.hex(), **told}


def slow(found: Sequence[Row], limit: float) -> bool:
    """Whether the first delta took longer than so many seconds, or something failed."""
    judged = verdict(found)
    return any(row.failed for row in found) or (judged is not None and judged.first_delta > limit * 1000)


def text(spans: Spans) -> str:
    """For a terminal."""
    found = rows(spans)
    whole = max(row.end for row in found) or 1.0
    head = "  ".join(f"{name} {value}" for name, value in about(spans).items())
    lines = [_line(row, whole) for row in found]
    return "\n".join([head, *([str(judged)] if (judged := verdict(found)) else []), *lines])


def _line(row: Row, whole: float) -> str:
    first, last = _column(row.begin, whole), _column(row.end, whole)
    bar = [" "] * first + ["━"] * max(1, last - first)
    for name, at in row.events:
        if name == FIRST:
            bar[min(_column(at, whole), len(bar) - 1)] = "◆"
    name = f"{'  ' * row.depth}{row.name}"
    failed = "  failed" if row.failed else ""
    return f"{name:{NAME}} {row.service:6} {''.join(bar):{BAR}} {row.begin:7.0f} +{row.ms:.0f} ms{failed}"


def _column(ms: float, whole: float) -> int:
    return min(BAR - 1, int(ms / whole * BAR))


# -- as SVG

WIDTH, LEFT, ROW, TOP = 960, 300, 24, 56
"""Pixels: of the picture, of the names, of a row, of what stands above the first row."""
RIGHT = 90
COLORS = {"edge": "#0b6e99", "worker": "#b35900"}


def svg(spans: Spans) -> str:
    """For a page."""
    found = rows(spans)
    scale = (WIDTH - LEFT - RIGHT) / (max(row.end for row in found) or 1.0)
    height = TOP + ROW * len(found) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"',
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(12, 22, f"turn {about(spans).get('turn', '')}", "#111111"),
        _text(12, 42, str(verdict(found) or ""), "#555555"),
    ]
    for number, row in enumerate(found):
        parts += _drawn(row, TOP + ROW * number, scale)
    return "\n".join([*parts, "</svg>\n"])


def _drawn(row: Row, top: int, scale: float) -> list[str]:
    color, x = COLORS.get(row.service, "#666666"), LEFT + row.begin * scale
    width = max(2.0, row.ms * scale)
    middle = top + ROW / 2
    marks = [_mark(name, LEFT + at * scale, middle) for name, at in row.events]
    return [
        _text(12 + 14 * row.depth, top + 16, f"{row.name} ({row.service})", "#111111"),
        f'<rect x="{x:.1f}" y="{top + 5}" width="{width:.1f}" height="{ROW - 10}" rx="2" fill="{color}"/>',
        *marks,
        _text(x + width + 8, top + 16, f"{row.ms:.0f} ms", "#a00000" if row.failed else "#333333"),
    ]


def _mark(name: str, x: float, y: float) -> str:
    what = escape(name)
    return (
        f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="#ffffff" stroke="#111111"><title>{what}</title></circle>'
    )


def _text(x: float, y: float, what: str, color: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.0f}" fill="{color}">{escape(what)}</text>'
