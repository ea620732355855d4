"""The terminal event of a turn and its record, made from what is known at its end. Pure."""

from __future__ import annotations

import re

from warmwire.broker.wire.events import TurnCompleted, TurnEnd, TurnFailed, TurnInterrupted, Usage
from warmwire.broker.wire.messages import Finished
from warmwire.worker.cli import said
from warmwire.worker.errors import ErrorCode
from warmwire.worker.sessions.turn import Turn

DETAIL_LIMIT = 500
"""Characters of the CLI's own words in a failure's message."""

_ADDRESS = re.compile(r"\b\w+://\S+|\b[\w.-]+:\d{2,5}\b")
"""Where the API is, is no business of a viewer's."""


def by_result(turn: Turn, line: said.Result, now: float) -> TurnEnd:
    """The end that the CLI itself declares."""
    usage = Usage(
        input_tokens=line.usage.input_tokens,
        output_tokens=line.usage.output_tokens,
        cache_read_input_tokens=line.usage.cache_read_input_tokens,
        cache_creation_input_tokens=line.usage.cache_creation_input_tokens,
        cost_usd=line.cost_usd,
    )
    if line.ending == "failed":
        return failed(turn, line.error or ErrorCode.CLI_FAILED, now, line.detail, usage)
    if line.ending == "interrupted" or _broken_off(turn, line):
        return interrupted(turn, now, usage)
    return TurnCompleted(
        turn=turn.id,
        attempt=turn.attempt,
        usage=usage,
        duration_ms=ms(now - turn.begun),
        ttft_ms=_ttft(turn),
        stop_reason=line.stop_reason,
    )


def _broken_off(turn: Turn, line: said.Result) -> bool:
    """Where an interrupt is a signal, the end that it makes has no reason."""
    return turn.interrupted_at is not None and line.stop_reason is None


def interrupted(turn: Turn, now: float, usage: Usage | None = None) -> TurnInterrupted | TurnFailed:
    """Somebody stopped it, or a limit did."""
    if turn.breach is not None:
        return failed(turn, turn.breach.code, now, turn.breach.detail, usage)
    return TurnInterrupted(
        turn=turn.id,
        attempt=turn.attempt,
        usage=usage or turn.meter.usage,
        duration_ms=ms(now - turn.begun),
        ttft_ms=_ttft(turn),
    )


def failed(
    turn: Turn, code: ErrorCode, now: float, detail: str = "", usage: Usage | None = None
) -> TurnFailed:
    """There is no answer, or not all of it."""
    return TurnFailed(
        turn=turn.id,
        attempt=turn.attempt,
        usage=usage or turn.meter.usage,
        duration_ms=ms(now - turn.begun),
        ttft_ms=_ttft(turn),
        code=code.value,
        message=f"{code.message} {_ADDRESS.sub('…', detail[:DETAIL_LIMIT])}".strip(),
        retryable=code.retryable,
    )


def finished(turn: Turn, end: TurnEnd, epoch: int, seq: int) -> Finished:
    """The record of a turn that ends so, by the event of that place."""
    text, truncated = turn.log.answer()
    return Finished(
        attempt=turn.attempt,
        epoch=epoch,
        digest=turn.held.digest,
        envelope=turn.writer.wrap(seq, end.encode()).decode(),
        text=text,
        truncated=truncated,
        question=turn.held.question,
    )


def ms(seconds: float) -> int:
    """Seconds in whole milliseconds."""
    return round(seconds * 1000)


def _ttft(turn: Turn) -> int | None:
    return None if turn.first_delta is None else ms(turn.first_delta - turn.begun)
