"""Server-sent events out of bytes, in whatever pieces these come. Pure.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from warmwire.producer.errors import NotAnEdge

FRAME_LIMIT = 16 * 1024 * 1024
"""Bytes of one frame, at most; no edge sends one of a tenth of that."""

_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Frame:
    """What one blank line has ended. ``id`` and ``retry`` (ms) are absent where it had none."""

    event: str = "message"
    data: str = ""
    id: str | None = None
    retry: int | None = None


class Parser:
    """Takes bytes, gives frames. What the last blank line has not ended is no frame yet."""

    def __init__(self) -> None:
        self._rest = b""
        self._lines: list[bytes] = []
        self._bytes = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now. Raises NotAnEdge at ``FRAME_LIMIT``."""
        self._rest += data
        if len(self._rest) + self._bytes > FRAME_LIMIT:
            raise NotAnEdge(f"a frame of more than {FRAME_LIMIT} bytes")
        held = b"\r" if self._rest.endswith(b"\r") else b""  # a line feed may follow: they are one line end
        *lines, rest = _LINE_END.split(self._rest.removesuffix(held) if held else self._rest)
        self._rest = rest + held
        return [frame for line in lines if (frame := self._line(line)) is not None]

    def _line(self, line: bytes) -> Frame | None:
        if line.startswith(b":"):  # a comment
            return None
        if line:
            self._lines.append(line)
            self._bytes += len(line)
            return None
        lines, self._lines, self._bytes = self._lines, [], 0
        return _frame(lines) if lines else None


def _frame(lines: list[bytes]) -> Frame | None:
    event, data, id_, retry = "message", list[str](), None, None
    for line in lines:
        name, _, value = line.decode(errors="replace").partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                event = value
            case "data":
                data.append(value)
            case "id" if "\0" not in value:
                id_ = value
            case "retry" if value.isascii() and value.isdigit():
                retry = int(value)
            case _:
                pass  # what is not known, or cannot be used, is to be ignored
    return Frame(event, "\n".join(data), id_, retry)
