"""Messages: old readers understand new writers, and no error repeats what was given."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.messages import (
    RECORDED_QUESTION_LIMIT,
    Addressed,
    BoundRecord,
    Claim,
    Claimed,
    Close,
    Content,
    Drain,
    Finished,
    Forward,
    ForwardReply,
    Heartbeat,
    Interrupt,
    InterruptReply,
    Message,
    OwnerRecord,
    OwnerView,
    Permission,
    PermissionReply,
    Question,
    Recently,
    Release,
    Replay,
    SessionRecord,
    SlowTurn,
    Started,
    TicketRecord,
    Tiers,
    TurnOptions,
    UserMessage,
    decode,
    decode_control,
    decode_turn_record,
    decode_worker_control,
)

SECRET = "hunter2"
USER_MESSAGE = UserMessage(turn="t1", content="Hello", sent_ms=1)

EACH = [
    USER_MESSAGE,
    UserMessage(turn="t1", content=({"type": "text", "text": "Grüße 🦊"},), sent_ms=1),
    UserMessage(turn="t1", content="x", options=TurnOptions(model="m", double_texting="reject"), sent_ms=1),
    Addressed(turn="t1", sent_ms=1),
    OwnerRecord(worker="w", nonce="n"),
    OwnerRecord(nonce="n"),
    SessionRecord(user="ada", sent=True),
    TicketRecord(
        tenant="t", subject="ada", scopes=("chat:read",), session="s1", expires=7.0, opened="events"
    ),
    Started(attempt=1, epoch=7, worker="w", digest="d"),
    Question(text="Why?"),
    Finished(attempt=1, epoch=7, digest="d", envelope="{}", text="whole"),
    Finished(attempt=1, epoch=7, digest="d", envelope="{}", text="", question=Question(text="Why?")),
    Replay(),
    Replay(turn="t1", epoch=7, seq=0),
    Interrupt(turn="t1"),
    Close(),
    Permission(request="r1", allow=True),
    OwnerView(epoch=7, seq=2, turn="t1", events=("{}", "{}")),
    OwnerView(epoch=7, seq=0),
    InterruptReply(),
    PermissionReply(outcome="taken"),
    BoundRecord(profile="coding", system_prompt="Be brief.", tokens=7, usd=0.5),
    Forward(data="{}", headers={"traceparent": "00"}, ack="$JS.ACK.x", sequence=1, deliveries=2),
    ForwardReply(mine=True),
    Heartbeat(worker="w", version="1", free=1, running=2, sessions=3),
    Drain(),
    Claim(tenant="default", session="s1"),
    Claimed(mine=True),
    Release(),
    SlowTurn(turn="t", session="default.s", ttft_ms=600),
    Recently(ended=2, failed=1, ttft_ms=(1, 2, 3)),
    Tiers(warm=1, frozen=2, spare=3),
]


@pytest.mark.parametrize("message", EACH, ids=lambda message: type(message).__name__)
class TestEachMessage:
    def test_is_read_as_it_was_written(self, message: Message) -> None:
        assert message == decode(type(message), message.encode())

    def test_may_carry_fields_that_are_not_known_yet(self, message: Message) -> None:
        later = json.dumps({**json.loads(message.encode()), "later": {"a": [1]}}).encode()
        assert message == decode(type(message), later)

    def test_is_compact_and_leaves_out_what_is_absent(self, message: Message) -> None:
        assert b": " not in message.encode()
        assert b":null" not in message.encode()


class TestTurnRecords:
    @pytest.mark.parametrize("record", [each for each in EACH if isinstance(each, Started | Finished)])
    def test_are_told_apart(self, record: Message) -> None:
        assert record == decode_turn_record(record.encode())

    def test_of_no_known_state_are_refused(self) -> None:
        with pytest.raises(BadInput, match=r"^TurnRecord: is of no known kind$"):
            decode_turn_record(f'{{"state":"{SECRET}"}}'.encode())

    def test_of_another_version_are_refused(self) -> None:
        record = json.loads(Started(attempt=1, epoch=7, worker="w", digest="d").encode())
        with pytest.raises(BadInput, match=r"TurnRecord\..*v:"):
            decode_turn_record(json.dumps({**record, "v": 2}).encode())


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Why?", "Why?"),
        (
            ({"type": "text", "text": "Look:"}, {"type": "image"}, {"type": "text", "text": "Why?"}),
            "Look:\n\nWhy?",
        ),
        (({"type": "text"}, {"type": "text", "text": 1}), ""),
    ],
)
def test_a_question_is_the_text_of_its_message(content: Content, text: str) -> None:
    assert Question(text=text) == UserMessage(turn="t1", content=content, sent_ms=1).question


def test_a_long_question_is_cut_between_characters() -> None:
    question = UserMessage(turn="t1", content="a" + "ü" * RECORDED_QUESTION_LIMIT, sent_ms=1).question
    assert ("a" + "ü" * ((RECORDED_QUESTION_LIMIT - 1) // 2), True) == (question.text, question.truncated)


class TestControls:
    @pytest.mark.parametrize(
        "control", [each for each in EACH if isinstance(each, Replay | Interrupt | Close | Permission)]
    )
    def test_are_told_apart(self, control: Message) -> None:
        assert control == decode_control(control.encode())

    def test_of_no_known_kind_are_refused(self) -> None:
        with pytest.raises(BadInput, match="is of no known kind"):
            decode_control(b'{"op":"dance"}')


class TestAnError:
    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"turn": ""}, "UserMessage.turn"),
            ({"turn": SECRET * 20}, "UserMessage.turn"),
            ({"turn": 1}, "UserMessage.turn"),
            ({"content": None}, "UserMessage.content"),
            ({"content": {"key": SECRET}}, "UserMessage.content"),
            ({"content": [SECRET]}, "UserMessage.content"),
            ({"sent_ms": SECRET}, "UserMessage.sent_ms"),
            ({"v": SECRET}, "UserMessage.v"),
            ({"options": {"on_worker_loss": SECRET}}, "UserMessage.options.on_worker_loss"),
            ({"options": {"model": [SECRET]}}, "UserMessage.options.model"),
        ],
        ids=str,
    )
    def test_names_the_field_and_never_the_value(self, changes: dict[str, object], field: str) -> None:
        data = json.dumps({**json.loads(USER_MESSAGE.encode()), **changes}).encode()
        with pytest.raises(BadInput) as caught:
            decode(UserMessage, data)
        assert field == caught.value.field
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None

    @pytest.mark.parametrize(
        "text", ['{"x": NaN}', '{"x": [-Infinity]}', '{"x":\n1}', '{"x":\r1}', "[1]", "{"]
    )
    def test_is_what_an_input_gets_that_would_end_the_cli(self, text: str) -> None:
        data = json.dumps({"op": "permission", "request": "r1", "allow": True, "input": text}).encode()
        with pytest.raises(BadInput, match="must be a JSON object in one line"):
            decode_control(data)

    def test_names_no_key_of_a_mapping(self) -> None:
        data = {"data": "", "headers": {SECRET: 1}, "ack": "a", "sequence": 1, "deliveries": 1}
        with pytest.raises(BadInput, match=r"^Forward\.headers: ") as caught:
            decode(Forward, json.dumps(data).encode())
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize(
        "parse", [lambda data: decode(UserMessage, data), decode_control, decode_turn_record]
    )
    @given(data=st.binary() | st.text().map(str.encode) | st.just(b"[" * 100_000))
    def test_is_what_anything_alien_gets(self, parse: Callable[[bytes], object], data: bytes) -> None:
        with pytest.raises(BadInput):
            parse(data)

    @pytest.mark.parametrize(
        ("parse", "what"),
        [
            (decode_control, "Control"),
            (decode_turn_record, "TurnRecord"),
            (decode_worker_control, "WorkerControl"),
            (lambda data: decode(UserMessage, data), "UserMessage"),
        ],
    )
    def test_says_what_could_not_be_read(self, parse: Callable[[bytes], object], what: str) -> None:
        with pytest.raises(BadInput) as refused:
            parse(b"{")
        assert what == refused.value.field

    @pytest.mark.parametrize("parse", [decode_control, decode_worker_control])
    def test_says_that_a_kind_is_not_known(self, parse: Callable[[bytes], object]) -> None:
        with pytest.raises(BadInput) as refused:
            parse(b'{"v":1,"op":"explode"}')
        assert "is of no known kind" == refused.value.problem


class TestADigest:
    def test_is_the_same_for_the_same_body(self) -> None:
        again = UserMessage(turn="t2", content="Hello", sent_ms=99)
        assert USER_MESSAGE.digest == again.digest

    def test_survives_the_wire(self) -> None:
        assert USER_MESSAGE.digest == decode(UserMessage, USER_MESSAGE.encode()).digest

    @pytest.mark.parametrize(
        "other",
        [
            UserMessage(turn="t1", content="hello", sent_ms=1),
            UserMessage(turn="t1", content=({"type": "text", "text": "Hello"},), sent_ms=1),
            UserMessage(turn="t1", content="Hello", options=TurnOptions(model="m"), sent_ms=1),
        ],
    )
    def test_differs_for_another_body(self, other: UserMessage) -> None:
        assert USER_MESSAGE.digest != other.digest

    def test_does_not_change_when_an_option_is_added_to_the_model(self) -> None:
        class LaterOptions(TurnOptions):
            added: str = "default"

        class LaterMessage(UserMessage):
            options: LaterOptions = LaterOptions()

        for options in ({}, {"model": "m"}):
            fields = {"turn": "t1", "content": "Hello", "sent_ms": 1, "options": options}
            now, later = UserMessage.model_validate(fields), LaterMessage.model_validate(fields)
            assert now.digest == later.digest


def test_messages_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        USER_MESSAGE.turn = "t2"


def test_every_message_of_ours_is_tested_here() -> None:
    ours = {kind for kind in Message.__subclasses__() if kind.__module__ == Message.__module__}
    assert ours - {TurnOptions} == {type(message) for message in EACH}
