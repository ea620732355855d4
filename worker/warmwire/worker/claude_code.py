"""The adapter of Claude Code, made of what `launch`, `claude_stdin`, `claude` and `abilities` know. Pure."""

# Each static method stands for a method of the same face; basedpyright counts its `self`, mypy does not.
# pyright: reportAssignmentType=false

from __future__ import annotations

from collections.abc import Sequence

from warmwire.worker import claude, claude_stdin
from warmwire.worker.abilities import abilities, doubt
from warmwire.worker.dialect import Dialect
from warmwire.worker.launch import launch
from warmwire.worker.profiles import TOLD
from warmwire.worker.said import Line


class Claude(Dialect):
    """The dialect of Claude Code, all of it."""

    profile_fields = TOLD
    needed = claude_stdin.NEEDED
    asks_version = True

    abilities = staticmethod(abilities)
    doubt = staticmethod(doubt)
    launch = staticmethod(launch)
    user_line = staticmethod(claude_stdin.user_line)
    ready_line = staticmethod(claude_stdin.ready_line)
    adopt_line = staticmethod(claude_stdin.adopt_line)
    model_line = staticmethod(claude_stdin.set_model_line)
    mode_line = staticmethod(claude_stdin.mode_line)
    thinking_line = staticmethod(claude_stdin.thinking_line)
    credential_line = staticmethod(claude_stdin.credential_line)
    interrupt_line = staticmethod(claude_stdin.interrupt_line)
    cost_line = staticmethod(claude_stdin.cost_line)
    cost_in = staticmethod(claude.cost_in)

    def read(self, line: bytes) -> Sequence[Line]:
        return (claude.parse(line),)
