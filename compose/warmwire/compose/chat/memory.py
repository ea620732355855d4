"""What outlives a chat: what was typed, and which session was used last where. For this user's eyes alone."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, TypeVar

from warmwire.compose.settings import state_folder

HISTORY_LIMIT = 1024 * 1024
"""Bytes of what was typed; past it the older half is dropped."""
SESSIONS_LIMIT = 50
"""Places of which the last session is known."""

T = TypeVar("T")


class Memory:
    """Files in one folder. With ``kept`` false nothing is written, and nothing that was typed is read.

    A chat needs none of it: where a file cannot be used, ``complain`` is told so once, and nothing is kept.
    """

    def __init__(
        self, complain: Callable[[str], None], *, kept: bool = True, folder: Path | None = None
    ) -> None:
        self._folder = folder or state_folder() / "chat"
        self._complain = complain
        self._kept = kept

    def typed(self) -> list[str]:
        """What was typed, the oldest first."""
        return self._tried(lambda: [str(json.loads(line)) for line in self._lines()], [])

    def type(self, text: str) -> None:
        """Keep what was typed."""
        self._tried(lambda: self._append(text), None)

    def last_session(self, place: str) -> str | None:
        """The session that was used last at a place."""
        return self._tried(lambda: self._sessions().get(place), None)

    def used(self, place: str, session: str) -> None:
        """Keep which session was used."""
        self._tried(lambda: self._use(place, session), None)

    def _tried(self, work: Callable[[], T], otherwise: T) -> T:
        if not self._kept:
            return otherwise
        try:
            return work()
        except (OSError, ValueError) as error:
            self._kept = False
            self._complain(f"nothing of this chat is kept: {self._folder}: {error}")
            return otherwise

    def _append(self, text: str) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = json.dumps(text).encode() + b"\n"
        with _opened(self._history, os.O_APPEND) as file:
            file.write(line)
        if self._history.stat().st_size > HISTORY_LIMIT:
            self._write(self._history, _newest(self._lines(), HISTORY_LIMIT // 2))

    def _use(self, place: str, session: str) -> None:
        sessions = self._sessions()
        if sessions.get(place) == session:
            return
        sessions.pop(place, None)
        newest = dict([*sessions.items(), (place, session)][-SESSIONS_LIMIT:])
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write(self._folder / "sessions.json", [json.dumps(newest).encode() + b"\n"])

    @property
    def _history(self) -> Path:
        return self._folder / "history.jsonl"

    def _lines(self) -> list[bytes]:
        try:
            return self._history.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []

    def _sessions(self) -> dict[str, str]:
        try:
            found: dict[str, str] = json.loads((self._folder / "sessions.json").read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def _write(self, path: Path, lines: Iterable[bytes]) -> None:
        """In one step: another chat may write at the same time, and the last one counts."""
        new = path.with_name(f"{path.name}.{os.getpid()}")
        with _opened(new, os.O_TRUNC) as file:
            file.writelines(lines)
        new.replace(path)


def _opened(path: Path, how: int) -> BinaryIO:
    """To be written, by this user alone."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600), "wb")


def _newest(lines: list[bytes], most: int) -> list[bytes]:
    """The last lines, of at most so many bytes together."""
    kept = len(lines)
    while kept and (most := most - len(lines[kept - 1])) >= 0:
        kept -= 1
    return lines[kept:]
