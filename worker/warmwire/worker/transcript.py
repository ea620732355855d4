"""Transcripts as they are stored: a list of appends, each some lines of JSON. Pure.

Each new ownership of a session that had an owner begins with an ``epoch`` entry: it moves the subject's
last sequence, so that an append of the owner before is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

APPEND_LIMIT = 512 * 1024
"""Bytes of one append; more entries become several appends."""

_EPOCH = b'{"type":"epoch",'


def epoch_entry(epoch: int) -> bytes:
    """The append that begins an ownership."""
    return b'%b"epoch":%d}' % (_EPOCH, epoch)


def appends(entries: Iterable[bytes]) -> list[bytes]:
    """Entries, joined into appends of ``APPEND_LIMIT`` bytes at most; a single entry may be longer."""
    joined: list[bytes] = []
    for entry in entries:
        if joined and len(joined[-1]) + len(entry) < APPEND_LIMIT:
            joined[-1] += b"\n" + entry
        else:
            joined.append(entry)
    return joined


def conversation(stored: Sequence[bytes]) -> bytes:
    """The transcript file's content; empty when there has been no conversation yet."""
    lines = [line for append in stored for line in append.split(b"\n") if not line.startswith(_EPOCH)]
    return b"".join(line + b"\n" for line in lines)
