"""Each warning and error that the code logs is in the reference, with its level; and nothing else is."""

from __future__ import annotations

import ast
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from warmwire.broker import role

ROOT = Path(__file__).parent.parent
LEVELS = {"warning": "warning", "error": "error", "exception": "error"}
COMPUTED = {"why"}
"""What is logged as a variable: what is doubted of a CLI's version."""


def logged() -> Iterator[tuple[str, str]]:
    for path in ROOT.glob("*/warmwire/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=level), args=[first, *_]) if (
                    level in LEVELS
                ):
                    text = first.value if isinstance(first, ast.Constant) else ast.unparse(first)
                    yield str(text), LEVELS[level]


def test_every_warning_and_error_is_listed_with_what_to_do() -> None:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for text, level in logged():
        found[text].add(level)
    page = (ROOT / "docs" / "reference" / "logs.md").read_text()
    rows = re.findall(r"^\| `(.+)` \| (warning|error|warning, error) \| (.+) \|$", page, re.MULTILINE)
    listed = {text: set(levels.split(", ")) for text, levels, remedy in rows if remedy}
    assert {text: levels for text, levels in found.items() if text not in COMPUTED} == listed


def test_where_nobody_reads_a_line_is_json_with_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr("sys.stderr", stderr)
    before = structlog.get_config()
    try:
        role.log_to_stderr(20)
        span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1)))
        with use_span(span):
            try:
                int("a fault")
            except ValueError:
                structlog.get_logger().exception("something failed", turn="t1")
    finally:
        structlog.configure(**before)
    line = json.loads(stderr.getvalue())
    assert ("something failed", "error", "t1") == (line["event"], line["level"], line["turn"])
    assert line["trace_id"] == f"{0xABC:032x}"
    assert "ValueError: invalid literal" in line["exception"]
