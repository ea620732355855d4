from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.names import SessionKey
from warmwire.broker.wire.sealed import TOKEN_LIMIT, CannotOpen, PoolKey, SealingKey, Token, seal, unseal

KEY = PoolKey.parse("wwkey_dGhlIHNhbWUga2V5IGluIGV2ZXJ5IHRlc3QgcnVuLi4")
KEYS = {KEY.sealing.id: KEY}
HERE = SessionKey("acme", "s1")
TOKEN = Token("sk-ant-oat01-secret")


@pytest.mark.parametrize("length", [*range(1, 16), TOKEN_LIMIT])
def test_a_token_of_any_length_arrives_in_its_session(length: int) -> None:
    token = Token.checked("x" * length)
    sealed = seal(KEY.sealing, token, HERE, 100)
    assert "x" * length == unseal(KEYS, sealed, HERE, 99).value
    assert "=" not in sealed


def test_two_sealings_have_nothing_in_common_but_the_key() -> None:
    one, two = (seal(KEY.sealing, TOKEN, HERE, 100).split(".") for _ in range(2))
    assert one[0] == two[0]
    assert one[1][:40] != two[1][:40]


@pytest.mark.parametrize("session", [SessionKey("acme", "s2"), SessionKey("other", "s1")])
def test_in_another_session_it_is_of_no_use(session: SessionKey) -> None:
    with pytest.raises(CannotOpen, match="another session"):
        unseal(KEYS, seal(KEY.sealing, TOKEN, session, 100), HERE, 0)


def test_its_time_ends() -> None:
    sealed = seal(KEY.sealing, TOKEN, HERE, 100)
    with pytest.raises(CannotOpen, match="its time is over") as raised:
        unseal(KEYS, sealed, HERE, 100)
    assert raised.value.expired


def test_a_key_that_is_not_here_is_told_from_damage() -> None:
    with pytest.raises(CannotOpen, match="a key that this worker does not have"):
        unseal({}, seal(KEY.sealing, TOKEN, HERE, 100), HERE, 0)


def test_an_old_key_opens_what_was_sealed_before_the_new_one_came() -> None:
    new = PoolKey.new()
    keys = {**KEYS, new.sealing.id: new}
    assert [TOKEN, TOKEN] == [unseal(keys, seal(key.sealing, TOKEN, HERE, 9), HERE, 0) for key in (KEY, new)]


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_bit_may_change(at: int, flip: int) -> None:
    sealed = seal(KEY.sealing, TOKEN, HERE, 100)
    raw = bytearray(sealed.encode())
    at %= len(raw) - 1  # the last character has bits that do not count
    raw[at] ^= flip
    with pytest.raises(CannotOpen) as raised:
        unseal(KEYS, raw.decode("latin-1"), HERE, 0)
    assert not raised.value.expired


@given(st.text(max_size=200))
def test_any_text_is_refused_in_words(text: str) -> None:
    for sealed in (text, f"{KEY.sealing.id}.{text}"):
        with pytest.raises(CannotOpen, match=r"damaged|another session|a key that this worker"):
            unseal(KEYS, sealed, HERE, 0)


def test_keys_survive_their_text_form() -> None:
    assert "=" not in KEY.secret_text()
    again = PoolKey.parse(KEY.secret_text())
    assert str(KEY.sealing) == str(again.sealing) == str(SealingKey.parse(str(KEY.sealing)))


@pytest.mark.parametrize("text", ["", "wwpub_", "wwkey_abc", "wwkey_!!!!", KEY.secret_text()[:-4], "wwpub_ä"])
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    for kind, begins in ((PoolKey, "wwkey_"), (SealingKey, "wwpub_")):
        with pytest.raises(BadInput, match=f"^key: is not a key: one begins with {begins}$") as raised:
            kind.parse(text)
        assert "abc" not in str(raised.value)


def test_the_one_half_is_not_taken_for_the_other() -> None:
    with pytest.raises(BadInput, match="wwpub_") as raised:
        SealingKey.parse(KEY.secret_text())
    assert KEY.secret_text().removeprefix("wwkey_") not in str(raised.value)
    with pytest.raises(BadInput, match="wwkey_"):
        PoolKey.parse(str(KEY.sealing))


@pytest.mark.parametrize("text", ["", "a b", 'a"b', "a\\b", "a\nb", "é", "x" * (TOKEN_LIMIT + 1)])
def test_what_is_no_token_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(BadInput) as raised:
        Token.checked(text)
    assert not text or text not in str(raised.value)
    assert "token" == raised.value.field
    assert f"1 to {TOKEN_LIMIT} visible ASCII characters" in raised.value.problem


def test_neither_token_nor_key_is_shown() -> None:
    shown = repr([TOKEN, KEY])
    assert TOKEN.value not in shown
    assert KEY.secret_text().removeprefix("wwkey_") not in shown
