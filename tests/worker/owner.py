"""A session as its owner runs it, in a test's hands: its commands are carried out, or held back."""

from __future__ import annotations

import json
from typing import Any

from warmwire.broker.wire import envelope
from warmwire.broker.wire.events import TurnCompleted
from warmwire.broker.wire.messages import Finished, Replay, Started, TurnOptions, TurnRecord, UserMessage
from warmwire.broker.wire.names import SessionKey
from warmwire.worker.cli.claude_code import Claude
from warmwire.worker.cli.said import (
    Line,
)
from warmwire.worker.errors import ErrorCode
from warmwire.worker.sessions import transcript
from warmwire.worker.sessions.session import Session
from warmwire.worker.sessions.turn import (
    Ack,
    AppendTranscript,
    Command,
    Ended,
    FindHead,
    Give,
    Held,
    KeepInterrupt,
    KillCli,
    NeedCli,
    Publish,
    PutRecord,
    ReadRecord,
    Rules,
)

from tests.worker import said

KEY = SessionKey("default", "s1")
EPOCH = 7
STALL = 60.0


def held(
    sequence: int, turn: str | None = None, text: str = "hi", deliveries: int = 1, **options: Any
) -> Held:
    message = UserMessage(
        turn=turn or f"t{sequence}", content=text, sent_ms=0, options=TurnOptions(**options)
    )
    return Held(message, sequence, f"ack-{sequence}-{deliveries}", deliveries)


def started(of: Held, attempt: int = 1) -> Started:
    return Started(attempt=attempt, epoch=EPOCH - 1, worker="w0", digest=of.message.digest)


class Owner:
    """A session whose commands are carried out at once, but for the kinds that a test holds back."""

    def __init__(self, *hold: type) -> None:
        self.session = Session(KEY, "w1", EPOCH, 0.0, Rules(STALL), Claude())
        self.now = 0.0
        self.hold = hold
        self.waits: list[Command] = []
        self.queue: list[int] = []
        self.records: dict[str, TurnRecord] = {}
        self.interrupts: set[str] = set()
        self.transcript: list[bytes] = []
        self.published: list[bytes] = []
        self.given: list[dict[str, Any]] = []
        self.acked: list[str] = []
        self.endings: list[str] = []
        self.order: list[type] = []
        self.needed: list[NeedCli] = []

    def offer(self, *messages: Held) -> None:
        self.queue += [message.sequence for message in messages]
        for message in messages:
            self.run(self.session.offer(message))

    def say(self, *lines: Line) -> None:
        for line in lines:
            self.run(self.session.line(line, self.now))

    def answer(self, *texts: str) -> None:
        """The CLI's whole answer."""
        turn = self.uuid
        entries = said.prompt_entry(turn, "hi"), said.answer_entry("m1", "".join(texts))
        self.say(*said.message("m1", *texts), said.mirror(*entries), said.result(turn))

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.run(self.session.tick(self.now))

    def interrupt(self, turn: str | None = None) -> str | None:
        stopped, commands = self.session.interrupt(turn, self.now)
        self.run(commands)
        return stopped

    def fail(self, code: ErrorCode = ErrorCode.CLI_CRASHED) -> None:
        self.run(self.session.cli_failed(code, self.now))

    def release(self, kind: type) -> None:
        """Carry out the first command of a kind that was held back."""
        command = next(command for command in self.waits if isinstance(command, kind))
        self.waits.remove(command)
        self.carry_out(command)

    def run(self, commands: list[Command]) -> None:
        for command in commands:
            self.order.append(type(command))
            if isinstance(command, self.hold):
                self.waits.append(command)
            else:
                self.carry_out(command)

    def carry_out(self, command: Command) -> None:  # noqa: C901, PLR0912 - one short branch per command
        match command:
            case FindHead(after):
                head = min((sequence for sequence in self.queue if sequence > after), default=None)
                self.run(self.session.head(head, self.now))
            case ReadRecord(turn):
                found = transcript.answered(self.transcript, turn)
                known = self.records.get(turn), turn in self.interrupts
                self.run(self.session.record(*known, self.now, found))
            case PutRecord(turn, record):
                self.records[turn] = record
                self.run(self.session.stored(self.now))
            case NeedCli():
                self.needed.append(command)
                self.run(self.session.cli_ready(self.now))
            case AppendTranscript(entries):
                self.transcript += transcript.appends(entries)
                self.run(self.session.appended())
            case KeepInterrupt(turn):
                self.interrupts.add(turn)
            case Give(line):
                self.given.append(json.loads(line))
            case Publish(data):
                self.published.append(data)
            case Ended(_, end):
                self.endings.append(end.type)
            case Ack(message):
                self.acked.append(message.ack)
                self.queue.remove(message.sequence)
                self.run(self.session.acked(self.now))
            case KillCli():
                pass

    @property
    def uuid(self) -> str:
        """The id under which the CLI knows the message at hand."""
        assert self.session.turn is not None
        return self.session.turn.cli_uuid

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(envelope.decode(data).event) for data in self.published]

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    @property
    def prompts(self) -> list[str]:
        """The texts that the CLI was given."""
        return [line["message"]["content"] for line in self.given if line["type"] == "user"]

    def view(self, **question: Any) -> Any:
        return self.session.view(Replay(**question))


def running(**options: Any) -> Owner:
    """A session whose turn t1 has been given to the CLI."""
    owner = Owner()
    owner.offer(held(1, **options))
    return owner


def finished_before() -> tuple[Finished, bytes]:
    said_before = envelope.EnvelopeWriter(EPOCH - 1, "t1", 1).wrap(
        9, TurnCompleted(turn="t1", attempt=1, duration_ms=1).encode()
    )
    record = Finished(attempt=1, epoch=EPOCH - 1, digest="", envelope=said_before.decode(), text="")
    return record, said_before
