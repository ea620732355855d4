"""Our own events: what a viewer's program relies on."""

from __future__ import annotations

import json

import pytest

from warmwire.broker.wire.envelope import event_type
from warmwire.broker.wire.events import (
    TERMINAL,
    Block,
    Event,
    Gap,
    PermissionRequested,
    PermissionResolved,
    Snapshot,
    ToolFinished,
    ToolStarted,
    TurnCompleted,
    TurnFailed,
    TurnInterrupted,
    TurnProgress,
    TurnQueued,
    TurnReset,
    TurnStarted,
)

EACH = [
    TurnQueued(turn="t1", session_id="s"),
    TurnStarted(turn="t1", session_id="s", attempt=1, worker="w"),
    TurnReset(turn="t1", attempt=2, reason="worker_lost"),
    PermissionRequested(turn="t1", request="q1", tool="Bash", summary="ls", within_ms=60000),
    PermissionResolved(turn="t1", request="7-1", outcome="allowed"),
    ToolStarted(turn="t1", name="Bash", id="1", summary="ls"),
    ToolFinished(turn="t1", id="1", is_error=False, summary=""),
    PermissionRequested(turn="t1", request="r1", tool="Bash", summary="rm", within_ms=1),
    TurnProgress(turn="t1", elapsed_ms=5000, doing="waiting"),
    TurnCompleted(turn="t1", attempt=1, duration_ms=1),
    TurnInterrupted(turn="t1", attempt=1, duration_ms=1),
    TurnFailed(turn="t1", attempt=1, duration_ms=1, code="internal", message="Grüße 🦊", retryable=True),
    Snapshot(turn="t1", attempt=1, blocks=(Block(message=0, index=0, kind="text", text="so far"),)),
    Gap(turn="t1", after="t1.1.1", until="t1.1.5"),
]


def every_kind(base: type[Event]) -> set[type[Event]]:
    """The classes of events that are published, not their bases."""
    below = {kind for direct in base.__subclasses__() for kind in every_kind(direct)}
    return below or {base}


@pytest.mark.parametrize("event", EACH, ids=lambda event: type(event).__name__)
class TestEachEvent:
    def test_begins_with_its_type(self, event: Event) -> None:
        data = event.encode()
        assert data.startswith(b'{"type":"%b",' % event_type(data).encode())

    def test_is_read_as_it_was_written(self, event: Event) -> None:
        assert event == type(event).model_validate_json(event.encode())

    def test_ignores_fields_that_are_not_known_yet(self, event: Event) -> None:
        later = {**json.loads(event.encode()), "later": 1}
        assert event == type(event).model_validate(later)

    def test_leaves_out_what_is_absent(self, event: Event) -> None:
        assert b"null" not in event.encode()


def test_every_event_of_ours_is_tested_here() -> None:
    assert every_kind(Event) == {type(event) for event in EACH}


def test_exactly_the_endings_are_terminal() -> None:
    assert TERMINAL == {"turn_completed", "turn_interrupted", "turn_failed"}
    assert TERMINAL == {event_type(each.encode()) for each in EACH} & TERMINAL
