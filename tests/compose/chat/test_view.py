"""Plain text as it is shown while it grows."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from warmwire.compose.chat.view import AGAIN, RECONNECTING, Lines, Plain, PlainForPeople, View
from warmwire.compose.errors import ComposeError
from warmwire.producer import Event, PastTurn

START: dict[str, object] = {"type": "message_start"}
RESET: dict[str, object] = {"type": "turn_reset", "message": 0}

Shown = pytest.CaptureFixture[str]


def delta(text: str) -> dict[str, object]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def show(view: View, *events: Mapping[str, object]) -> None:
    for event in events:
        raw = json.dumps(event, separators=(",", ":")).encode()
        view.add(Event(str(event["type"]), raw), "t1.7.3")


def test_a_program_gets_each_event_with_its_turn_and_cursor(capsys: Shown) -> None:
    view = Lines()
    show(view, START)
    view.close()
    assert {"type": "message_start", "turn": "t1", "cursor": "t1.7.3"} == json.loads(capsys.readouterr().out)


def test_a_text_ends_with_one_line_end(capsys: Shown) -> None:
    for texts, whole in ((("one", " two"), "one two\n"), (("one\n",), "one\n"), ((), "")):
        view = Plain()
        show(view, START, *map(delta, texts))
        view.close()
        assert whole == capsys.readouterr().out


def test_what_is_void_is_an_error_to_a_program_and_is_said_to_people(capsys: Shown) -> None:
    told = START, delta("one"), RESET, START, delta("two")
    with pytest.raises(ComposeError, match="void"):
        show(Plain(), *told)
    assert "one" == capsys.readouterr().out
    view = PlainForPeople()
    show(view, *told)
    view.close()
    shown = capsys.readouterr()
    assert ("one\ntwo\n", f"({AGAIN})\n") == (shown.out, shown.err)


def test_while_people_are_asked_nothing_is_shown_and_nothing_is_lost(capsys: Shown) -> None:
    view = PlainForPeople()
    show(view, START, delta("one"))
    view.hold()
    assert "one\n" == capsys.readouterr().out
    show(view, delta(" two"), delta(" three"))
    assert "" == capsys.readouterr().out
    view.go_on()
    view.close()
    assert " two three\n" == capsys.readouterr().out


def test_what_is_said_beside_the_answer_stands_on_lines_of_its_own(capsys: Shown) -> None:
    view = PlainForPeople()
    show(view, START, delta("one"), {"type": "tool_started", "name": "Bash", "summary": "ls\n-l"})
    view.reconnecting()
    shown = capsys.readouterr()
    assert ("one\n", f"(Bash: ls -l)\n({RECONNECTING})\n") == (shown.out, shown.err)


@pytest.mark.parametrize(("ending", "said"), [("completed", ""), ("failed", "(failed)\n")])
def test_a_turn_of_before_is_shown_with_its_question_and_how_it_ended(
    capsys: Shown, ending: str, said: str
) -> None:
    PlainForPeople().past(PastTurn("t1", ending, "Why?", "Because.", truncated=False))
    shown = capsys.readouterr()
    assert ("› Why?\nBecause.\n", said) == (shown.out, shown.err)
