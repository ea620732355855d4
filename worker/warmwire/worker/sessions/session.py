"""One session as its owner runs it: a state machine without I/O. Time is an argument.

Every method returns the commands to carry out, in order:

    offer ─▶ FindHead ─▶ head ─▶ ReadRecord ─▶ record ─▶ PutRecord(started), NeedCli ─▶ Give(message)
      ▲                            │                                                       │ lines
      │                            ├─▶ finished before: publish its envelope again         ▼
      │                            └─▶ in the transcript: publish the answer again      Result
      └── acked ◀── Ack ◀── Publish(terminal) ◀── PutRecord(finished) ◀── AppendTranscript ◀┘

One turn at a time, and only the head of the queue: what another worker pulled first may still be on its way.
The transcript commits: a turn whose process is gone before its result leaves nothing there, so that a retry
begins clean.
"""

from __future__ import annotations

from warmwire.broker.wire.envelope import EnvelopeWriter
from warmwire.broker.wire.events import Event, TurnEnd, TurnInterrupted, TurnProgress, TurnReset, TurnStarted
from warmwire.broker.wire.messages import Finished, OwnerView, Replay, Started, TurnRecord
from warmwire.broker.wire.names import SessionKey
from warmwire.worker.cli import said
from warmwire.worker.cli.dialect import Dialect
from warmwire.worker.errors import ErrorCode
from warmwire.worker.sessions import endings
from warmwire.worker.sessions.binding import Binding
from warmwire.worker.sessions.deltas import (
    DELTA_LIMIT,
    fitting,
    message_id,
    tools_finished,
    tools_started,
)
from warmwire.worker.sessions.patience import STALLED, Step
from warmwire.worker.sessions.permissions import Answer, Outcome, Permissions, Said
from warmwire.worker.sessions.transcript import Answered, turn_entry
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
    SignalCli,
    Stage,
    TerminateCli,
    Turn,
    not_again,
)
from warmwire.worker.sessions.turnlog import History, TurnLog

PROGRESS_EVERY = 5.0
"""Seconds without an event after which a viewer is told that the CLI is alive."""


class Session:
    """A session in its owner's hands, from claim to release."""

    def __init__(
        self, key: SessionKey, worker: str, epoch: int, now: float, rules: Rules, dialect: Dialect
    ) -> None:
        self.draining = False
        self.key = key
        self.epoch = epoch
        self.seq = 0
        self.stage = Stage.IDLE
        self.idle_since = now
        self.waiting: dict[int, Held] = {}
        self.turn: Turn | None = None
        self._worker = worker
        self._dialect = dialect
        self._stall_timeout = rules.stall_timeout
        self.binding = Binding(rules.profiles)
        self._permissions = Permissions(epoch, dialect, rules.answer_within)
        self._to_interrupt: set[str] = set()
        self._history = History()
        self._acked = 0
        self._asked_up_to = 0
        self._published_at = now
        self._heard_at = now

    # -- the queue

    def offer(self, held: Held) -> list[Command]:
        """A message of this session has come; the same one again replaces where it is acknowledged."""
        turn = self.turn
        if turn is not None and turn.held.sequence == held.sequence:
            turn.held = held.newest(turn.held)
            return []
        self.waiting[held.sequence] = held.newest(self.waiting.get(held.sequence))
        return self._next()

    def head(self, sequence: int | None, now: float) -> list[Command]:
        """The head of the queue is known. If it is not here yet, another worker is about to forward it."""
        self.stage = Stage.IDLE
        if sequence is None or sequence not in self.waiting:
            return self._without_head(sequence)
        if self.draining:
            return []
        self.stage = Stage.CHECKING
        held = self.waiting.pop(sequence)
        self.turn = self._new_turn(held, 1, now)
        return [ReadRecord(held.message.turn)]

    def record(
        self, found: TurnRecord | None, interrupted: bool, now: float, answered: Answered | None = None
    ) -> list[Command]:
        """What is known about the turn is here; ``answered`` if its answer is in the transcript already."""
        turn = self._turn()
        if isinstance(found, Finished):
            return self._republish(found, turn)
        if self.draining:
            return self._put_back(turn)
        if answered is not None:
            return self._give_answer(answered)
        stop = interrupted or turn.interrupted_at is not None or turn.id in self._to_interrupt
        reason = not_again(turn.held, found)
        made = found.attempt if found else 0
        attempt = max(made, 1) if stop or reason else made + 1
        self.turn = turn = self._new_turn(turn.held, attempt, turn.begun)
        if stop:
            return self._end(endings.interrupted(turn, now))
        return self._fail(reason.code, reason.detail, now) if reason else self._start(turn, now)

    def stored(self, now: float) -> list[Command]:
        """The turn's record is stored."""
        turn = self._turn()
        if turn.finishing:
            return self._tell_end(turn)
        turn.record_stored = True
        return self._finish() if turn.end is not None else self._give(now)

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
        turn.mirrored.clear()
        if turn.interrupted_at is not None:
            return self._end(endings.interrupted(turn, now))
        return self._fail(code, "", now)

    def appended(self) -> list[Command]:
        """The transcript is stored: the answer is part of the conversation. Now the record."""
        turn = self._turn()
        assert turn.end is not None  # noqa: S101 - only an ending appends
        turn.finishing = True
        finished = endings.finished(turn, turn.end, self.epoch, self.seq + 1)
        spent = self.binding.spend(turn.meter, turn.end) if turn.given else None
        return [PutRecord(turn.id, finished, spent)]

    def cannot(self, why: str, now: float) -> list[Command]:
        """A record can never be read, or what is to be stored is more than the server takes."""
        turn = self._turn()
        if turn.finishing:  # then its transcript is stored
            return self._tell_end(turn)
        code = ErrorCode.UNREADABLE_MESSAGE if self.stage is Stage.CHECKING else ErrorCode.INTERNAL
        turn.record_stored = True  # no write of it is on its way
        end = endings.failed(turn, code, now, why)
        return self._kill(end) if turn.given else self._end(end)

    def acked(self, now: float) -> list[Command]:
        """The turn is over."""
        turn = self._turn()
        self._to_interrupt.discard(turn.id)
        self._acked = max(self._acked, turn.held.sequence)
        self.turn = None
        self.stage = Stage.IDLE
        self.idle_since = now
        return self._next()

    # -- what the CLI says

    def line(self, line: said.Line, now: float) -> list[Command]:
        """One line of the CLI's output, parsed."""
        self._heard_at = now
        turn = self.turn
        if turn is None or not turn.given or turn.end is not None:
            return []
        if type(line) is said.StreamEvent:  # nearly every line
            turn.meter.hear(line)
            commands = self._stream_event(turn, line, now)
            return commands if turn.meter.breach is None else [*commands, *self._stop_over(turn, now)]
        return self._other_line(turn, line, now)

    def _other_line(self, turn: Turn, line: said.Line, now: float) -> list[Command]:
        commands: list[Command] = []
        match line:
            case said.Mirror():
                if "/subagents/" not in line.file:
                    turn.mirrored += line.entries
            case said.Assistant(parent_tool_use_id=None):
                commands = self._assistant(turn, line, now)
            case said.ToolResults(parent_tool_use_id=None):
                commands = self._publish_ours(*tools_finished(turn.id, line.results))
            case said.Retry():
                commands = self._retry(turn)
            case said.ControlRequest() | said.Withdrawn() | said.ControlReply():
                commands = self._control(turn, line, now)
            case said.Lifecycle(message_uuid=turn.cli_uuid):
                commands = self._lifecycle(turn, line.state, now)
            case said.BadLine():
                commands = self._kill(endings.failed(turn, line.code, now))
            case said.Result() if not line.message_uuids or turn.cli_uuid in line.message_uuids:
                commands = self._end(endings.by_result(turn, line, now))
        return commands

    def _stream_event(self, turn: Turn, line: said.StreamEvent, now: float) -> list[Command]:
        if line.parent_tool_use_id is not None:
            return []
        asked: list[Command] = []
        if line.type == "content_block_delta":
            if turn.first_delta is None:
                turn.first_delta = now
        elif line.type == "message_start":
            turn.messages += 1
            turn.message_open = True
            turn.streamed.add(message_id(line.event))
        elif line.type == "message_delta":
            turn.message_open = False
            asked = self._ask_cost(turn)
        if len(line.event) > DELTA_LIMIT:
            return [self._publish(part) for part in fitting(line.event)]
        return [self._publish(line.event), *asked]

    def _ask_cost(self, turn: Turn) -> list[Command]:
        """Before a turn, and before each of its steps, where dollars are limited."""
        line = self._dialect.cost_line() if turn.meter.counts_usd else None
        return [] if line is None else [Give(line)]

    def _assistant(self, turn: Turn, line: said.Assistant, now: float) -> list[Command]:
        tools = self._publish_ours(*tools_started(turn.id, line.tools))
        if not line.text or line.synthetic or line.message_id in turn.streamed:
            return tools
        voided = self._retry(turn)  # its last retry, in one piece, is not announced by the CLI
        return [*voided, *self._publish_unstreamed(turn, line.message_id, line.text, now), *tools]

    def _publish_unstreamed(self, turn: Turn, message: str, text: str, now: float) -> list[Command]:
        events = said.unstreamed(message, text)
        commands = [command for event in events for command in self._stream_event(turn, event, now)]
        turn.streamed.discard(message)  # its next block comes in one piece as well
        return commands

    def _retry(self, turn: Turn) -> list[Command]:
        if not turn.message_open:
            return []
        turn.messages -= 1
        turn.message_open = False
        turn.meter.retried()
        return self._publish_ours(
            TurnReset(turn=turn.id, attempt=turn.attempt, reason="api_retry", message=turn.messages)
        )

    def _control(self, turn: Turn, line: said.Control, now: float) -> list[Command]:
        if not isinstance(line, said.ControlReply):
            return self._say(self._permissions.hear(turn.id, line, now))
        turn.meter.cost(self._dialect.cost_in(line))
        return self._stop_over(turn, now)

    def _say(self, what: Said) -> list[Command]:
        return [*self._publish_ours(*what.events), *map(Give, what.lines)]

    def _lifecycle(self, turn: Turn, state: str, now: float) -> list[Command]:
        """Without a result before them, these two mean that none will come."""
        if state == "cancelled":
            return self._end(endings.interrupted(turn, now))
        if state == "completed":
            return self._fail(ErrorCode.CLI_FAILED, "It holds the message for answered.", now)
        return []

    # -- what others ask

    def interrupt(self, turn_id: str | None, now: float) -> tuple[str | None, list[Command]]:
        """Stop a turn (None: the one at hand), begun or still waiting; returns the turn that is stopped."""
        turn = self.turn
        if turn is not None and turn_id in (None, turn.id):
            return self._interrupt_at_hand(turn, now)
        if turn_id is None or all(held.message.turn != turn_id for held in self.waiting.values()):
            return None, []
        again = turn_id in self._to_interrupt
        self._to_interrupt.add(turn_id)
        return turn_id, [] if again else [KeepInterrupt(turn_id)]

    def permit(self, name: str, answer: Answer, turn_id: str | None = None) -> tuple[Outcome, list[Command]]:
        """Somebody has answered a question of the CLI's; ``turn_id``: only if it is that turn's."""
        outcome, what = self._permissions.answer(name, answer, turn_id)
        return outcome, self._say(what)

    def view(self, question: Replay) -> OwnerView:
        """Where the session stands, and what came after the asked position."""
        turn = self.turn if self.turn is not None and self.turn.visible else None
        events = self._history.answer(question, self.epoch, self.seq)
        shown = None if turn is None or events is not None else self._snapshot(turn)
        return OwnerView(
            epoch=self.epoch, seq=self.seq, turn=turn.id if turn else None, events=events, snapshot=shown
        )

    def _snapshot(self, turn: Turn) -> str:
        asked = self._permissions.open(self._heard_at)  # while one is open that is never long ago
        return turn.log.snapshot().model_copy(update={"questions": asked}).encode().decode()

    def tick(self, now: float) -> list[Command]:
        """Time has passed; call it every half second or so."""
        turn = self.turn
        if turn is None:
            return self._next()  # the head may have gone elsewhere
        if not turn.given or turn.end is not None:
            return []
        if turn.interrupted_at is not None:
            step = turn.next_step(now, self._stall_timeout)
            if step is Step.KILL:
                return self._kill(endings.interrupted(turn, now))
            return [TerminateCli()] if step is Step.TERMINATE else []
        turn.meter.passed(now - turn.begun)
        if self._permissions.waiting:
            self._heard_at = now  # it has reason to be silent
        if turn.meter.breach is None and now - self._heard_at > self._stall_timeout:
            turn.meter.breach = STALLED
        if turn.meter.breach is not None:
            return self._stop_over(turn, now)
        return [*self._say(self._permissions.overdue(now)), *self._progress(turn, now)]

    def _progress(self, turn: Turn, now: float) -> list[Command]:
        if now - self._published_at <= PROGRESS_EVERY:
            return []
        doing = "asking" if self._permissions.waiting else "waiting"
        elapsed = endings.ms(now - turn.begun)
        progress = self._publish_ours(TurnProgress(turn=turn.id, elapsed_ms=elapsed, doing=doing))
        self._published_at = now
        return progress

    def thawed(self, now: float) -> None:
        """The worker was frozen: the silence of that time says nothing about the CLI."""
        self._heard_at = self._published_at = now
        if self.turn is not None and self.turn.interrupted_at is not None:
            self.turn.interrupted_at = now

    # -- the queue, within

    def _next(self) -> list[Command]:
        if self.stage is not Stage.IDLE or not self.waiting or self.draining:
            return []
        self.stage = Stage.CHECKING
        self._asked_up_to = max(self.waiting)
        return [FindHead(after=min(self._acked, min(self.waiting) - 1))]

    def _without_head(self, head: int | None) -> list[Command]:
        """What stands before the head, or stood in an empty queue, was acked: it needs no answer."""
        gone_before = self._asked_up_to + 1 if head is None else head
        for sequence in [at for at in self.waiting if at < gone_before]:
            self._to_interrupt.discard(self.waiting.pop(sequence).message.turn)
        return self._next() if head is None else []

    def _put_back(self, turn: Turn) -> list[Command]:
        self.waiting[turn.held.sequence] = turn.held
        self.turn = None
        self.stage = Stage.IDLE
        return []

    # -- the way of a turn

    def _new_turn(self, held: Held, attempt: int, begun: float) -> Turn:
        turn = held.message.turn
        log = TurnLog(turn, attempt, self.seq + 1)
        return Turn(held, attempt, begun, log, EnvelopeWriter(self.epoch, turn, attempt))

    def _turn(self) -> Turn:
        if self.turn is None:
            raise AssertionError("an answer to a command of a turn that is over")
        return self.turn

    def _republish(self, found: Finished, turn: Turn) -> list[Command]:
        turn.over = True
        self.stage = Stage.ENDING
        return [Publish(found.envelope.encode()), Ack(turn.held)]

    def _give_answer(self, answered: Answered) -> list[Command]:
        """The worker before died between the transcript and the record: say again what it had said."""
        held, begun = self._turn().held, self._turn().begun
        self.turn = turn = self._new_turn(held, answered.end.attempt, begun)
        commands = self._publish_ours(TurnReset(turn=turn.id, attempt=turn.attempt, reason="worker_lost"))
        for message, text in answered.messages:
            commands += self._publish_unstreamed(turn, message, text, begun)
        return [*commands, *self._end(answered.end)]

    def _start(self, turn: Turn, now: float) -> list[Command]:
        message = turn.held.message
        how = self.binding.set_up(message.options)
        if not isinstance(how, tuple):
            return self._fail(how.code, how.detail, now)
        setup, turn.meter = how
        self.stage = Stage.STARTING
        trace, digest = turn.held.traceparent, message.digest
        started = Started(
            attempt=turn.attempt, epoch=self.epoch, worker=self._worker, digest=digest, traceparent=trace
        )
        return [PutRecord(message.turn, started, self.binding.record), NeedCli(setup, message.credential)]

    def _give(self, now: float) -> list[Command]:
        turn = self._turn()
        if not (turn.record_stored and turn.cli_ready):
            return []
        if turn.interrupted_at is not None:
            return self._end(endings.interrupted(turn, now))
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
        again = [reset] if turn.attempt > 1 else []
        line = self._dialect.user_line(message.content, turn.cli_uuid)
        return [*self._publish_ours(*again, started), *self._ask_cost(turn), Give(line)]

    def _interrupt_at_hand(self, turn: Turn, now: float) -> tuple[str | None, list[Command]]:
        if turn.end is not None or turn.over:
            return turn.id if isinstance(turn.end, TurnInterrupted) else None, []
        if turn.interrupted_at is not None:
            return turn.id, []
        turn.interrupted_at = now
        return turn.id, [*(self._stop() if turn.given else []), KeepInterrupt(turn.id)]

    def _stop_over(self, turn: Turn, now: float) -> list[Command]:
        """A limit was reached. What has been stopped already, or has ended meanwhile, ends as it would."""
        if turn.meter.breach is None or turn.interrupted_at is not None:
            return []
        turn.breach = turn.meter.breach
        turn.interrupted_at = now
        return self._stop()

    def _stop(self) -> list[Command]:
        line = self._dialect.interrupt_line(f"interrupt-{self._turn().attempt}")
        return [SignalCli() if line is None else Give(line)]

    # -- the end of a turn

    def _fail(self, code: ErrorCode, detail: str, now: float) -> list[Command]:
        return self._end(endings.failed(self._turn(), code, now, detail))

    def _kill(self, end: TurnEnd) -> list[Command]:
        self._turn().mirrored.clear()
        return [KillCli(), *self._end(end)]

    def _end(self, end: TurnEnd) -> list[Command]:
        turn = self._turn()
        turn.end = end.model_copy(update={"traceparent": turn.held.traceparent})
        self._permissions.over()
        being_started = self.stage is Stage.STARTING and not turn.record_stored
        self.stage = Stage.ENDING
        return [] if being_started else self._finish()  # one write of its record at a time

    def _finish(self) -> list[Command]:
        turn = self._turn()
        if not turn.mirrored or turn.end is None:
            return self.appended()
        return [AppendTranscript((*turn.mirrored, turn_entry(turn.end)))]

    def _tell_end(self, turn: Turn) -> list[Command]:
        assert turn.end is not None  # noqa: S101 - its record is stored
        told = self._publish_ours(turn.end)
        turn.over = True
        self._history.end()
        return [*told, Ended(turn.held, turn.end), Ack(turn.held)]

    # -- events

    def _publish(self, event: bytes) -> Publish:
        turn = self._turn()
        if self.seq < turn.log.begun:
            self._history.begin(turn.log)
        self.seq += 1
        self._published_at = self._heard_at
        envelope = turn.writer.wrap(self.seq, event)
        turn.log.append(envelope)
        return Publish(envelope)

    def _publish_ours(self, *events: Event) -> list[Command]:
        return [self._publish(event.encode()) for event in events]
