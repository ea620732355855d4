"""Text deltas that wait are put together: the first rung for a viewer that does not keep up. Pure.

Two deltas become one by joining what stands between their quotes, so nothing is parsed or encoded. The
merged event carries ``from``, the cursor of the first delta in it; its own cursor is that of the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from warmwire.broker.wire.envelope import Envelope

_DELTA = re.compile(
    rb'(\{"type":"content_block_delta","index":[0-9]+,)(?:"from":"([^"\\]*)",)?'
    rb'"delta":\{"type":"text_delta","text":"((?:[^"\\]|\\.)*+)"\}\}\Z'
)
"""A text delta as it is printed; of any other shape it is sent as it is."""

MERGED_BYTES = 64 * 1024
"""Bytes of text in one merged event, about, at most; clients have limits for what comes in one piece."""


def is_text(envelope: Envelope) -> bool:
    """Whether the event is a text delta, and so may wait for company."""
    return envelope.type == "content_block_delta" and b'"text_delta"' in envelope.event


def merged(envelopes: Iterable[Envelope]) -> Iterator[Envelope]:
    """The same events; neighbours of one block, with nothing between them, as one."""
    run: _Run | None = None
    for envelope in envelopes:
        if run is not None and run.takes(envelope):
            continue
        if run is not None:
            yield run.whole()
        run = _Run(envelope)
    if run is not None:
        yield run.whole()


class _Run:
    def __init__(self, first: Envelope) -> None:
        self._first = self._last = first
        self._shape = _DELTA.match(first.event) if is_text(first) else None
        self._texts: list[bytes] = []
        self._bytes = len(first.event)

    def takes(self, envelope: Envelope) -> bool:
        last = self._last
        adjacent = envelope[:4] == (last.epoch, last.seq + 1, last.turn, last.attempt)
        full = self._bytes + len(envelope.event) > MERGED_BYTES
        if self._shape is None or full or not adjacent or not is_text(envelope):
            return False
        shape = _DELTA.match(envelope.event)
        if shape is None or shape[1] != self._shape[1] or shape[2] is not None:
            return False
        self._texts.append(shape[3])
        self._last = envelope
        self._bytes += len(shape[3])
        return True

    def whole(self) -> Envelope:
        first, shape = self._first, self._shape
        if shape is None or not self._texts:
            return first
        begins = shape[2] or str(first.cursor).encode()
        event = b'%b"from":"%b","delta":{"type":"text_delta","text":"%b%b"}}' % (
            shape[1],
            begins,
            shape[3],
            b"".join(self._texts),
        )
        return self._last._replace(event=event)
