from __future__ import annotations

import json

import pytest

from warmwire.worker.cli.said import ToolResult, ToolUse
from warmwire.worker.sessions.deltas import (
    DELTA_LIMIT,
    EVENT_LIMIT,
    SUMMARY_LIMIT,
    fitting,
    tools_finished,
    tools_started,
)

from tests.worker.said import event


@pytest.mark.parametrize("field", ["text", "thinking", "partial_json"])
@pytest.mark.parametrize("character", ["x", "€", "\x01", "😀"])
def test_a_delta_is_cut_into_parts_that_join_to_the_whole(field: str, character: str) -> None:
    whole = event(
        "content_block_delta", index=3, delta={"type": f"{field}_delta", field: character * DELTA_LIMIT}
    )
    parts = fitting(whole.event)
    assert max(map(len, parts)) <= DELTA_LIMIT
    decoded = [json.loads(part) for part in parts]
    assert character * DELTA_LIMIT == "".join(part["delta"][field] for part in decoded)
    assert {(3, f"{field}_delta")} == {(part["index"], part["delta"]["type"]) for part in decoded}


def test_the_type_of_a_part_stands_first_as_readers_expect() -> None:
    whole = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * DELTA_LIMIT})
    assert all(part.startswith(b'{"type":"content_block_delta"') for part in fitting(whole.event))


def test_an_event_that_cannot_be_cut_is_published_up_to_a_limit() -> None:
    fits = event("content_block_start", content_block={"data": "x" * DELTA_LIMIT})
    assert [fits.event] == fitting(fits.event)
    assert [] == fitting(event("content_block_start", content_block={"data": "x" * EVENT_LIMIT}).event)


@pytest.mark.parametrize("odd", [{"delta": None}, {"delta": [1]}, {"delta": {"text": 1}}, {}])
def test_an_odd_event_is_left_as_it_is(odd: dict[str, object]) -> None:
    raw = event("content_block_delta", **odd).event
    assert [raw] == fitting(raw)


def test_a_summary_never_ends_in_half_a_character() -> None:
    (begun,) = tools_started("t1", [ToolUse("i", "Bash", "€".encode() * SUMMARY_LIMIT * 2)])
    assert "€" * SUMMARY_LIMIT == begun.summary


def test_a_short_summary_is_whole() -> None:
    (done,) = tools_finished("t1", [ToolResult("i", True, b'"no"')])
    assert ('"no"', True, "t1") == (done.summary, done.is_error, done.turn)
