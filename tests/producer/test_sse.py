"""Frames out of bytes: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from warmwire.producer import NotAnEdge
from warmwire.producer.sse import FRAME_LIMIT, Frame, Parser

STREAM = (
    b"id: t.0.0\n\nretry: 1000\n\n:\nevent: a\ndata: one \xc3\xa9\nid: t.1.1\n\n"
    b"data:two\r\ndata: lines\r\nid:t.1.2\r\n\r\nnonsense\rdata:  spaced\r\rdata: [DONE]\n\ndata: not whole\n"
)
FRAMES = [
    Frame(id="t.0.0"),
    Frame(retry=1000),
    Frame("a", "one é", "t.1.1"),
    Frame(data="two\nlines", id="t.1.2"),
    Frame(data=" spaced"),
    Frame(data="[DONE]"),
]


def test_only_the_first_colon_ends_a_name() -> None:
    (frame,) = Parser().feed(b'data: {"a": 1}\nid: t:1:2\n\n')
    assert ('{"a": 1}', "t:1:2") == (frame.data, frame.id)


def test_what_is_no_utf_8_is_replaced() -> None:
    assert [Frame(data="a\ufffdb")] == Parser().feed(b"data: a\xffb\n\n")


def test_a_frame_may_have_its_limit() -> None:
    parser, line = Parser(), b"data: " + b"x" * 10_000
    for _ in range(FRAME_LIMIT // len(line)):
        assert [] == parser.feed(line + b"\n")
    (frame,) = parser.feed(b"\n")
    assert FRAME_LIMIT // len(line) == frame.data.count("\n") + 1


def test_a_comment_that_keeps_the_connection_alive_is_no_frame() -> None:
    assert [] == Parser().feed(b":\n\n\n\r\n")


def test_a_stream_in_one_piece() -> None:
    assert Parser().feed(STREAM) == FRAMES


@example([*range(len(STREAM))])
@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_a_stream_in_any_pieces(cuts: list[int]) -> None:
    parser, places = Parser(), [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(places)]
    assert [frame for piece in pieces for frame in parser.feed(piece)] == FRAMES


@pytest.mark.parametrize("line", [b"id: a\0b", b"retry: soon", b"retry: -1", b"other: x"])
def test_what_cannot_be_used_is_ignored(line: bytes) -> None:
    assert Parser().feed(line + b"\n\n") == [Frame()]


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 1_000_000, b"data: " + b"x" * 1_000_000 + b"\n"])
def test_a_frame_has_a_limit(piece: bytes) -> None:
    parser = Parser()

    def endless() -> None:
        for _ in range(20):
            parser.feed(piece)

    with pytest.raises(NotAnEdge, match=str(FRAME_LIMIT)):
        endless()
