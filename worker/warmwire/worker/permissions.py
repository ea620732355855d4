"""What the CLI asks leave for within a turn, until somebody answers or the time is up. Pure.

The CLI waits for the answer, for ever if need be; at the deadline it is no.
"""

from __future__ import annotations

from dataclasses import dataclass

from warmwire.broker.events import PermissionRequested
from warmwire.worker import claude
from warmwire.worker.deltas import summary

ANSWER_WITHIN = 60.0
"""Seconds that people have for an answer."""
REFUSED = "The user has not allowed this."
TOO_LATE = "Nobody has allowed this in time."


@dataclass(frozen=True, slots=True)
class _Asked:
    wish: claude.Wish
    until: float


class Permissions:
    """The questions of one turn that are open."""

    def __init__(self) -> None:
        self._open: dict[str, _Asked] = {}

    def ask(self, turn: str, request: claude.ControlRequest, now: float) -> PermissionRequested | None:
        """The CLI asks; None if what it asks is not understood."""
        wish = claude.wish(request)
        if wish is None:
            return None
        self._open[request.request_id] = _Asked(wish, now + ANSWER_WITHIN)
        return PermissionRequested(
            turn=turn,
            request=request.request_id,
            tool=wish.tool,
            summary=summary(wish.input),
            within_ms=round(ANSWER_WITHIN * 1000),
        )

    def answer(self, request: str, *, allow: bool) -> bytes | None:
        """What the CLI is told; None if nothing of that name is open (any more)."""
        asked = self._open.pop(request, None)
        if asked is None:
            return None
        return claude.allow_line(request, asked.wish) if allow else claude.deny_line(request, REFUSED)

    def overdue(self, now: float) -> list[bytes]:
        """What the CLI is told about those that nobody has answered in time."""
        late = [request for request, asked in self._open.items() if now >= asked.until]
        for request in late:
            del self._open[request]
        return [claude.deny_line(request, TOO_LATE) for request in late]
