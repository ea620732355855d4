"""For each rule a minimal history that keeps it and one that breaks it."""

from pathlib import Path

import pytest

from tests.system import history as h
from tests.system.checker import RULES, check, main

E = 1000  # an epoch


def accepted(turn: str = "t", order: int = 1, expected: str | None = "Hello") -> h.Accepted:
    return h.Accepted(session="s", turn=turn, order=order, expected=expected)


def joined(viewer: str = "v", turn: str | None = None, *, fresh: bool = True) -> h.Joined:
    return h.Joined(viewer=viewer, session="s", turn=turn, fresh=fresh)


def seen(seq: int, type_: str, turn: str = "t", viewer: str = "v", epoch: int = E) -> h.Seen:
    return h.Seen(viewer=viewer, epoch=epoch, seq=seq, turn=turn, type=type_)


def delta(seq: int, text: str, turn: str = "t", viewer: str = "v", epoch: int = E) -> h.Seen:
    return h.Seen(viewer=viewer, epoch=epoch, seq=seq, turn=turn, type="content_block_delta", text=text)


def merged(first: int, seq: int, text: str) -> h.Seen:
    return h.Seen(viewer="v", epoch=E, seq=seq, first=first, turn="t", type="content_block_delta", text=text)


def gap(after: h.Place, until: h.Place) -> h.Gap:
    return h.Gap(viewer="v", after=after, until=until)


def snapshot(seq: int, text: str, epoch: int = E) -> h.Snapshot:
    return h.Snapshot(viewer="v", epoch=epoch, seq=seq, turn="t", blocks=((0, 0, text),))


def told(turn: str, first: int, viewer: str = "v", epoch: int = E) -> list[h.Any]:
    """A whole turn of five events."""
    return [
        seen(first, "turn_started", turn, viewer, epoch),
        seen(first + 1, "message_start", turn, viewer, epoch),
        delta(first + 2, "Hel", turn, viewer, epoch),
        delta(first + 3, "lo", turn, viewer, epoch),
        seen(first + 4, "turn_completed", turn, viewer, epoch),
    ]


TURN = told("t", 1)
RECORD = h.Recorded(session="s", turn="t", ending="turn_completed", text="Hello")

KEPT: dict[str, list[h.Any]] = {
    "one turn, two viewers": [accepted(), joined(), joined("w"), *TURN, *told("t", 1, "w"), RECORD],
    "a refused turn without events": [h.Refused(session="s", turn="r", why="full"), joined()],
    "a doubtful turn that was answered": [h.Doubtful(session="s", turn="t", why="?"), joined(), *TURN],
    "a doubtful turn that was not": [h.Doubtful(session="s", turn="t", why="?"), joined()],
    "a viewer that left": [accepted(), joined(), *TURN[:2], h.Left(viewer="v")],
    "a broken connection": [accepted(), joined(), *TURN[:2], h.Broke(viewer="v"), *TURN[2:]],
    "merged deltas": [accepted(), joined(), *TURN[:2], merged(3, 4, "Hello"), TURN[4]],
    "a gap and a snapshot": [
        accepted(),
        joined(),
        TURN[0],
        gap((E, 1), (E, 4)),
        snapshot(4, "Hello"),
        TURN[4],
    ],
    "an answer that begins again with a new owner": [
        *(accepted(), joined(), *TURN[:3]),
        *(seen(1, "turn_reset", epoch=E + 1), *told("t", 2, epoch=E + 1), RECORD),
    ],
    "the old owner's end, published again": [
        *(accepted(), joined(), *TURN[:4], gap((E, 4), (E + 1, 0)), snapshot(4, "Hello"), TURN[4]),
    ],
    "a turn that failed with its owner, of whose text the next one knows nothing": [
        *(accepted(), joined(), *TURN[:3], seen(1, "turn_failed", epoch=E + 1)),
        h.Recorded(session="s", turn="t", ending="turn_failed", text=""),
    ],
    "two turns, one after the other": [
        *(accepted("t"), accepted("u", 2), joined(), *TURN, *told("u", 6)),
    ],
    "a viewer of the second turn only": [
        *(accepted("t"), accepted("u", 2), joined("v", "u"), *told("u", 6), joined("w"), *told("t", 1, "w")),
        *told("u", 6, "w"),
    ],
    "a viewer that came in the middle": [accepted(), joined(fresh=False), *TURN[3:]],
    "an interrupted turn": [accepted(), joined(), *TURN[:3], seen(4, "turn_interrupted")],
}

BROKEN: dict[str, tuple[str, list[h.Any]]] = {
    "no end": ("one-end", [accepted(), joined(), *TURN[:4]]),
    "nothing at all": ("one-end", [accepted(), joined()]),
    "two ends": ("one-end", [accepted(), joined(), *TURN, seen(6, "turn_failed")]),
    "an end for one viewer only": ("one-end", [accepted(), joined(), joined("w"), *TURN]),
    "another end for another viewer": (
        "one-end",
        [
            accepted(),
            joined(),
            joined("w"),
            *TURN,
            *told("t", 1, "w")[:4],
            seen(5, "turn_failed", viewer="w"),
        ],
    ),
    "a refused turn that was answered": (
        "unasked",
        [h.Refused(session="s", turn="t", why="full"), joined(), *TURN],
    ),
    "a hole": ("no-hole", [accepted(expected=None), joined(), *TURN[:2], *TURN[3:]]),
    "a hole hidden by merging": (
        "no-hole",
        [accepted(), joined(), TURN[0], TURN[1], merged(4, 5, "Hello"), seen(6, "turn_completed")],
    ),
    "an event that was said to be lost": (
        "no-hole",
        [
            accepted(expected=None),
            joined(),
            TURN[0],
            gap((E, 1), (E, 3)),
            TURN[2],
            snapshot(4, "Hello"),
            TURN[4],
        ],
    ),
    "an epoch that does not begin with 1": ("no-hole", [accepted(), joined(), *told("t", 2)]),
    "a later epoch that does not begin with 1": (
        "no-hole",
        [accepted(expected=None), joined(), *TURN[:3], *told("t", 2, epoch=E + 1)],
    ),
    "an event of a past epoch": (
        "epochs-grow",
        [
            *(accepted(expected=None), joined(), *TURN[:2], seen(1, "turn_reset", epoch=E + 1), TURN[2]),
            *told("t", 2, epoch=E + 1),
        ],
    ),
    "a delta after the end": ("after-end", [accepted(), joined(), *TURN, delta(6, "!")]),
    "a snapshot after the end": ("after-end", [accepted(), joined(), *TURN, snapshot(6, "Hello")]),
    "an event twice": ("no-repeat", [accepted(expected=None), joined(), *TURN[:3], TURN[2], *TURN[3:]]),
    "an event twice, once merged": (
        "no-repeat",
        [accepted(expected=None), joined(), *TURN[:3], merged(3, 4, "Hello"), TURN[4]],
    ),
    "another text than expected": ("text", [accepted(expected="Hi"), joined(), *TURN]),
    "another text than recorded": (
        "text",
        [
            accepted(expected=None),
            joined(),
            *TURN,
            h.Recorded(session="s", turn="t", ending="turn_completed", text="Hell"),
        ],
    ),
    "another text than recorded by the owner that gave up": (
        "text",
        [
            *(accepted(), joined(), *TURN[:3], seen(4, "turn_failed")),
            h.Recorded(session="s", turn="t", ending="turn_failed", text="Hello"),
        ],
    ),
    "an attempt without a reset": (
        "text",
        [accepted(), joined(), *TURN[:3], *told("t", 1, epoch=E + 1)],
    ),
    "a gap without a snapshot": ("text", [accepted(), joined(), *TURN[:2], gap((E, 2), (E, 4)), TURN[4]]),
    "turns out of order": (
        "order",
        [accepted("t", 2), accepted("u", 1), joined(), *TURN, *told("u", 6)],
    ),
}


@pytest.mark.parametrize("history", KEPT.values(), ids=KEPT.keys())
def test_a_history_that_keeps_every_promise_has_no_violation(history: list[h.Any]) -> None:
    assert [] == check(history)


@pytest.mark.parametrize(("rule", "history"), BROKEN.values(), ids=BROKEN.keys())
def test_a_history_that_breaks_one_promise_names_its_rule_only(rule: str, history: list[h.Any]) -> None:
    assert {rule} == {violation.rule for violation in check(history)}


def test_each_rule_is_broken_by_some_history_above() -> None:
    assert set(RULES) == {rule for rule, _ in BROKEN.values()}


def test_a_violation_names_turn_and_lines() -> None:
    (violation,) = check([accepted(), joined(), *TURN, delta(6, "!")])
    assert ("t", (7, 8)) == (violation.turn, violation.lines)


def test_a_recorded_history_is_checked_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    h.write(good, KEPT["one turn, two viewers"])
    h.write(bad, BROKEN["a hole"][1])
    assert 0 == main([str(good)])
    assert 1 == main([str(bad)])
    assert "no-hole: turn t: viewer v was given 1000.4 after 1000.2 without a gap" in capsys.readouterr().out


def test_reading_gives_back_what_was_written(tmp_path: Path) -> None:
    history = KEPT["a gap and a snapshot"]
    h.write(tmp_path / "history.jsonl", history)
    assert history == h.read(tmp_path / "history.jsonl")
