"""The envelope: an event travels byte for byte, and nothing alien passes for one."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmwire.broker.errors import BadEnvelope, BadInput
from warmwire.broker.wire.envelope import (
    CURSOR_LIMIT,
    END,
    Cursor,
    Envelope,
    EnvelopeWriter,
    Position,
    decode,
    event_type,
)

COUNTS = st.integers(1, END)
NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
EVENTS = st.builds(
    lambda kind, rest, tight, plain: json.dumps(
        {"type": kind, **{key: value for key, value in rest.items() if key != "type"}},
        separators=(",", ":") if tight else None,
        ensure_ascii=plain,
    ).encode("utf-8", "surrogatepass"),
    st.text(st.characters(codec="utf-8")),
    st.dictionaries(st.text(st.characters(codec="utf-8")), JSON),
    st.booleans(),
    st.just(True),
)
VALID = {"v": 1, "epoch": 7, "seq": 42, "turn": "t1", "attempt": 1, "event": {"type": "ping"}}


def encoded(**changes: object) -> bytes:
    return json.dumps({**VALID, **changes}).encode()


class TestARoundTrip:
    @given(epoch=COUNTS, seq=COUNTS, turn=NAMES, attempt=COUNTS, event=EVENTS)
    def test_gives_back_what_went_in(
        self, epoch: int, seq: int, turn: str, attempt: int, event: bytes
    ) -> None:
        decoded = decode(EnvelopeWriter(epoch, turn, attempt).wrap(seq, event))
        assert Envelope(epoch, seq, turn, attempt, json.loads(event)["type"], event) == decoded

    @pytest.mark.parametrize(
        "event",
        [
            b'{"type":"content_block_delta","delta":{"text":"{\\"event\\":1}"}}',
            b'{ "type" : "ping" }',
            '{"type":"ping","text":"Grüße 🦊 \u2028"}'.encode(),
            b'{"type":"ping","number":1.0e5,"text":"\\u00fc\\/"}',
        ],
    )
    def test_leaves_every_byte_of_the_event(self, event: bytes) -> None:
        assert event == decode(EnvelopeWriter(7, "t1", 1).wrap(42, event)).event

    def test_is_readable_on_the_wire(self) -> None:
        expected = b'{"v":1,"epoch":7,"seq":42,"turn":"t1","attempt":2,"event":{"type":"ping"}}'
        assert expected == EnvelopeWriter(7, "t1", 2).wrap(42, b'{"type":"ping"}')


class TestTheTypeOfAnEvent:
    @pytest.mark.parametrize(
        ("event", "kind"),
        [
            (b'{"type":"ping"}', "ping"),
            (b'{"index":0,"type":"content_block_delta"}', "content_block_delta"),
            (b'{"delta":{"type":"text_delta"},"type":"content_block_delta"}', "content_block_delta"),
            (b'{ "type": "ping" }', "ping"),
            (b'{"type":"p\\u0069ng"}', "ping"),
            (b'{"type":""}', ""),
        ],
    )
    def test_is_found_wherever_it_stands(self, event: bytes, kind: str) -> None:
        assert kind == event_type(event)

    @pytest.mark.parametrize(
        "event",
        [
            b"",
            b"42",
            b"null",
            b"[]",
            b"{}",
            b'{"type":1}',
            b'{"type":"a',
            b'{"type":"\xff"}',
            b'{"type":null}',
        ],
    )
    def test_is_missed(self, event: bytes) -> None:
        with pytest.raises(BadEnvelope):
            event_type(event)

    def test_tells_what_ends_a_turn(self) -> None:
        assert decode(encoded(event={"type": "turn_failed"})).terminal
        assert not decode(encoded(event={"type": "message_stop"})).terminal


class TestWhatIsAlien:
    @given(st.binary())
    def test_is_refused_whatever_it_is(self, data: bytes) -> None:
        with pytest.raises(BadEnvelope):
            decode(data)

    @given(data=st.data())
    def test_is_refused_or_read_when_it_was_an_envelope_once(self, data: st.DataObject) -> None:
        whole = bytearray(encoded())
        where = data.draw(st.integers(0, len(whole) - 1))
        whole[where : where + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
        try:
            decoded = decode(bytes(whole))
        except BadEnvelope:
            return
        assert json.loads(decoded.event)
        assert decoded.cursor == Cursor.parse(str(decoded.cursor))

    @pytest.mark.parametrize(
        "changes",
        [
            {"epoch": 0},
            {"epoch": -1},
            {"epoch": 1.5},
            {"epoch": "1"},
            {"epoch": END + 1},
            {"seq": 0},
            {"seq": END + 1},
            {"seq": None},
            {"turn": ""},
            {"turn": "a.b"},
            {"turn": "a\nid: 1"},
            {"turn": "t" * 65},
            {"attempt": 0},
            {"event": None},
            {"event": []},
            {"event": {}},
        ],
        ids=str,
    )
    def test_is_refused_for_one_field(self, changes: dict[str, object]) -> None:
        with pytest.raises(BadEnvelope):
            decode(encoded(**changes))

    @pytest.mark.parametrize("missing", VALID)
    def test_is_refused_for_a_missing_field(self, missing: str) -> None:
        with pytest.raises(BadEnvelope):
            decode(json.dumps({key: value for key, value in VALID.items() if key != missing}).encode())

    @pytest.mark.parametrize(
        "event",
        [
            b'{"type":"ping","text":"\xff"}',
            b'{"type":"ping","nested":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        ],
        ids=["text that is not UTF-8", "endless nesting"],
    )
    def test_is_refused_though_the_event_is_not_read(self, event: bytes) -> None:
        with pytest.raises(BadEnvelope):
            decode(EnvelopeWriter(7, "t1", 1).wrap(42, event))

    def test_of_another_version_is_refused_and_told_so(self) -> None:
        with pytest.raises(BadEnvelope, match="version 2, this is version 1"):
            decode(encoded(v=2))

    def test_is_no_field_that_a_later_version_adds(self) -> None:
        assert decode(encoded()) == decode(encoded(later={"a": [1]}))


class TestACursor:
    @given(turn=NAMES, epoch=st.integers(0, END), seq=st.integers(0, END))
    def test_is_read_as_it_was_written(self, turn: str, epoch: int, seq: int) -> None:
        assert Cursor(turn, epoch, seq) == Cursor.parse(str(Cursor(turn, epoch, seq)))

    @given(turn=NAMES, epoch=st.integers(0, END), seq=st.integers(0, END))
    def test_is_short_and_plain(self, turn: str, epoch: int, seq: int) -> None:
        text = str(Cursor(turn, epoch, seq))
        assert len(text) < CURSOR_LIMIT
        assert re.fullmatch(r"[A-Za-z0-9._-]+", text)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "t1",
            "t1.1",
            "t1.1.2.3",
            "t1.1.-2",
            "t1.1.+2",
            "t1.1.2 ",
            " t1.1.2",
            "t1.1.2\n",
            "t1.1.2\r\ndata: x",
            "t1.1.1_0",
            "t1.0x1.2",
            "t1.1.\N{ARABIC-INDIC DIGIT ONE}",
            "*.1.2",
            ">.1.2",
            ".1.2",
            f"{'t' * 65}.1.2",
            f"t1.1.{END + 1}",
            f"t1.{'9' * 20}.1",
            "t1.1.2" + "0" * 100_000,
        ],
    )
    def test_that_was_not_given_out_is_refused(self, text: str) -> None:
        with pytest.raises(BadInput, match="cursor"):
            Cursor.parse(text)

    @given(st.text())
    def test_of_any_text_is_refused_or_harmless(self, text: str) -> None:
        try:
            cursor = Cursor.parse(text)
        except BadInput:
            return
        assert len(str(cursor)) < CURSOR_LIMIT

    def test_stands_where_its_event_stands(self) -> None:
        envelope = decode(encoded())
        assert Cursor("t1", 7, 42) == envelope.cursor
        assert Position(7, 42) == envelope.position == envelope.cursor.position


def test_positions_are_ordered_by_epoch_then_by_sequence() -> None:
    ordered = [Position(1, 1), Position(1, 2), Position(1, END), Position(2, 0), Position(2, 1)]
    assert ordered == sorted(Position(*each) for each in {*ordered})


def test_a_writer_takes_checked_turn_ids_only() -> None:
    with pytest.raises(BadInput, match="turn"):
        EnvelopeWriter(7, 'a","x":"', 1)
