"""Our pass over what a NATS server sends hands over what nats-py's parser would, wherever it is cut."""

from __future__ import annotations

from collections.abc import Awaitable
from itertools import pairwise
from typing import Any

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as some
from nats.protocol.parser import Parser

from warmwire.broker.nats.client import PART_LIMIT, NatsParser

Handed = tuple[int, bytes, bytes, bytes, bytes | None]


class Client:
    """What a parser tells its client."""

    def __init__(self) -> None:
        self.handed: list[Handed] = []
        self.pings = 0

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self.handed.append((sid, subject, reply, bytes(data), headers or None))

    async def _process_ping(self) -> None:
        self.pings += 1

    async def _process_pong(self) -> None:
        self.pings -= 1

    def hand_over(self, sid: int, subject: bytes, reply: bytes, data: bytes) -> Awaitable[None]:
        return self._process_msg(sid, subject, reply, data, None)


def message(sid: int, data: bytes, reply: bytes = b"") -> bytes:
    head = b" ".join(filter(None, (b"MSG", b"ww.evt.a.b", b"%d" % sid, reply, b"%d" % len(data))))
    return b"%b\r\n%b\r\n" % (head, data)


def with_headers(sid: int, headers: bytes, data: bytes) -> bytes:
    return b"HMSG x %d %d %d\r\n%b%b\r\n" % (sid, len(headers), len(headers) + len(data), headers, data)


_data = some.binary(max_size=40) | some.sampled_from((b"\r\n", b"MSG x 1 1\r\n", b"x" * 300, b""))
_lines = some.one_of(
    some.builds(message, some.integers(1, 99), _data, some.sampled_from((b"", b"_INBOX.a.b"))),
    some.builds(with_headers, some.integers(1, 99), some.just(b"NATS/1.0\r\nA: b\r\n\r\n"), _data),
    some.sampled_from((b"PING\r\n", b"PONG\r\n", b"+OK\r\n")),
)


async def parsed(parser: type[Parser], data: bytes, cuts: list[int]) -> tuple[list[Handed], int]:
    client: Any = Client()
    one = parser(client)
    for begin, end in pairwise([0, *sorted(cuts), len(data)]):
        await one.parse(data[begin:end])
    assert not one.buf
    return client.handed, client.pings


@given(some.lists(_lines, max_size=12), some.data())
async def test_any_stream_cut_anywhere(lines: list[bytes], more: some.DataObject) -> None:
    data = b"".join(lines)
    cuts = more.draw(some.lists(some.integers(0, len(data)), max_size=8))
    assert await parsed(Parser, data, []) == await parsed(NatsParser, data, cuts)


@pytest.mark.parametrize("step", [1000, 32768, PART_LIMIT + 1])
async def test_a_message_that_is_larger_than_what_is_kept(step: int) -> None:
    large = bytes(range(256)) * 1000
    data = message(1, b"before") + message(2, large, b"r") + message(3, b"after")
    handed, _ = await parsed(NatsParser, data, list(range(step, len(data), step)))
    assert [(1, b"before"), (2, large), (3, b"after")] == [(sid, data) for sid, _, _, data, _ in handed]


@pytest.mark.parametrize(
    "line", [b"MSG a b 1\r\nx\r\n", b"MSG a 1 b\r\nx\r\n", b"MSG a\r\n", b"NONSENSE\r\n"]
)
async def test_what_is_no_message_is_a_breach_of_the_protocol(line: bytes) -> None:
    client: Any = Client()
    with pytest.raises(nats.errors.ProtocolError):
        await NatsParser(client).parse(message(1, b"x") + line)
    assert 1 == len(client.handed)
