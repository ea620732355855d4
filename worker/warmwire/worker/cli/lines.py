"""Framing: bytes as a pipe gives them in, whole lines out. No I/O; every delta passes here once."""

from __future__ import annotations

# Bytes. The CLI repeats a whole answer in one line, so this is the longest answer with some room.
LINE_LIMIT = 8 * 1024 * 1024
# Bytes kept of a line over the limit: enough to say in a log what it was.
HEAD = 256


class LineTooLong(bytes):
    """Stands in for a line over the limit and holds its first bytes, which therefore never parse."""

    __slots__ = ()


class Lines:
    """Collects chunks of any size into lines of at most `limit` bytes.

    A line over the limit comes out once, as `LineTooLong`, in its place and as soon as it is known to be too
    long; the rest of it is dropped. The memory held is bounded by the limit plus one chunk.
    """

    __slots__ = ("_limit", "_parts", "_size", "_skipping")

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        # Of the unfinished line; joined once, so that a long line costs no more per byte.
        self._parts: list[bytes] = []
        self._size = 0
        self._skipping = False  # inside a line that has already come out as LineTooLong

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes, without their newlines."""
        if not self._size and not self._skipping and chunk[-1:] == b"\n" and len(chunk) <= self._limit:
            return chunk[:-1].split(b"\n")  # the usual case: a pipe write is one or more whole lines
        lines: list[bytes] = []
        *ended, tail = chunk.split(b"\n")
        for piece in ended:
            self._add(piece, lines)
            self._end(lines)
        self._add(tail, lines)
        return lines

    def _add(self, piece: bytes, lines: list[bytes]) -> None:
        if self._skipping or not piece:
            return
        self._parts.append(piece)
        self._size += len(piece)
        if self._size > self._limit:
            lines.append(LineTooLong(b"".join(self._parts)[:HEAD]))
            self._clear(skipping=True)

    def _end(self, lines: list[bytes]) -> None:
        if not self._skipping:
            lines.append(b"".join(self._parts))
        self._clear(skipping=False)

    def _clear(self, *, skipping: bool) -> None:
        self._parts.clear()
        self._size = 0
        self._skipping = skipping
