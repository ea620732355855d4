"""The adapter of Claude Code, made of what `launch`, `claude_stdin`, `claude` and `abilities` know. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from warmwire.broker.wire.messages import Content
from warmwire.worker.cli import abilities, claude, claude_stdin
from warmwire.worker.cli.dialect import Abilities, Dialect
from warmwire.worker.cli.launch import Launch, Spawning, launch
from warmwire.worker.cli.said import ControlReply, ControlRequest, Line, Wish
from warmwire.worker.profiles import TOLD


class Claude(Dialect):
    """The dialect of Claude Code, all of it."""

    profile_fields = TOLD
    needed = claude_stdin.NEEDED
    asks_version = True

    def launch(self, command: Sequence[str], spawn: Spawning) -> Launch:
        return launch(command, spawn)

    def user_line(self, content: Content, uuid: str) -> bytes:
        return claude_stdin.user_line(content, uuid)

    def read(self, line: bytes) -> Sequence[Line]:
        return (claude.parse(line),)

    def abilities(self, version: str) -> Abilities:
        return abilities.abilities(version)

    def doubt(self, version: str) -> str | None:
        return abilities.doubt(version)

    def ready_line(self) -> bytes:
        return claude_stdin.ready_line()

    def adopt_line(self, system_prompt: str) -> bytes:
        return claude_stdin.adopt_line(system_prompt)

    def model_line(self, model: str | None) -> bytes:
        return claude_stdin.set_model_line(model)

    def mode_line(self, mode: str) -> bytes:
        return claude_stdin.mode_line(mode)

    def thinking_line(self, tokens: int | None) -> bytes:
        return claude_stdin.thinking_line(tokens)

    def credential_line(self, token: str) -> bytes:
        return claude_stdin.credential_line(token)

    def interrupt_line(self, request_id: str) -> bytes:
        return claude_stdin.interrupt_line(request_id)

    def wish(self, request: ControlRequest) -> Wish | None:
        return claude.wish(request)

    def allow_line(self, request_id: str, wish: Wish, instead: bytes | None = None) -> bytes:
        return claude_stdin.allow_line(request_id, wish, instead)

    def deny_line(self, request_id: str, reason: str) -> bytes:
        return claude_stdin.deny_line(request_id, reason)

    def refuse_line(self, request_id: str, reason: str) -> bytes:
        return claude_stdin.refuse_line(request_id, reason)

    def named_in(self, transcript: bytes) -> str:
        return claude.session_of_transcript(transcript)

    def cost_line(self) -> bytes:
        return claude_stdin.cost_line()

    def cost_in(self, reply: ControlReply) -> str:
        return claude.cost_in(reply)
