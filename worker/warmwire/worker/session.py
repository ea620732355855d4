"""One session as its owner runs it: a state machine without I/O. Time is an argument.

Every method returns the commands to carry out, in order:

    offer ─▶ FindHead ─▶ head ─▶ ReadRecord ─▶ record ─▶ PutRecord(started), NeedCli ─▶ Give(message)
      ▲                            │                                                       │ lines
      │                            └─▶ finished before: publish its envelope again         ▼
      └── acked ◀── Ack ◀── Publish(terminal) ◀── PutRecord(finished) ◀── AppendTranscript ◀── Result

One turn at a time, and only the head of the queue: what another worker pulled first may still be on its way.
"""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from warmwire.broker.envelope import EnvelopeWriter, Position
from warmwire.broker.events import (
    Event,
    ToolFinished,
    ToolStarted,
    TurnCompleted,
    TurnEnd,
    TurnFailed,
    TurnInterrupted,
    TurnProgress,
    TurnReset,
    TurnStarted,
    Usage,
)
from warmwire.broker.messages import Finished, OwnerView, Replay, Started, TurnRecord
from warmwire.broker.names import SessionKey
from warmwire.worker import claude
from warmwire.worker.deltas import DELTA_LIMIT, split_delta, unstreamed
from warmwire.worker.errors import ErrorCode
from warmwire.worker.turn import (
    Ack,
    AppendTranscript,
    Command,
    Ended,
    FindHead,
    Give,
    Held,
    KillCli,
    NeedCli,
    Publish,
    PutRecord,
    ReadRecord,
    Turn,
)
from warmwire.worker.turnlog import TurnLog

ATTEMPTS = 3
"""Times that a turn is tried."""
DELIVERIES = 20
"""Times that a message may be delivered before it is given up as poison."""
PROGRESS_EVERY = 5.0
"""Seconds without an event after which a viewer is told that the CLI is alive."""
INTERRUPT_WITHIN = 5.0
"""Seconds that the CLI may take to obey an interrupt; then it is killed."""
SUMMARY_LIMIT = 500
"""Characters of a tool's input or output that are published."""


class Stage(Enum):
    """Where the session's current turn stands."""

    IDLE = auto()
    CHECKING = auto()
    STARTING = auto()
    RUNNING = auto()
    ENDING = auto()


class _Start(msgspec.Struct, gc=False):
    """The fields of a ``message_start`` event that are used here."""

    message: _Message


class _Message(msgspec.Struct, gc=False):
    id: str = ""


_starts = msgspec.json.Decoder(_Start)


class Session:
    """A session in its owner's hands, from claim to release."""

    def __init__(self, key: SessionKey, worker: str, epoch: int, now: float, stall_timeout: float) -> None:
        self.draining = False
        self.key = key
        self.epoch = epoch
        self.seq = 0
        self.stage = Stage.IDLE
        self.idle_since = now
        self.waiting: dict[int, Held] = {}
        self.turn: Turn | None = None
        self._worker = worker
        self._stall_timeout = stall_timeout
        self._to_interrupt: set[str] = set()
        self._last_log: TurnLog | None = None
        self._published_at = now
        self._heard_at = now

    # -- the queue

    def offer(self, held: Held) -> list[Command]:
        """A message of this session has come; the same one again replaces where it is acknowledged."""
        if self.turn is not None and self.turn.held.sequence == held.sequence:
            self.turn.held = held
            return []
        self.waiting[held.sequence] = held
        return self._next()

    def head(self, sequence: int | None, now: float) -> list[Command]:
        """The head of the queue is known. If it is not here yet, another worker is about to forward it."""
        held = self.waiting.get(sequence) if sequence is not None else None
        if held is None:
            self.stage = Stage.IDLE
            self._drop_older_than(sequence)
            return []
        del self.waiting[held.sequence]
        self.turn = self._new_turn(held, 1, now)
        return [ReadRecord(held.message.turn)]

    def record(self, found: TurnRecord | None, interrupted: bool, now: float) -> list[Command]:
        """What is known about the turn is here."""
        turn = self._turn()
        held, message = turn.held, turn.held.message
        if isinstance(found, Finished):
            return self._republish(found, held)
        attempt = found.attempt + 1 if found else 1
        self.turn = turn = self._new_turn(held, attempt, now)
        if interrupted or message.turn in self._to_interrupt:
            return self._end(self._interrupted(now))
        if attempt > ATTEMPTS or held.deliveries > DELIVERIES:
            return self._fail(ErrorCode.TOO_MANY_ATTEMPTS, now)
        if found is not None and message.options.on_worker_loss == "fail":
            return self._fail(ErrorCode.WORKER_LOST, now)
        self.stage = Stage.STARTING
        started = Started(attempt=attempt, epoch=self.epoch, worker=self._worker, digest=message.digest)
        options = message.options
        return [PutRecord(message.turn, started), NeedCli(options.model, options.system_prompt)]

    def stored(self, now: float) -> list[Command]:
        """The turn's record is stored."""
        turn = self._turn()
        if turn.end is not None:
            end = turn.end
            terminal = self._publish_ours(end)
            return [*terminal, Ended(turn.held, end), Ack(turn.held)]
        turn.record_stored = True
        return self._give(now)

    def cli_ready(self, now: float) -> list[Command]:
        """The CLI process is there."""
        if self.turn is None or self.stage is not Stage.STARTING:
            return []
        self.turn.cli_ready = True
        return self._give(now)

    def cli_failed(self, code: ErrorCode, now: float) -> list[Command]:
        """There is no CLI process, or no longer. Between turns that is nobody's loss."""
        turn = self.turn
        if turn is None or turn.end is not None or self.stage not in (Stage.STARTING, Stage.RUNNING):
            return []
        if turn.interrupted_at is not None:
            return self._end(self._interrupted(now))
        return self._fail(code, now)

    def appended(self) -> list[Command]:
        """The transcript is stored: the answer is part of the conversation. Now the record."""
        turn = self._turn()
        assert turn.end is not None  # noqa: S101 - only an ending appends
        message = turn.held.message
        text, truncated = turn.log.answer()
        envelope = turn.writer.wrap(self.seq + 1, turn.end.encode())
        finished = Finished(
            attempt=turn.attempt,
            epoch=self.epoch,
            digest=message.digest,
            envelope=envelope.decode(),
            text=text,
            truncated=truncated,
        )
        return [PutRecord(message.turn, finished)]

    def acked(self, now: float) -> list[Command]:
        """The turn is over."""
        self._to_interrupt.discard(self._turn().held.message.turn)
        self.turn = None
        self.stage = Stage.IDLE
        self.idle_since = now
        return self._next()

    # -- what the CLI says

    def line(self, line: claude.Line, now: float) -> list[Command]:
        """One line of the CLI's output, parsed."""
        self._heard_at = now
        turn = self.turn
        if turn is None or not turn.given or turn.end is not None:
            return []
        if type(line) is claude.StreamEvent:  # nearly every line
            return self._stream_event(turn, line, now)
        return self._other_line(turn, line, now)

    def _other_line(self, turn: Turn, line: claude.Line, now: float) -> list[Command]:
        commands: list[Command] = []
        match line:
            case claude.Init():
                turn.model = line.model
            case claude.Mirror():
                turn.mirrored += line.entries
            case claude.Assistant(parent_tool_use_id=None):
                commands = self._assistant(turn, line, now)
            case claude.ToolResults(parent_tool_use_id=None):
                commands = self._tool_results(turn, line)
            case claude.Retry():
                commands = self._retry(turn)
            case claude.ControlRequest():
                commands = [Give(claude.refuse_line(line.request_id, "not available here"))]
            case claude.BadLine():
                commands = [KillCli(), *self._fail(line.code, now)]
            case claude.Result():
                commands = self._result(turn, line, now)
        return commands

    def _stream_event(self, turn: Turn, line: claude.StreamEvent, now: float) -> list[Command]:
        if line.parent_tool_use_id is not None:
            return []
        if line.type == "content_block_delta":
            first = turn.first_delta is None
            if first:
                turn.first_delta = now
            if len(line.event) > DELTA_LIMIT:
                return [self._publish(part, at_once=True) for part in split_delta(line.event)]
            return [self._publish(line.event, at_once=first)]
        if line.type == "message_start":
            turn.messages += 1
            turn.message_open = True
            turn.streamed.add(_starts.decode(line.event).message.id)
        elif line.type == "message_delta":
            turn.message_open = False
        return [self._publish(line.event, at_once=True)]

    def _retry(self, turn: Turn) -> list[Command]:
        if not turn.message_open:
            return []
        turn.messages -= 1
        turn.message_open = False
        reset = TurnReset(turn=turn.id, attempt=turn.attempt, reason="api_retry", message=turn.messages)
        return self._publish_ours(reset)

    def _assistant(self, turn: Turn, line: claude.Assistant, now: float) -> list[Command]:
        commands: list[Command] = []
        if line.text and not line.synthetic and line.message_id not in turn.streamed:
            for event in unstreamed(line.message_id, line.text):
                commands += self._stream_event(turn, event, now)
        for tool in line.tools:
            started = ToolStarted(turn=turn.id, name=tool.name, id=tool.id, summary=_summary(tool.input))
            commands += self._publish_ours(started)
        return commands

    def _tool_results(self, turn: Turn, line: claude.ToolResults) -> list[Command]:
        finished = [
            ToolFinished(
                turn=turn.id,
                id=result.tool_use_id,
                is_error=result.is_error,
                summary=_summary(result.content),
            )
            for result in line.results
        ]
        return [command for event in finished for command in self._publish_ours(event)]

    def _result(self, turn: Turn, line: claude.Result, now: float) -> list[Command]:
        usage = Usage(
            input_tokens=line.usage.input_tokens,
            output_tokens=line.usage.output_tokens,
            cache_read_input_tokens=line.usage.cache_read_input_tokens,
            cache_creation_input_tokens=line.usage.cache_creation_input_tokens,
            cost_usd=line.cost_usd,
        )
        if line.ending == "failed":
            return self._fail(line.error or ErrorCode.CLI_FAILED, now, line.detail, usage)
        if line.ending == "interrupted":
            return self._end(self._interrupted(now, usage))
        completed = TurnCompleted(
            turn=turn.id,
            attempt=turn.attempt,
            usage=usage,
            duration_ms=_ms(now - turn.begun),
            ttft_ms=self._ttft(turn),
            stop_reason=line.stop_reason,
        )
        return self._end(completed)

    # -- what others ask

    def interrupt(self, turn_id: str | None, now: float) -> tuple[str | None, list[Command]]:
        """Stop a turn (None: the one at hand), begun or still waiting; returns the turn that is stopped."""
        turn = self.turn
        if turn is not None and turn_id in (None, turn.id):
            return turn.id, self._interrupt_running(turn, now)
        if turn_id is not None and any(held.message.turn == turn_id for held in self.waiting.values()):
            self._to_interrupt.add(turn_id)
            return turn_id, []
        return None, []

    def view(self, question: Replay) -> OwnerView:
        """Where the session stands, and what came after the asked position."""
        log = self.turn.log if self.turn is not None and self.turn.given else self._last_log
        running = self.turn.id if self.turn is not None and self.turn.given else None
        events = self._events_after(question, log)
        show = log.snapshot().encode().decode() if events is None and running and log else None
        return OwnerView(epoch=self.epoch, seq=self.seq, turn=running, events=events, snapshot=show)

    def tick(self, now: float) -> list[Command]:
        """Time has passed; call it every half second or so."""
        turn = self.turn
        if turn is None:
            return self._next()  # the head may never be forwarded: we may have lost the session unnoticed
        if not turn.given or turn.end is not None:
            return []
        if turn.interrupted_at is not None:
            late = now - turn.interrupted_at > INTERRUPT_WITHIN
            return [KillCli(), *self._end(self._interrupted(now))] if late else []
        if now - self._heard_at > self._stall_timeout:
            return [KillCli(), *self._fail(ErrorCode.CLI_STALLED, now)]
        if now - self._published_at > PROGRESS_EVERY:
            self._published_at = now
            elapsed = _ms(now - turn.begun)
            return self._publish_ours(TurnProgress(turn=turn.id, elapsed_ms=elapsed, doing="waiting"))
        return []

    # -- within

    def _next(self) -> list[Command]:
        if self.stage is not Stage.IDLE or not self.waiting or self.draining:
            return []
        self.stage = Stage.CHECKING
        return [FindHead()]

    def _drop_older_than(self, head: int | None) -> None:
        """What stands before the head, or in an empty queue, was acked: it needs no answer from here."""
        for sequence in list(self.waiting):
            if head is None or sequence < head:
                del self.waiting[sequence]

    def _new_turn(self, held: Held, attempt: int, now: float) -> Turn:
        log = TurnLog(held.message.turn, attempt, self.seq + 1)
        return Turn(held, attempt, now, log, EnvelopeWriter(self.epoch, held.message.turn, attempt))

    def _turn(self) -> Turn:
        if self.turn is None:
            raise AssertionError("an answer to a command of a turn that is over")
        return self.turn

    def _republish(self, found: Finished, held: Held) -> list[Command]:
        self.stage = Stage.ENDING
        return [Publish(found.envelope.encode(), at_once=True), Ack(held)]

    def _give(self, now: float) -> list[Command]:
        turn = self._turn()
        if not (turn.record_stored and turn.cli_ready):
            return []
        if turn.interrupted_at is not None:
            return self._end(self._interrupted(now))
        self.stage = Stage.RUNNING
        turn.given = True
        self._heard_at = now
        message = turn.held.message
        started = TurnStarted(
            turn=message.turn,
            session_id=self.key.session,
            attempt=turn.attempt,
            worker=self._worker,
            model=message.options.model,
            traceparent=turn.held.traceparent,
        )
        reset = TurnReset(turn=message.turn, attempt=turn.attempt, reason="worker_lost")
        again = self._publish_ours(reset) if turn.attempt > 1 else []
        return [*again, *self._publish_ours(started), Give(claude.user_line(message.content, turn.cli_uuid))]

    def _interrupt_running(self, turn: Turn, now: float) -> list[Command]:
        if turn.end is not None or turn.interrupted_at is not None:
            return []
        turn.interrupted_at = now
        return [Give(claude.interrupt_line(f"interrupt-{turn.attempt}"))] if turn.given else []

    def _interrupted(self, now: float, usage: Usage | None = None) -> TurnInterrupted:
        turn = self._turn()
        return TurnInterrupted(
            turn=turn.id,
            attempt=turn.attempt,
            usage=usage or Usage(),
            duration_ms=_ms(now - turn.begun),
            ttft_ms=self._ttft(turn),
        )

    def _fail(
        self, code: ErrorCode, now: float, detail: str = "", usage: Usage | None = None
    ) -> list[Command]:
        turn = self._turn()
        failed = TurnFailed(
            turn=turn.id,
            attempt=turn.attempt,
            usage=usage or Usage(),
            duration_ms=_ms(now - turn.begun),
            ttft_ms=self._ttft(turn),
            code=code.value,
            message=f"{code.message} {detail[:SUMMARY_LIMIT]}".strip(),
            retryable=code.retryable,
        )
        return self._end(failed)

    def _end(self, end: TurnEnd) -> list[Command]:
        turn = self._turn()
        turn.end = end
        self.stage = Stage.ENDING
        self._last_log = turn.log
        if turn.mirrored:
            return [AppendTranscript(tuple(turn.mirrored))]
        return self.appended()

    def _publish(self, event: bytes, *, at_once: bool) -> Publish:
        turn = self._turn()
        self.seq += 1
        self._published_at = self._heard_at
        envelope = turn.writer.wrap(self.seq, event)
        turn.log.append(event, envelope)
        return Publish(envelope, at_once)

    def _publish_ours(self, event: Event) -> list[Command]:
        return [self._publish(event.encode(), at_once=True)]

    def _events_after(self, question: Replay, log: TurnLog | None) -> tuple[str, ...] | None:
        if question.epoch is None or question.seq is None:
            return None
        after = Position(question.epoch, question.seq)
        if after == (self.epoch, self.seq) or (question.seq == 0 and self._yet_to_begin(question.turn)):
            return ()
        if log is None:
            return None
        if question.seq == 0 and question.turn == log.turn and log.whole:
            return log.since(log.begun - 1)
        if after.epoch == self.epoch:
            return log.since(after.seq)
        return log.since(0) if after.epoch < self.epoch else None

    def _yet_to_begin(self, turn: str | None) -> bool:
        at_hand = [self.turn.held] if self.turn is not None and not self.turn.given else []
        return any(held.message.turn == turn for held in [*at_hand, *self.waiting.values()])

    def _ttft(self, turn: Turn) -> int | None:
        return None if turn.first_delta is None else _ms(turn.first_delta - turn.begun)


def _summary(raw: bytes) -> str:
    return raw.decode(errors="replace")[:SUMMARY_LIMIT]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
