import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmwire.worker.cli.lines import HEAD, Lines, LineTooLong


def feed(lines: Lines, *chunks: bytes) -> list[bytes]:
    return [line for chunk in chunks for line in lines.feed(chunk)]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ((b"a\n",), [b"a"]),
        ((b"a\nb\n",), [b"a", b"b"]),
        ((b"a", b"\n"), [b"a"]),
        ((b"a\nb", b"c\nd\n"), [b"a", b"bc", b"d"]),
        ((b"a",), []),
        ((b"",), []),
        ((b"\n\n",), [b"", b""]),
        ((b"a", b"\n\nb\n"), [b"a", b"", b"b"]),
        ((b"a\r\n",), [b"a\r"]),
    ],
)
def test_only_whole_lines_come_out(chunks: tuple[bytes, ...], expected: list[bytes]) -> None:
    assert expected == feed(Lines(), *chunks)


# Few letters, so that many lines are about as long as the limit.
STREAMS = st.lists(st.sampled_from([b"a", b"bcd", b"\n"]), max_size=60).map(b"".join)


@given(STREAMS, st.lists(st.integers(0, 60)), st.integers(1, 12))
def test_chunking_changes_nothing(stream: bytes, cuts: list[int], limit: int) -> None:
    edges = [0, *sorted(cuts), len(stream)]
    chunks = [stream[start:end] for start, end in itertools.pairwise(edges)]
    whole, cut = Lines(limit), Lines(limit)
    assert [kind(line) for line in whole.feed(stream)] == [kind(line) for line in feed(cut, *chunks)]


def kind(line: bytes) -> tuple[type, bytes]:
    return type(line), b"" if isinstance(line, LineTooLong) else line  # its head is what had come by then


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)), st.integers(0, 30))
def test_a_line_over_the_limit_comes_out_once_and_in_its_place(lines: list[bytes], limit: int) -> None:
    expected = [(LineTooLong, b"") if len(line) > limit else (bytes, line) for line in lines]
    found = Lines(limit).feed(b"".join(line + b"\n" for line in lines))
    assert expected == [kind(line) for line in found]


def test_a_line_too_long_is_told_before_it_ends() -> None:
    lines = Lines(limit=10)
    assert [] == lines.feed(b"x" * 10)
    (told,) = lines.feed(b"x")
    assert isinstance(told, LineTooLong)
    assert [] == lines.feed(b"x" * 1000)
    assert [] == lines.feed(b"end\n")
    assert [b"next"] == lines.feed(b"next\n")


def test_what_follows_a_line_too_long_in_the_same_chunk_is_a_line() -> None:
    assert [b"next"] == feed(Lines(limit=10), b"x" * 11, b"end\nnext\n")[1:]


def test_a_line_too_long_shows_its_beginning_only() -> None:
    (told,) = Lines(limit=1000).feed(b"begin" + b"x" * 2000)
    assert told.startswith(b"begin")
    assert HEAD == len(told)


def test_a_line_too_long_is_not_kept_in_memory() -> None:
    lines = Lines(limit=10)
    feed(lines, *[b"x" * 1000] * 100)
    assert (0, []) == (lines._size, lines._parts)


def test_a_line_of_many_small_chunks_is_joined_once() -> None:
    lines = Lines()
    assert [] == feed(lines, *[b"x"] * 100_000)
    assert [b"x" * 100_000] == lines.feed(b"\n")
