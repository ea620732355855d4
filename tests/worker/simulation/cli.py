"""A CLI that remembers what it was told."""

from __future__ import annotations

import json
from collections import deque

from warmwire.worker.cli.said import Assistant, Init, Lifecycle, Line, Mirror, Result, Retry
from warmwire.worker.errors import ErrorCode

from tests.worker import said

Output = Line | None
"""What it prints; None is its sudden end."""


class Cli:
    """A process. It answers with what it was told before; a message's first word says how it is to fail."""

    def __init__(self, conversation: bytes) -> None:
        entries = [json.loads(line) for line in conversation.splitlines()]
        self.memory = [entry["message"]["content"] for entry in entries if entry["type"] == "user"]
        self.output: deque[Output] = deque()
        self.stopped = False
        self._asked: tuple[str, str] | None = None

    def write(self, line: bytes) -> None:
        """A line on stdin."""
        told = json.loads(line)
        if told["type"] == "user":
            self._asked = told["uuid"], told["message"]["content"]
            self.output.extend(self._answer(*self._asked))
        elif self._asked is not None:
            self._interrupt(*self._asked)

    def read(self) -> Output:
        """The next line of stdout; it has not been made before it is read."""
        line = self.output.popleft()
        if isinstance(line, Init) and self._asked is not None:
            self.memory.append(self._asked[1])
        if isinstance(line, Result):
            self._asked = None
        return line

    def _answer(self, uuid: str, text: str) -> list[Output]:
        name, answer = f"m-{uuid}", " ".join(["told", *self.memory])
        init: list[Output] = [Lifecycle(uuid, "queued"), Init("cli", "m", "1")]
        begun: list[Output] = [said.message_start(name), said.block_start(), said.delta("told")]
        rest: list[Output] = [said.delta(answer.removeprefix("told")), Assistant(name, answer)]
        stored = said.mirror(said.prompt_entry(uuid, text), said.answer_entry(name, answer))
        done: list[Output] = [stored, said.result(uuid)]
        match text.partition("-")[0]:
            case "crash":
                return [*init, *begun, None]
            case "hang":
                return [*init, *begun]
            case "retry":
                begun = [*begun, Retry(1, None), *begun]
            case "piece":
                return [*init, Assistant(name, answer), *done]
            case "error":
                failed = said.result(uuid, error=ErrorCode.OVERLOADED)
                return [*init, said.mirror(said.prompt_entry(uuid, text)), failed]
        return [*init, *begun, *rest, *said.message_end(), *done]

    def _interrupt(self, uuid: str, text: str) -> None:
        begun = not any(isinstance(line, Init) for line in self.output)
        mirrored = any(isinstance(line, Result) for line in self.output) and not any(
            isinstance(line, Mirror) for line in self.output
        )
        self.output.clear()
        if not begun:
            self._asked = None
            self.output.append(Lifecycle(uuid, "cancelled"))
            return
        if not mirrored:
            self.output.append(said.mirror(said.prompt_entry(uuid, text)))
        self.output.append(said.result(uuid, interrupted=True))
