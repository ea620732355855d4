"""A session and its transcript: where it lies, what it says, how a conversation is taken up again."""

from __future__ import annotations

import posix

from warmwire.worker.emulation.codec import decode, line, new_uuid, refuse, usage, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from warmwire.worker.emulation.codec import Json

DEFAULT_MODEL = "warmwire-emulator"
INTERRUPTED = [{"type": "text", "text": "[Request interrupted by user]"}]
UUID_PARTS = [8, 4, 4, 4, 12]


class Session:
    """What one process keeps from turn to turn; all of it that has to survive is in the transcript."""

    def __init__(self, session_id: str, folder: str, flags: Mapping[str, str]) -> None:
        self.id = session_id
        self.path = f"{folder}/{session_id}.jsonl"
        self.cwd = posix.getcwd()
        self.model = flags.get("--model") or DEFAULT_MODEL
        self.permission_mode = flags.get("--permission-mode") or "default"
        launched = self.permission_mode == "bypassPermissions"
        bypassing = {"--dangerously-skip-permissions", "--allow-dangerously-skip-permissions"}
        self.may_bypass = launched or not bypassing.isdisjoint(flags)
        self.replays = "--replay-user-messages" in flags
        self.persists = "--no-session-persistence" not in flags
        self.mirrors = self.persists and "--session-mirror" in flags
        self.leaf: str | None = None  # uuid of the last transcript entry
        self.earlier: list[str] = []  # the text of every user message that was given to the model
        self.answered: set[str] = set()  # uuids of messages that the transcript holds an answer to
        self.results = 0
        self.failed = False  # whether the last result was an error: the exit code tells
        self.microdollars = 0
        self.token = ""

    def recollect(self, entries: list[Json], at: str | None, drops: str | None) -> None:
        """Take over the conversation of a transcript, up to the entry `at`, which only `drops` may follow."""
        kept = branch(entries)
        if at and at not in [entry["uuid"] for entry in kept]:
            refuse(f"No message found with message.uuid of: {at}")
        while at and kept[-1]["uuid"] != at:
            entry = kept.pop()
            if drops and prompt_of(entry) is not None and entry["uuid"] != drops:
                refuse(f"Resume rejected by --resume-drops-turn: it would also drop {entry['uuid']}")
        self.leaf = kept[-1]["uuid"] if kept else None
        self.earlier = [text for text in map(prompt_of, kept) if text is not None]
        self.answered = {entry["parentUuid"] for entry in entries if entry.get("parentUuid")} - {drops}

    def remember(self, entry: Json) -> None:
        """Append to the transcript; opened each time, so that whoever moves the file may."""
        if not self.persists:
            return
        make_folder(self.path.rpartition("/")[0])
        fd = posix.open(self.path, posix.O_RDWR | posix.O_CREAT | posix.O_APPEND, 0o600)
        size = posix.fstat(fd).st_size
        torn = size > 0 and posix.pread(fd, 1, size - 1) != b"\n"  # by a crash
        write(fd, b"\n" * torn + line(**entry))
        posix.close(fd)

    def lifecycle(self, uuid: str | None, state: str) -> bytes:
        """The receipt for a message; one that came without a uuid gets none."""
        ids = {"uuid": new_uuid(), "session_id": self.id}
        return line(type="command_lifecycle", command_uuid=uuid, state=state, **ids) if uuid else b""


def text_of(content: object) -> str:
    """The text of a message; a block that is not text is named."""
    if isinstance(content, str):
        return content
    blocks = blocks_of(content)
    return "\n".join(str(b.get("text")) if b.get("type") == "text" else f"[{b.get('type')}]" for b in blocks)


def blocks_of(content: object) -> list[Json]:
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def prompt_of(entry: Json) -> str | None:
    """The text of the user message that an entry holds, if it holds one."""
    content = entry["message"].get("content") if entry.get("type") == "user" else INTERRUPTED
    is_result = any(block.get("type") == "tool_result" for block in blocks_of(content))
    return None if content == INTERRUPTED or is_result or entry.get("isMeta") else text_of(content)


def branch(entries: list[Json]) -> list[Json]:
    """The entries that lead to the last one; what a resume cut off lies on another branch."""
    kept: list[Json] = []
    for entry in reversed(entries):
        if not kept or entry["uuid"] == kept[-1].get("parentUuid"):
            kept.append(entry)
    return kept[::-1]


def read_entries(path: str) -> list[Json]:
    entries = []
    with open(path, "rb") as transcript:  # noqa: PTH123 - pathlib would cost megabytes
        for raw in transcript:
            try:
                entry = decode(raw)
            except ValueError:
                continue  # torn by a crash
            if isinstance(entry, dict) and entry.get("uuid"):
                entries.append(entry)
    return entries


def exists(path: str) -> bool:
    return posix.access(path, posix.F_OK)


def make_folder(path: str) -> None:
    if path and not exists(path):
        make_folder(path.rpartition("/")[0])
        posix.mkdir(path, 0o700)


def open_session(flags: Mapping[str, str], env: Mapping[str, str]) -> Session:
    cwd = posix.getcwd()
    config = env.get("CLAUDE_CONFIG_DIR") or env.get("HOME", cwd) + "/.claude"
    folder = f"{config}/projects/{''.join(c if c.isascii() and c.isalnum() else '-' for c in cwd)}"
    resume, chosen = flags.get("--resume"), flags.get("--session-id")
    if resume and chosen:
        refuse("Error: --session-id with --continue or --resume also needs --fork-session.")
    if resume:
        return resume_session(resume if resume[0] == "/" else f"{folder}/{resume}.jsonl", flags)
    if chosen is not None and [len(part) for part in chosen.split("-")] != UUID_PARTS:
        refuse("Error: Invalid session ID. Must be a valid UUID.")
    session = Session(chosen or new_uuid(), folder, flags)
    if exists(session.path):
        refuse(f"Error: Session ID {session.id} is already in use.")
    return session


def resume_session(path: str, flags: Mapping[str, str]) -> Session:
    folder, _, name = path.rpartition("/")
    session_id = name.removesuffix(".jsonl")
    if not exists(path):
        no_conversation(session_id)
    entries = read_entries(path)
    # As in the real CLI the entries name the session, and it goes on in the folder that it was found in.
    named = [entry["sessionId"] for entry in entries if entry.get("sessionId")]
    session = Session(named[-1] if named else session_id, folder, flags)
    session.recollect(entries, flags.get("--resume-session-at"), flags.get("--resume-drops-turn"))
    return session


def no_conversation(session_id: str) -> NoReturn:
    why = f"No conversation found with session ID: {session_id}"
    numbers = {"duration_ms": 0, "duration_api_ms": 0, "is_error": True, "num_turns": 0, "stop_reason": None}
    about = {"session_id": session_id, "total_cost_usd": 0, "usage": usage(0, 0), "uuid": new_uuid()}
    kind = {"type": "result", "subtype": "error_during_execution"}
    write(1, line(**kind, **numbers, **about, errors=[why], result_index=0))
    refuse(why)
