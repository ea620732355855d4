"""What waits for one connection: the ladder for a viewer that does not keep up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from warmwire.broker.wire.envelope import Cursor, Envelope
from warmwire.broker.wire.names import SessionKey
from warmwire.edge.delivery import sse
from warmwire.edge.delivery.merge import merged
from warmwire.edge.delivery.outbox import Channel, Encoder, Outbox
from warmwire.edge.delivery.viewing import Viewing

KEY = SessionKey("default", "s1")


def delta(seq: int, text: str, index: int = 0, turn: str = "t") -> Envelope:
    """A text delta."""
    event = {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}
    raw = json.dumps(event, separators=(",", ":")).encode()
    return Envelope(7, seq, turn, 1, "content_block_delta", raw)


def stop(seq: int) -> Envelope:
    """No delta."""
    return Envelope(7, seq, "t", 1, "content_block_stop", b'{"type":"content_block_stop","index":0}')


def text(envelope: Envelope) -> str:
    """What a delta adds."""
    return str(json.loads(envelope.event)["delta"]["text"])


def channel() -> Channel:
    """A turn as one connection is told of it."""
    return Channel(KEY, "t", Encoder(sse.encode))


async def frames(outbox: Outbox) -> list[bytes]:
    """What has gathered."""
    return [frame for frame, _, _ in (await outbox.take())[0]]


# -- merging


def test_neighbours_of_one_block_become_one_delta_that_says_where_it_begins() -> None:
    (one,) = merged([delta(4, 'a"'), delta(5, "\n\\"), delta(6, "é🙂")])
    assert text(one) == 'a"\n\\é🙂'
    assert json.loads(one.event)["from"] == "t.7.4"
    assert one.cursor == Cursor("t", 7, 6)


def test_halves_of_a_surrogate_pair_in_two_deltas_become_one_character() -> None:
    shape = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}'
    halves = [
        delta(1, "")._replace(event=shape % b"\\ud83d"),
        delta(2, "")._replace(event=shape % b"\\ude42"),
    ]
    (one,) = merged(halves)
    assert text(one) == "🙂"


def test_what_is_merged_merges_again() -> None:
    (one,) = merged([delta(1, "a"), delta(2, "b")])
    (both,) = merged([one, delta(3, "c")])
    assert ("abc", "t.7.1", 3) == (text(both), json.loads(both.event)["from"], both.seq)


def test_blocks_turns_holes_and_other_events_stay_apart() -> None:
    apart = [
        delta(1, "a"),
        delta(2, "b", index=1),
        stop(3),
        delta(4, "c"),
        delta(6, "d"),
        delta(7, "e", turn="u"),
    ]
    assert apart == list(merged(apart))


def test_no_merged_delta_is_larger_than_clients_take() -> None:
    pieces = list(merged([delta(seq, "x" * 1000) for seq in range(1, 1001)]))
    assert max(len(piece.event) for piece in pieces) <= 65 * 1024
    assert len("".join(map(text, pieces))) == 1_000_000
    assert len(pieces) < 20


def test_a_delta_of_another_shape_is_sent_as_it_is() -> None:
    odd = delta(2, "")._replace(
        event=b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a","x":"b"}}'
    )
    assert [delta(1, "a"), odd, delta(3, "c")] == list(merged([delta(1, "a"), odd, delta(3, "c")]))


def test_an_unmerged_delta_is_the_very_same() -> None:
    only = delta(1, "a")
    assert next(merged([only])) is only


# -- who keeps up


async def test_who_keeps_up_gets_every_delta_as_it_was_made() -> None:
    outbox, to = Outbox(10_000), channel()
    for seq in (1, 2, 3):
        outbox.show(to, delta(seq, "x"))
    assert [sse.encode(delta(seq, "x"), "t", "s1") for seq in (1, 2, 3)] == await frames(outbox)
    assert to.cursor == Cursor("t", 7, 3)


# -- who does not


async def test_who_is_slow_gets_what_waited_in_one_piece() -> None:
    outbox, to = Outbox(10_000), channel()
    outbox.slow = True
    for item in (delta(1, "a"), delta(2, "b"), stop(3), delta(4, "c")):
        outbox.show(to, item)
    assert [b'"ab"' in frame or b"stop" in frame or b'"c"' in frame for frame in await frames(outbox)] == [
        True
    ] * 3


async def test_what_waits_is_merged_before_anything_is_forgotten() -> None:
    outbox, to = Outbox(2_000), channel()
    await taken_once(outbox, to)
    for seq in range(2, 102):
        outbox.show(to, delta(seq, "x"))
    assert not to.behind
    assert b"x" * 50 in (await frames(outbox))[0]


async def taken_once(outbox: Outbox, to: Channel) -> None:
    """The connection has taken something: from now on its bound holds."""
    outbox.show(to, delta(1, "x"))
    await frames(outbox)


async def test_past_its_bound_nothing_is_kept_until_the_connection_takes_again() -> None:
    outbox, to = Outbox(2_000), channel()
    await taken_once(outbox, to)
    asked: list[Cursor | None] = []

    async def again() -> None:
        asked.append(to.cursor)
        outbox.show(to, delta(1_000, "all of it"))

    to.again = again
    for seq in range(2, 500):
        outbox.show(to, delta(seq, "x" * 100))
        assert outbox._bytes <= 2_000 + 400
    assert to.behind
    assert outbox.waiting == 0
    (frame,) = await frames(outbox)
    assert b"all of it" in frame
    assert asked == [Cursor("t", 7, 1)]  # from the last one that went out
    assert not to.behind


async def test_only_the_channels_whose_events_are_forgotten_fall_behind() -> None:
    outbox, busy, quiet = Outbox(2_000), channel(), channel()
    await taken_once(outbox, busy)
    outbox.put(b"an answer")
    outbox.show(busy, delta(2, "x" * 3_000))
    assert (True, False) == (busy.behind, quiet.behind)
    outbox.show(quiet, delta(3, "y"))
    assert outbox.waiting == 2


async def test_a_terminal_event_that_is_forgotten_ends_nothing() -> None:
    outbox, to = Outbox(2_000), channel()
    ends: list[bool] = []
    to.at_end = lambda: ends.append(True)
    await taken_once(outbox, to)
    outbox.show(
        to, Envelope(7, 2, "t", 1, "turn_completed", b'{"type":"turn_completed","x":"%b"}' % (b"x" * 3_000))
    )
    assert ends == []
    to.behind = False
    outbox.show(to, Envelope(7, 2, "t", 1, "turn_completed", b'{"type":"turn_completed"}'))
    assert ends == [True]


async def test_who_asks_and_does_not_read_is_let_go() -> None:
    outbox, to = Outbox(2_000), channel()
    await taken_once(outbox, to)
    for _ in range(100):
        outbox.put(b"x" * 100)
    assert outbox.gone


# -- gathering


async def test_the_first_delta_of_each_turn_is_not_delayed_and_the_next_ones_come_together() -> None:
    outbox, to = Outbox(10_000, rollup=30), channel()
    outbox.show(to, delta(1, "first"))
    assert len(await frames(outbox)) == 1
    outbox.show(to, delta(2, "a"))
    outbox.show(to, delta(3, "b"))
    taking = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    assert not taking.done()
    outbox.show(to, delta(4, "of the next turn", turn="u"))
    gathered, _ = await taking
    assert [b'"ab"' in gathered[0][0], b"next turn" in gathered[1][0]] == [True, True]


async def test_what_is_gathered_goes_when_its_time_has_come() -> None:
    outbox, to = Outbox(10_000, rollup=0.01), channel()
    for seq, letter in enumerate("abc", 1):
        outbox.show(to, delta(seq, letter))
        if seq == 1:
            await frames(outbox)
    (frame,) = await frames(outbox)
    assert b'"bc"' in frame


# -- at once


class Line:
    """What was written at once, by a connection that may be told to refuse."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.full = False

    def write(self, frame: bytes) -> bool:
        """As a connection does."""
        if not self.full:
            self.written.append(frame)
        return not self.full


def numbers(written: list[bytes]) -> list[str]:
    """The texts of these frames."""
    datas = [line[6:] for frame in written for line in frame.split(b"\n") if line.startswith(b"data: {")]
    return [json.loads(data)["delta"]["text"] for data in datas]


async def test_an_event_is_written_at_once_where_none_waits() -> None:
    outbox, line, told = Outbox(10_000), Line(), channel()
    outbox.allow_at_once(line.write)
    outbox.show(told, delta(1, "1"))
    assert [] == line.written  # what was there before the connection began to write goes first
    assert ["1"] == numbers(await frames(outbox))
    outbox.show(told, delta(2, "2"))
    assert ["2"] == numbers(line.written)
    assert outbox.idle
    assert Cursor("t", 7, 2) == told.cursor


async def test_order_stays_whether_at_once_or_not() -> None:
    outbox, line, told = Outbox(10_000), Line(), channel()
    outbox.allow_at_once(line.write)
    outbox.put(b"first")
    await frames(outbox)
    line.full = True
    outbox.show(told, delta(1, "1"))
    line.full = False
    outbox.show(told, delta(2, "2"))  # one waits
    assert (["1", "2"], []) == (numbers(await frames(outbox)), line.written)
    outbox.show(told, delta(3, "3"))
    assert ["3"] == numbers(line.written)


async def test_nothing_is_at_once_for_who_is_slow_or_wants_deltas_gathered() -> None:
    for outbox in (Outbox(10_000), Outbox(10_000, rollup=60)):
        line = Line()
        outbox.allow_at_once(line.write)
        outbox.put(b"first")
        await frames(outbox)
        outbox.slow = not outbox._rollup
        told = channel()
        for seq in (1, 2, 3):
            outbox.show(told, delta(seq, str(seq)))
        assert told.sent is None
        assert [] == line.written
        assert not outbox.idle


# -- catching up


class Followed:
    """What a viewing follows; a test tells it what its feed would."""

    ended = False

    def __init__(self, view: Viewing) -> None:
        self._sink: Callable[[Envelope], None] | None = view.show

    def tell(self, item: Envelope) -> None:
        """An event from the feed."""
        if self._sink is not None:
            self._sink(item)

    def mute(self) -> None:
        """As the real one."""
        self._sink = None

    stop = mute


class Following(Viewing):
    """Asks somebody who takes a while, in which the feed brings the next event."""

    async def follow(self, cursor: Cursor) -> None:
        """As the real one: first what was missed, then what came meanwhile."""
        before, self.followed = self.followed, Followed(self)  # type: ignore[assignment]
        before.tell(delta(9, "9"))  # type: ignore[union-attr]
        await asyncio.sleep(0)
        for seq in range(cursor.seq + 1, 10):
            self.show(delta(seq, str(seq)))


async def test_what_comes_while_a_viewer_is_brought_up_to_date_comes_after_what_it_missed() -> None:
    outbox = Outbox(400)
    view = Following(outbox, channel())
    view.followed = first = Followed(view)  # type: ignore[assignment]
    first.tell(delta(1, "1"))
    assert ["1"] == numbers(await frames(outbox))
    for seq in (2, 3, 4, 5, 6, 7, 8):
        first.tell(delta(seq, "x" * 300))
    assert view.channel.behind
    assert "23456789" == "".join(numbers(await frames(outbox)))
