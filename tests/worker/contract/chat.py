"""The CLI of a contract test: the real one against the stand-in API, or the emulator playing the same."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from warmwire.broker.wire.messages import Content
from warmwire.worker.cli.claude import session_of
from warmwire.worker.cli.claude_stdin import interrupt_line, user_line
from warmwire.worker.cli.launch import Launch, Spawning, launch, transcript_path
from warmwire.worker.cli.said import ControlReply, Mirror, Result, StreamEvent

from tests.standin.messages_api import Behaviour, MessagesApi
from tests.worker.conftest import Running

relied_on = pytest.mark.relied_on
left_out = pytest.mark.left_out
real_only = pytest.mark.real_only
on_one_loop = pytest.mark.asyncio(loop_scope="session")

MODEL = "claude-sonnet-4-5"
INITIALIZE = b'{"type":"control_request","request_id":"i1","request":{"subtype":"initialize"}}\n'
PLAIN = Behaviour()
SLOW = Behaviour(text="one two three four five six seven eight nine ten", rate=20)
STUMBLE = "stumble"
"""The word in a message that meets the fault which is played."""


@dataclass
class Chat:
    """Starts CLIs, each in a folder, and so in a HOME, of its own."""

    command: Sequence[str]
    environment: Mapping[str, str]
    api: MessagesApi
    folder: Path
    start: Callable[[Launch], Awaitable[Running]]
    emulated: bool
    warm: list[Running]  # the one that tests share, if it is there
    start_shared: Callable[[Launch], Awaitable[Running]]
    shared_folder: Path

    async def __call__(
        self,
        folder: str = "s1",
        *,
        session: str = "",
        resume: Path | None = None,
        plays: Behaviour = PLAIN,
        flags: Sequence[str] = (),
    ) -> Running:
        """A CLI of a session. What is slow is so with every message, a fault meets those with STUMBLE."""
        return await self.start(
            self.launch(folder, session=session or new_id(), resume=resume, plays=plays, flags=flags)
        )

    def launch(
        self,
        folder: str,
        *,
        session: str | None = None,
        resume: Path | None = None,
        plays: Behaviour = PLAIN,
        flags: Sequence[str] = (),
    ) -> Launch:
        """How it is started; without a session and nothing to resume it is bound to nobody."""
        self.play(plays)
        plan = launch(
            self.command,
            Spawning(
                folder=self.folder / folder,
                session=session,
                resume=resume,
                model=MODEL if session or resume else None,
                environment={**self.environment, **(_settings(plays) if self.emulated else {})},
            ),
        )
        return Launch((*plan.argv, *flags), plan.env, plan.cwd, plan.folders)

    def play(self, plays: Behaviour) -> None:
        """From now on the stand-in API does this."""
        faulty = plays.error or plays.hang_after >= 0
        self.api.behaviour = PLAIN if faulty else plays
        self.api.on = {STUMBLE: plays} if faulty else {}
        if plays.cut_after >= 0:
            self.api.behaviour = PLAIN
            self.api.once.append(plays)

    async def shared(self) -> Running:
        """For what leaves no trace: a CLI in the middle of some conversation, idle; others use it, too."""
        if self.emulated:
            return await self("shared")
        self.play(PLAIN)
        if self.warm and self.warm[0].process.running:
            return await _drained(self.warm[0], f"drain-{new_id()}")
        running = await self.start_shared(self.launch(str(self.shared_folder), session=new_id()))
        self.warm[:] = [running]
        return running

    def on_disk(self, folder: str = "s1") -> list[bytes]:
        """The transcript that its only session has written there so far."""
        projects = self.folder / folder / "home" / ".claude" / "projects"  # beside it files come and go
        paths = list(projects.rglob("*.jsonl")) if projects.exists() else []
        return paths[0].read_bytes().splitlines() if paths else []


def _settings(plays: Behaviour) -> dict[str, str]:
    """The emulator's, for what the stand-in API does."""
    faults = {
        f"error:{plays.error}": plays.error,
        f"retry:{plays.cut_after}": plays.cut_after >= 0,
        f"hang:{plays.hang_after}": plays.hang_after >= 0,
        "tool": plays.tool,
    }
    settings = {
        "RATE": plays.rate or 1_000_000,
        "TTFT_MS": plays.ttft * 1000,
        "DELTAS": plays.deltas or "",
        "FAULT": next((fault for fault, played in faults.items() if played), ""),
        "FAULT_ON": STUMBLE if plays.error or plays.hang_after >= 0 else "",
    }
    return {f"WARMWIRE_EMULATOR_{name}": str(value) for name, value in settings.items()}


async def _drained(cli: Running, request: str) -> Running:
    """What it has said before is forgotten, what it still does is stopped."""
    cli.process.write(interrupt_line(request))
    await cli.until(ControlReply, lambda reply: reply.request_id == request)
    return cli


# --- asking and hearing ----------------------------------------------------------------------------------


def new_id() -> str:
    return str(uuid.uuid4())


async def ask(cli: Running, content: Content, message: str = "") -> tuple[Sequence[object], Result]:
    """One turn: all that the CLI says, and the result."""
    cli.process.write(user_line(content, message or new_id()))
    return await cli.until(Result)


def text_of(heard: Sequence[object]) -> str:
    deltas = (json.loads(line.event).get("delta", {}) for line in heard if isinstance(line, StreamEvent))
    return "".join(delta.get("text", "") for delta in deltas)


def types(heard: Sequence[object]) -> list[str]:
    return [line.type for line in heard if isinstance(line, StreamEvent)]


def is_delta(line: StreamEvent) -> bool:
    return line.type == "content_block_delta"


# --- transcripts -----------------------------------------------------------------------------------------


def entries(heard: Sequence[object]) -> list[bytes]:
    return [entry for line in heard if isinstance(line, Mirror) for entry in line.entries]


async def written(folder: Path, lines: list[bytes]) -> Path:
    """A transcript, ready to be resumed there."""
    path = transcript_path(folder, session_of(lines[-1]))

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(line + b"\n" for line in lines))

    await asyncio.to_thread(write)
    return path


def typed(lines: list[bytes]) -> list[str]:
    """What the user says in these entries."""
    found = (json.loads(line) for line in lines if line.endswith(b"}"))  # the last may be half written
    return [entry["message"]["content"] for entry in found if entry["type"] == "user"]
