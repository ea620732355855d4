"""Our ends of a child's pipes, here with both ends in one process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from warmwire.worker.machine.pipes import FIRST, Incoming, Outgoing, Rounds

from tests.client import eventually

Pipe = tuple[int, int]
Hear = Callable[[Callable[[bytes], None]], tuple[Incoming, int]]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Read end, write end; the test closes one of them by the object under test."""
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError:  # it was the object's
            continue


def everything(fd: int) -> bytes:
    os.set_blocking(fd, False)
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return b""


async def test_what_does_not_fit_waits_and_follows_in_order(pipe: Pipe) -> None:
    read, write = pipe
    out, sent = Outgoing(os.fdopen(write, "wb", buffering=0)), os.urandom(300_000)
    out.write(sent[:200_000])
    out.write(sent[200_000:])
    assert out.waiting > 0
    out.close()
    got = bytearray()

    def all_is_there() -> bool:
        got.extend(everything(read))
        return len(got) >= len(sent)

    await eventually(all_is_there, "all of it")
    assert sent == bytes(got)
    await eventually(lambda: os.read(read, 1) == b"", "the end, after all of it")


async def test_a_reader_that_is_gone_closes_and_nothing_is_raised(pipe: Pipe) -> None:
    read, write = pipe
    out = Outgoing(os.fdopen(write, "wb", buffering=0))
    out.write(b"x" * 200_000)
    os.close(read)
    await eventually(lambda: out.closing, "it is noticed")
    out.write(b"more")
    assert 0 == out.waiting


async def test_dropping_forgets_what_waits(pipe: Pipe) -> None:
    _, write = pipe
    out = Outgoing(os.fdopen(write, "wb", buffering=0))
    out.write(b"x" * 200_000)
    out.drop()
    out.drop()
    assert (0, True) == (out.waiting, out.closing)


async def test_chunks_come_as_they_are_and_the_end_once(pipe: Pipe) -> None:
    read, write = pipe
    heard: list[bytes | None] = []
    incoming = Incoming(os.fdopen(read, "rb", buffering=0), heard.append, lambda: heard.append(None))
    os.write(write, b"one")
    await eventually(lambda: heard, "the first")
    os.write(write, b"two")
    os.close(write)
    await eventually(lambda: None in heard, "the end")
    incoming.close()
    assert [b"one", b"two", None] == heard


async def test_after_a_close_nothing_is_heard_and_no_foreign_descriptor_is_closed(pipe: Pipe) -> None:
    read, _ = pipe
    heard: list[bytes] = []
    incoming = Incoming(os.fdopen(read, "rb", buffering=0), heard.append, lambda: heard.append(b"end"))
    incoming.close()
    reused = os.open(os.devnull, os.O_WRONLY)
    assert read == reused  # the lowest free number: what a second close would hit
    incoming.close()
    assert 2 == os.write(reused, b"it")
    assert [] == heard


class TestRounds:
    @pytest.fixture
    async def rounds(self) -> AsyncIterator[Rounds]:
        rounds = Rounds(0.001)
        yield rounds
        rounds.close()
        rounds.close()

    @pytest.fixture
    def hear(self, rounds: Rounds) -> Iterator[Hear]:
        """Makes pipes that are read in these rounds; both ends are closed, whatever becomes of the test."""
        with ExitStack() as stack:

            def one(heard: Callable[[bytes], None]) -> tuple[Incoming, int]:
                read, write = os.pipe()
                incoming = Incoming(os.fdopen(read, "rb", buffering=0), heard, lambda: None, rounds)
                stack.callback(incoming.close)
                stack.callback(os.close, write)
                return incoming, write

            yield one

    async def test_read_all_that_has_something_to_say(self, hear: Hear) -> None:
        heard: list[bytes] = []
        pipes = [hear(heard.append) for _ in range(50)]
        for turn in range(3):  # at rest, and again after it
            for number, (_, write) in enumerate(pipes):
                os.write(write, b"%d.%d" % (turn, number))
            await eventually(lambda: len(heard) == 50, "all of them")
            assert {b"%d.%d" % (turn, number) for number in range(50)} == set(heard)
            heard.clear()

    async def test_hear_the_end(self, rounds: Rounds, pipe: Pipe) -> None:
        read, write = pipe
        ends: list[bool] = []
        incoming = Incoming(
            os.fdopen(read, "rb", buffering=0), lambda _: None, lambda: ends.append(True), rounds
        )
        os.close(write)
        await eventually(lambda: ends, "the end")
        incoming.close()
        assert [True] == ends

    async def test_one_that_is_closed_by_another_of_its_round_is_not_read(self, hear: Hear) -> None:
        heard: list[bytes] = []

        def only_me(data: bytes) -> None:
            heard.append(data)
            for each, _ in pipes:
                each.close()

        pipes = [hear(only_me) for _ in range(2)]
        for _, write in pipes:
            os.write(write, b"x")
        await eventually(lambda: heard, "one of them")
        assert [b"x"] == heard

    async def test_keep_the_order_of_one_whose_neighbour_fails(self, hear: Hear) -> None:
        heard, sent = bytearray(), os.urandom(3 * FIRST)

        def fail(_data: bytes) -> None:
            raise KeyError("its own mistake")

        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        (_, to_bad), (_, to_good) = hear(fail), hear(heard.extend)
        os.write(to_bad, b"x")  # ready first, so it is heard first
        os.write(to_good, sent)
        await eventually(lambda: len(heard) == len(sent), "all of it")
        assert failures
        assert sent == bytes(heard)

    async def test_go_on_after_one_that_fails(self, hear: Hear) -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        heard: list[bytes] = []

        def fail(_data: bytes) -> None:
            raise RuntimeError("of its own making")

        (_, to_bad), (_, to_good) = hear(fail), hear(heard.append)
        os.write(to_bad, b"x")
        os.write(to_good, b"y")
        await eventually(lambda: heard and told, "both")
        assert [b"y"] == heard
