"""What is shown of an answer while it grows, as events or as plain text; ``markdown`` has the third way."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod

from warmwire.compose.chat.blocks import clean, one_line
from warmwire.compose.errors import ComposeError
from warmwire.producer import Event, Growing, PastTurn, TextVoid

RECONNECTING = "reconnecting…"
AGAIN = "the answer begins again; what is above of it is void"


class View(ABC):
    """One answer. ``add`` each event, then ``close``."""

    @abstractmethod
    def add(self, event: Event, cursor: str) -> None:
        """One event, and the cursor after it. Raises BrokenPipeError, ComposeError."""

    def notice(self, text: str) -> None:
        """Something that is said beside the answer."""
        print(f"({one_line(text)})", file=sys.stderr, flush=True)

    def reconnecting(self) -> None:
        """The connection is lost; it is being made again."""
        self.notice(RECONNECTING)

    def connected(self) -> None:  # noqa: B027 - most have nothing to say
        """It stands again."""

    def past(self, turn: PastTurn) -> None:  # noqa: B027 - only people ask for it
        """A turn of before."""

    def asked(self, message: str) -> None:  # noqa: B027 - the same
        """The message of a turn that somebody has begun elsewhere."""

    def hold(self) -> None:  # noqa: B027 - the same
        """Show nothing until ``go_on``: somebody is being asked something."""

    def go_on(self) -> None:  # noqa: B027 - the same
        """Undo ``hold``."""

    @abstractmethod
    def close(self) -> None:
        """The answer has ended, or nobody wants to see more of it."""


class Lines(View):
    """An event a line, for programs."""

    def add(self, event: Event, cursor: str) -> None:
        turn = event.turn or cursor.partition(".")[0]
        line = json.dumps({**event.data, "turn": turn, "cursor": cursor}, ensure_ascii=False)
        print(line, flush=True)

    def close(self) -> None:
        """Each line was whole."""


class Plain(View):
    """Nothing but the answer's text. What was written is never written again.

    To a file or a pipe goes all of it, to a terminal no character that commands it.
    """

    def __init__(self) -> None:
        self._growing = Growing()
        self._at_line_start = True
        self._to_terminal = sys.stdout.isatty()

    def add(self, event: Event, cursor: str) -> None:  # noqa: ARG002 - text has no cursor
        try:
            self._write(self._growing.add(event))
        except TextVoid as error:
            self._begin_again(error)

    def close(self) -> None:
        if not self._at_line_start:
            self._write("\n")

    def _write(self, text: str) -> None:
        if text:
            sys.stdout.write(clean(text) if self._to_terminal else text)
            sys.stdout.flush()
            self._at_line_start = text.endswith("\n")

    def _begin_again(self, error: TextVoid) -> None:
        raise ComposeError("the turn was begun again in other words; what is above of it is void") from error


class PlainForPeople(Plain):
    """The same where a person reads: what is void is said to be."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[str] | None = None

    def add(self, event: Event, cursor: str) -> None:
        super().add(event, cursor)
        if event.type == "tool_started":
            self.notice(f"{event.data['name']}: {event.data['summary']}")

    def notice(self, text: str) -> None:
        if not self._at_line_start:
            self._write("\n")
        super().notice(text)

    def past(self, turn: PastTurn) -> None:
        self.asked(turn.message or "")
        self._write(turn.text)
        self.close()
        if turn.ending != "completed":
            self.notice(turn.ending)

    def asked(self, message: str) -> None:
        self._write(f"› {message}\n")

    def hold(self) -> None:
        self.close()
        self._held = []

    def go_on(self) -> None:
        held, self._held = self._held or [], None
        self._write("".join(held))

    def _write(self, text: str) -> None:
        if self._held is None:
            super()._write(text)
        else:
            self._held.append(text)

    def _begin_again(self, error: TextVoid) -> None:  # noqa: ARG002 - here it is no error
        self.notice(AGAIN)
        self._write(self._growing.begin_again())
