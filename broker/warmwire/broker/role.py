"""What each role's process has in common: logs, settings from the environment, one line per mistake."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable
from typing import TypeVar

import structlog
from opentelemetry import trace
from pydantic import ValidationError
from pydantic_settings import BaseSettings
from structlog.typing import EventDict, Processor

from warmwire.broker import telemetry
from warmwire.broker.errors import BadInput, Misconfigured, WarmwireError

S = TypeVar("S", bound=BaseSettings)

MISTAKEN = 2
"""Exit code when the settings cannot work: to start again changes nothing."""
FAILED = 1
"""Exit code when what is needed could not be had: to start again may help."""
COLLECT_AFTER = (20_000, 20, 20)
"""Containers made before Python looks for garbage in cycles, by generation. Deltas leave none, and the usual
700 would be reached every few milliseconds with a thousand streams."""


def run(role: str, work: Callable[[], int]) -> int:
    """The whole life of a role's process; returns its exit code. What goes wrong on purpose is one line."""
    log_to_stderr(logging.INFO)
    telemetry.configure(f"warmwire-{role}")
    gc.freeze()  # what was imported stays for good and need not be looked through again
    gc.set_threshold(*COLLECT_AFTER)
    try:
        return work()
    except (BadInput, Misconfigured) as error:
        return _complain(role, error, MISTAKEN)
    except WarmwireError as error:
        return _complain(role, error, FAILED)


def run_from_environment(role: str, settings: type[S], main: Callable[[S], int]) -> int:
    """``python -m warmwire.<role>``: settings come from ``WARMWIRE_*`` alone."""
    try:
        return main(settings())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if not first["loc"]:  # of several settings together
            return _complain(role, first["msg"].removeprefix("Value error, "), MISTAKEN)
        name = "_".join(str(part) for part in first["loc"]).upper().removeprefix("WARMWIRE_")
        return _complain(role, f"WARMWIRE_{name}: {first['msg']}", MISTAKEN)


def log_to_stderr(level: int) -> None:
    """Logs of ours from ``level`` on, of libraries from WARNING on. stdout is for results.

    For people where stderr is a terminal, else a JSON object a line.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.dev.set_exc_info,
            _with_trace,
            *(_FOR_PEOPLE if sys.stderr.isatty() else _FOR_PROGRAMS),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )


def _with_trace(_logger: object, _method: str, event: EventDict) -> EventDict:
    """The trace that the line belongs to, if there is one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format(context.trace_id, "032x")
    return event


_FOR_PEOPLE: tuple[Processor, ...] = (
    structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
    # Where rich is installed the default one shows local variables, and with them credentials.
    structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
)
_FOR_PROGRAMS: tuple[Processor, ...] = (
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    structlog.processors.JSONRenderer(default=str),
)


def _complain(role: str, what: object, code: int) -> int:
    print(f"warmwire {role}: {what}", file=sys.stderr)
    return code
