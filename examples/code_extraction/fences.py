"""Fenced code blocks out of Markdown that is still being written. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

OPENING = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<info>.*)")


@dataclass(frozen=True)
class Block:
    """A block whose fence has closed. ``language`` is in lower case, empty where none is named."""

    language: str
    code: str


@dataclass(frozen=True)
class _Open:
    """A fence that has opened. One of its kind closes it, at least as long and with nothing behind it."""

    indent: int
    fence: str
    language: str

    def closed_by(self, line: str) -> bool:
        found = line.strip()
        return len(found) >= len(self.fence) and set(found) == {self.fence[0]}

    def opens_inside(self, line: str) -> bool:
        """Whether a block begins within this one: models nest fences of one length in Markdown."""
        inner = _opened(line) if self.language in ("markdown", "md") else None
        return inner is not None and inner.language != "" and self.closed_by(inner.fence)

    def without_indent(self, line: str) -> str:
        return line[min(self.indent, len(line) - len(line.lstrip(" "))) :]


class Fences:
    """Takes text in any pieces; gives each block as soon as the line that closes it is whole."""

    def __init__(self) -> None:
        self._unread = ""
        self._open: _Open | None = None
        self._code: list[str] = []
        self._inside = 0  # blocks that are open within the open one

    @property
    def open(self) -> bool:
        """Whether a block has begun that nothing has closed."""
        return self._open is not None

    def add(self, text: str) -> list[Block]:
        """The blocks that close within ``text``."""
        *lines, self._unread = (self._unread + text).split("\n")
        return [block for line in lines if (block := self._take(line.removesuffix("\r")))]

    def finish(self) -> list[Block]:
        """The text is over: its last line, too, may be a fence that closes."""
        return self.add("\n") if self._unread else []

    def _take(self, line: str) -> Block | None:
        if self._open is None:
            self._open = _opened(line)
            return None
        closes = self._open.closed_by(line)
        if closes and not self._inside:
            block = Block(self._open.language, "".join(self._code))
            self._open, self._code = None, []
            return block
        self._inside += self._open.opens_inside(line) - closes
        self._code.append(self._open.without_indent(line) + "\n")
        return None


def _opened(line: str) -> _Open | None:
    found = OPENING.fullmatch(line)
    if found is None or (found["fence"][0] == "`" and "`" in found["info"]):  # code within a line of text
        return None
    words = found["info"].split()
    return _Open(len(found["indent"]), found["fence"], words[0].strip("{}.").lower() if words else "")
