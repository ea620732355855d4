"""What the tests of the reader sit at: a reader, what it asked last, and a clock that they move."""

from __future__ import annotations

from warmwire.broker.reading.reader import Action, Ask, AskRecord, Reader, View
from warmwire.broker.wire.envelope import Envelope, Position

SNAPSHOT = b'{"type":"snapshot"}'


class Desk:
    """A reader, what it last asked, and a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.reader = Reader(self.now)
        self.question: Ask | None = None

    def did(self, actions: list[Action]) -> list[Action]:
        for action in actions:
            if isinstance(action, Ask):
                self.question = action
        return actions

    def start(self) -> list[Action]:
        return self.did(self.reader.start(self.now))

    def event(self, envelope: Envelope) -> list[Action]:
        if self.reader.passes(envelope, self.now):
            return [envelope]
        return self.did(self.reader.event(envelope, self.now))

    def answered(self, answer: View) -> list[Action]:
        assert self.question is not None
        return self.did(self.reader.answered(self.question.number, answer, self.now))

    def vacant(self, epoch: int) -> list[Action]:
        assert self.question is not None
        return self.did(self.reader.vacant(self.question.number, epoch, self.now))

    def unanswered(self, epoch: int = 0) -> None:
        assert self.question is not None
        assert [] == self.reader.unanswered(self.question.number, epoch)

    def recorded(self, turn: str, how: object = None) -> list[Action]:
        return self.did(self.reader.recorded(turn, how, self.now))  # type: ignore[arg-type]

    def reconnected(self) -> list[Action]:
        return self.did(self.reader.reconnected(self.now))

    def after(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.did(self.reader.tick(self.now))


def asked(actions: list[Action]) -> list[Position | None]:
    """After which positions the owner is asked."""
    return [action.after for action in actions if isinstance(action, Ask)]


def given(actions: list[Action]) -> list[Action]:
    """What a viewer is given."""
    return [action for action in actions if not isinstance(action, Ask | AskRecord)]
