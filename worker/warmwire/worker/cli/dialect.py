"""What a worker must be able to say to a CLI and to understand: what every adapter is. Pure.

`dialects` lists the adapters; docs/extending.md adds one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

from warmwire.broker.wire.messages import Content
from warmwire.worker.cli.launch import Launch, Spawning
from warmwire.worker.cli.said import ControlReply, ControlRequest, Line, Wish


@dataclass(frozen=True, slots=True)
class Abilities:
    """What this version of the CLI can be told on stdin, instead of at its spawn."""

    adopt: bool = False
    """System prompt and model, before the first message."""
    set_model: bool = False
    """Another model, between turns."""


class Dialect(ABC):
    """How to start a CLI, what to write to it, and what its lines mean. One is made for each session.

    What returns None instead of a line is not in the dialect: then the process is up as soon as it runs, is
    interrupted by SIGINT, and has its user's token, its model and its system prompt from the start.
    """

    profile_fields: ClassVar[Collection[str]] = ()
    """Fields of a profile that a CLI must be told of, and that this one can be told: of ``profiles.TOLD``."""

    needed: ClassVar[Collection[str]] = ()
    """Request ids of lines after whose refusal a process is of no use to its session."""

    asks_version: ClassVar[bool] = False
    """Whether `CLI --version` says what it can do."""

    @abstractmethod
    def launch(self, command: Sequence[str], spawn: Spawning) -> Launch:
        """How a process is started."""

    @abstractmethod
    def user_line(self, content: Content, uuid: str) -> bytes:
        """A message."""

    @abstractmethod
    def read(self, line: bytes) -> Sequence[Line]:
        """What a line of stdout means; never raises."""

    # What follows need not be in a dialect.

    def abilities(self, version: str) -> Abilities:
        """What a CLI that calls itself ``version`` can be told after its start."""
        return Abilities()

    def doubt(self, version: str) -> str | None:
        """What an operator should know about this version."""
        return None

    def ready_line(self) -> bytes | None:
        """A question that is answered as soon as the process is up. Without it there are no spares."""
        return None

    def adopt_line(self, system_prompt: str) -> bytes | None:
        """A process that was started ahead gets its session's system prompt, before its first message."""
        return None

    def model_line(self, model: str | None) -> bytes | None:
        """Another model, from the next turn on; None is what the CLI takes when it is not told."""
        return None

    def mode_line(self, mode: str) -> bytes | None:
        """Another permission mode, from the next turn on."""
        return None

    def thinking_line(self, tokens: int | None) -> bytes | None:
        """Another budget for thinking, from the next turn on."""
        return None

    def credential_line(self, token: str) -> bytes | None:
        """Another user's token, from the next turn on."""
        return None

    def interrupt_line(self, request_id: str) -> bytes | None:
        """Stop the running turn."""
        return None

    def wish(self, request: ControlRequest) -> Wish | None:
        """What the CLI asks leave for; None if it is nothing that a person could give."""
        return None

    def allow_line(self, request_id: str, wish: Wish, instead: bytes | None = None) -> bytes | None:
        """Yes to a wish; ``instead``: another input for the tool, JSON in one line."""
        return None

    def deny_line(self, request_id: str, reason: str) -> bytes | None:
        """No to a wish, and why."""
        return None

    def refuse_line(self, request_id: str, reason: str) -> bytes | None:
        """To a request that is no wish: it is not for us."""
        return None

    def named_in(self, transcript: bytes) -> str:
        """The CLI's own name of the conversation that this is the transcript of; empty if it has none."""
        return ""

    def cost_line(self) -> bytes | None:
        """What has the process cost?"""
        return None

    def cost_in(self, reply: ControlReply) -> str:
        """The words of the answer to that; empty if it is another answer."""
        return ""
