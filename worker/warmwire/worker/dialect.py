"""What a worker must be able to say to a CLI and to understand: one adapter for each dialect. Pure.

An adapter is made for each session; `claude` and `stream_json` hold what they know.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from warmwire.worker import claude, claude_stdin
from warmwire.worker.launch import Launch, Spawning, launch
from warmwire.worker.said import Line
from warmwire.worker.stream_json import StreamJson


class Dialect(Protocol):
    """How to start a CLI, what to write to it, and what its lines mean.

    What returns None instead of a line is not in the dialect: then the process is up as soon as it runs, is
    interrupted by SIGINT, and has its user's token from the start.
    """

    @abstractmethod
    def launch(self, command: Sequence[str], spawn: Spawning) -> Launch:
        """How a process is started."""

    @abstractmethod
    def user_line(self, content: str | Sequence[Any], uuid: str) -> bytes:
        """A message."""

    @abstractmethod
    def ready_line(self) -> bytes | None:
        """A question that is answered as soon as the process is up."""

    @abstractmethod
    def interrupt_line(self, request_id: str) -> bytes | None:
        """Stop the running turn."""

    @abstractmethod
    def credential_line(self, token: str) -> bytes | None:
        """Another user's token, from the next turn on."""

    @abstractmethod
    def mode_line(self, mode: str) -> bytes | None:
        """Another permission mode, from the next turn on."""

    @abstractmethod
    def thinking_line(self, tokens: int | None) -> bytes | None:
        """Another budget for thinking, from the next turn on."""

    @abstractmethod
    def cost_line(self) -> bytes | None:
        """What has the process cost?"""

    @abstractmethod
    def read(self, line: bytes) -> Sequence[Line]:
        """What a line of stdout means; never raises."""


class Claude:
    """The dialect of Claude Code."""

    launch = staticmethod(launch)
    user_line = staticmethod(claude_stdin.user_line)
    ready_line = staticmethod(claude_stdin.ready_line)
    interrupt_line = staticmethod(claude_stdin.interrupt_line)
    credential_line = staticmethod(claude_stdin.credential_line)
    mode_line = staticmethod(claude_stdin.mode_line)
    thinking_line = staticmethod(claude_stdin.thinking_line)
    cost_line = staticmethod(claude_stdin.cost_line)

    def read(self, line: bytes) -> Sequence[Line]:
        return (claude.parse(line),)


DIALECTS: Mapping[str, Callable[[], Dialect]] = {"claude": Claude, "stream-json": StreamJson}
