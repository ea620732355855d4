"""What a turn's stages took: as spans of its trace, and as the parts of its time to the first delta.

    send (producer)
    ├── wait                     from the sending to the worker that begins it
    └── process ww.req           one per attempt; links to the attempt that was lost with its worker
        ├── own|adopted|… process     until a CLI process with the conversation is there
        ├── chat                 from the message given to the CLI's result; events: first delta, tools
        └── commit               transcript and record stored, viewers told

Spans hold no content: neither what is asked nor what is answered, nor what tools get. Nothing here is called
for a delta. GenAI conventions: https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

from __future__ import annotations

from dataclasses import replace
from time import monotonic, time_ns

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context

from warmwire.broker import telemetry
from warmwire.broker.wire.events import TurnEnd, TurnFailed
from warmwire.broker.wire.messages import Finished, Started, TurnRecord
from warmwire.broker.wire.names import SessionKey
from warmwire.worker.cli import said
from warmwire.worker.sessions.turn import AppendTranscript, Command, Held, NeedCli, PutRecord, Turn

SLOW = 0.5
"""Seconds to the first delta from which a turn's spans say that it was slow: a sampler may keep those."""

Value = str | int | float | bool


class Trail:
    """The stages of one session's turns, as its host goes through them."""

    def __init__(self, key: SessionKey, worker: str, queue: str) -> None:
        """``queue`` names the subject that messages come by."""
        self._key = key
        self._worker = worker
        self._queue = queue
        self._stages: _Stages | None = None

    @property
    def chat(self) -> str | None:
        """The span that the CLI's own are to be below, before it begins; None where nobody traces."""
        return self._stages.chat if self._stages is not None else None

    def begin(self, turn: Turn | None, found: TurnRecord | None) -> None:
        """The turn at hand begins, unless it has ended before; from now on it carries the attempt's trace."""
        self.drop("put back")
        if turn is not None and not isinstance(found, Finished):
            self._stages = _Stages(self._key, self._worker, turn.held, found, self._queue)
            turn.held = replace(turn.held, traceparent=self._stages.traceparent)

    def before(self, command: Command, turn: Turn | None) -> None:
        """A command is about to be carried out."""
        if self._stages is None or turn is None:
            return
        match command:
            case NeedCli():
                self._stages.providing()
            case AppendTranscript() | PutRecord(record=Finished()):
                self._stages.committing(turn)
            case _:
                pass  # too short to be a stage

    def after(self, turn: Turn | None) -> None:
        """It has been carried out; perhaps that was the last thing that the message waited for."""
        if self._stages is not None and turn is not None and turn.given:
            self._stages.given()

    def provided(self, how: str | None) -> None:
        """There is a process, by that way; None: there is none."""
        if self._stages is not None:
            self._stages.provided(how)

    def noticed(self, line: said.Line) -> None:
        """A line of the CLI that is no delta."""
        if self._stages is not None:
            self._stages.noticed(line)

    def ended(self, end: TurnEnd) -> None:
        """Everybody has been told of the turn's end."""
        if self._stages is not None:
            self._stages.end(end)
        self._stages = None

    def drop(self, why: str) -> None:
        """It does not end here."""
        if self._stages is not None:
            self._stages.drop(why)
        self._stages = None


class _Stages:
    """The stages of one turn in its worker's hands, from its making to ``end`` or ``drop``."""

    def __init__(
        self, key: SessionKey, worker: str, held: Held, found: TurnRecord | None, queue: str
    ) -> None:
        """``found`` is the record of the attempt before, if there was one; ``queue`` names the subject."""
        self._held = held
        self._begun = self._given_at = monotonic()
        self._how: str | None = None
        self._chat: Span | None = None
        self._part: Span | None = None
        lost = found if isinstance(found, Started) else None
        parent = telemetry.extract({"traceparent": held.traceparent}) if held.traceparent else None
        about, now = _message(key, held, queue), time_ns()
        _waited(held, parent, about, now)
        self._attempt = telemetry.tracer().start_span(
            f"process {queue}",
            parent,
            SpanKind.CONSUMER,
            about | _attempt(worker, held, lost),
            telemetry.link_to(lost.traceparent if lost else None),
            now,
        )
        self._inside = set_span_in_context(self._attempt)
        self.traceparent = telemetry.traceparent_of(self._attempt) or held.traceparent
        self._chat_id = telemetry.new_span_id() if self._attempt.is_recording() else 0

    @property
    def chat(self) -> str | None:
        """``chat`` as a parent, before it begins; None where this worker does not trace."""
        if self.traceparent is None or not self._chat_id:
            return None
        return telemetry.below(self.traceparent, self._chat_id)

    def providing(self) -> None:
        """A process is being looked for."""
        self._part = telemetry.tracer().start_span("process", self._inside)

    def provided(self, how: str | None) -> None:
        """It is there, by that way; or there is none."""
        self._how = how
        if self._part is not None:
            self._part.update_name(f"{how or 'no'} process")
            self._part.set_attribute("warmwire.process", how or "none")
            self._part.end()
            self._part = None
        if how is not None:
            telemetry.ttft.record(monotonic() - self._begun, {"stage": "process", "tier": how})

    def given(self) -> None:
        """The message has gone to the CLI."""
        if self._chat is not None:
            return
        self._given_at = monotonic()
        model = self._held.message.options.model
        about: dict[str, Value] = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic"}
        if model is not None:
            about["gen_ai.request.model"] = model
        name = f"chat {model}" if model else "chat"
        with telemetry.span_id(self._chat_id):
            self._chat = telemetry.tracer().start_span(name, self._inside, SpanKind.CLIENT, about)

    def noticed(self, line: said.Line) -> None:
        """A line of the CLI that is no delta."""
        if self._chat is None or not self._chat.is_recording():
            return
        match line:
            case said.Assistant(tools=tools):
                for tool in tools:
                    self._chat.add_event("tool started", {"gen_ai.tool.name": tool.name})
            case said.ToolResults(results=results):
                for _ in results:
                    self._chat.add_event("tool finished")
            case _:
                pass  # tells nothing about time

    def committing(self, turn: Turn) -> None:
        """The CLI is done, one way or the other; what came of it is being stored."""
        if self._part is not None:
            return
        self._part = telemetry.tracer().start_span("commit", self._inside)
        if self._chat is None:
            return
        if turn.first_delta is not None:
            ago = monotonic() - turn.first_delta
            self._chat.add_event("first delta", timestamp=time_ns() - round(ago * 1e9))
        if turn.end is not None:
            self._chat.set_attributes(_usage(turn.end))
        self._chat.end()

    def end(self, end: TurnEnd) -> None:
        """Everybody has been told."""
        if end.ttft_ms is not None:
            self._first_delta(end.ttft_ms / 1000)
        self._attempt.set_attributes(_outcome(end))
        if isinstance(end, TurnFailed):
            telemetry.failures.add(1, {"code": end.code})
            self._attempt.set_attribute("error.type", end.code)
            self._attempt.set_status(Status(StatusCode.ERROR, end.code))
        self._close()

    def drop(self, why: str) -> None:
        """Another worker goes on with it, or it was over before."""
        self._attempt.set_attribute("warmwire.ending", why)
        self._close()

    def _first_delta(self, after: float) -> None:
        """``after`` is in seconds, from the turn's beginning here."""
        at, tier = self._begun + after, {} if self._how is None else {"tier": self._how}
        telemetry.ttft.record(max(0.0, at - self._given_at), {"stage": "cli", **tier})
        telemetry.ttft.record(after, {"stage": "worker", **tier})
        self._attempt.set_attribute("warmwire.ttft_ms", round(after * 1000))
        self._attempt.set_attribute("warmwire.slow", after > SLOW)

    def _close(self) -> None:
        for span in (self._part, self._chat, self._attempt):
            if span is not None and span.is_recording():
                span.end()


def _message(key: SessionKey, held: Held, queue: str) -> dict[str, Value]:
    return {
        "messaging.system": "nats",
        "messaging.destination.name": queue,
        "messaging.message.id": held.message.turn,
        "gen_ai.conversation.id": key.session,
    }


def _attempt(worker: str, held: Held, lost: Started | None) -> dict[str, Value]:
    """``lost`` is the attempt before, if there was one."""
    return {
        "messaging.operation.type": "process",
        "warmwire.worker": worker,
        "warmwire.attempt": lost.attempt + 1 if lost else 1,
        "warmwire.deliveries": held.deliveries,
        "warmwire.takeover": lost is not None,
    }


def _outcome(end: TurnEnd) -> dict[str, Value]:
    return {"warmwire.ending": end.type.removeprefix("turn_"), **_usage(end)}


def _usage(end: TurnEnd) -> dict[str, Value]:
    return {
        "gen_ai.usage.input_tokens": end.usage.input_tokens,
        "gen_ai.usage.output_tokens": end.usage.output_tokens,
    }


def _waited(held: Held, parent: Context | None, about: dict[str, Value], now: int) -> None:
    """The time in the queue, up to ``now`` (Unix time in ns)."""
    waited = max(0, now - held.message.sent_ms * 1_000_000)
    telemetry.tracer().start_span("wait", parent, attributes=about, start_time=now - waited).end(now)
    if held.deliveries == 1:  # else it is the death of a worker that it has waited for
        telemetry.ttft.record(waited / 1e9, {"stage": "queue"})
