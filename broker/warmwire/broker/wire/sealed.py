"""A user's token on its way to a worker: sealed to the pool's key, for one session, until a time. Pure.

What travels is ``<key id>.<sealed box>`` over ``{token, tenant, session, exp}``. The box is libsodium's
(X25519, XSalsa20, Poly1305, with a key pair of its own for each box): who has the public key can seal, only
who has the private key can open. A pool may have several keys while it changes them.

Needs PyNaCl, which the roles bring; a service that sends no tokens does without.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import msgspec
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox

from warmwire.broker.errors import BadInput, WarmwireError
from warmwire.broker.wire.names import SessionKey

TOKEN_LIMIT = 8192
"""Characters of a token, at most."""
PUBLIC, PRIVATE = "wwpub_", "wwkey_"
"""What a key in text form begins with, so that nobody takes the one for the other."""

_TOKEN = re.compile(r"[!#-\[\]-~]+")  # visible ASCII that stands in JSON as it is: no quote, no backslash
_ID_DIGITS = 8


class CannotOpen(WarmwireError):
    """A sealed credential is of no use here. ``expired``: it was in order, but its time is over."""

    def __init__(self, why: str, *, expired: bool = False) -> None:
        super().__init__(why)
        self.expired = expired


@dataclass(frozen=True, slots=True)
class Token:
    """A user's credential in clear. Only ``value`` shows it: no log, no traceback, no error text does."""

    value: str = field(repr=False)

    @classmethod
    def checked(cls, text: str) -> Self:
        """A token as a user gives it. Raises BadInput, which does not repeat it."""
        if len(text) > TOKEN_LIMIT or not _TOKEN.fullmatch(text):
            problem = f"must be 1 to {TOKEN_LIMIT} visible ASCII characters without quotes and backslashes"
            raise BadInput("token", problem)
        return cls(text)


@dataclass(frozen=True, slots=True)
class SealingKey:
    """The public half of a pool's key."""

    public: PublicKey

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BadInput."""
        return cls(PublicKey(_key_bytes(text, PUBLIC)))

    @property
    def id(self) -> str:
        """Names the key in what is sealed with it."""
        return hashlib.sha256(bytes(self.public)).hexdigest()[:_ID_DIGITS]

    def __str__(self) -> str:
        return PUBLIC + _text(bytes(self.public))


@dataclass(frozen=True, slots=True)
class PoolKey:
    """The private half; only workers have it."""

    private: PrivateKey = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """One that nobody has."""
        return cls(PrivateKey.generate())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises BadInput."""
        return cls(PrivateKey(_key_bytes(text, PRIVATE)))

    @property
    def sealing(self) -> SealingKey:
        """Its public half."""
        return SealingKey(self.private.public_key)

    def secret_text(self) -> str:
        """The key itself, for the file that it is kept in."""
        return PRIVATE + _text(bytes(self.private))


class _Content(msgspec.Struct, frozen=True):
    token: str
    tenant: str
    session: str
    exp: int

    def __repr__(self) -> str:
        return "_Content(…)"


def seal(key: SealingKey, token: Token, session: SessionKey, expires: float) -> str:
    """The token for that session, until ``expires`` (Unix seconds)."""
    content = _Content(token.value, session.tenant, session.session, int(expires))
    return f"{key.id}.{_text(SealedBox(key.public).encrypt(msgspec.json.encode(content)))}"


def unseal(keys: Mapping[str, PoolKey], sealed: str, session: SessionKey, now: float) -> Token:
    """The token, if it was sealed for that session and is still good. ``keys`` are by their id.

    Raises:
        CannotOpen: without a word of the content.
    """
    key_id, _, box = sealed.partition(".")
    if key_id not in keys:
        raise CannotOpen("it was sealed with a key that this worker does not have")
    try:
        content = msgspec.json.decode(SealedBox(keys[key_id].private).decrypt(_bytes(box)), type=_Content)
    except (CryptoError, NotBase64, ValueError, msgspec.DecodeError):
        raise CannotOpen("it is damaged") from None
    if (content.tenant, content.session) != (session.tenant, session.session):
        raise CannotOpen("it was sealed for another session")
    if now >= content.exp:
        raise CannotOpen("its time is over", expired=True)
    return Token(content.token)


def _key_bytes(text: str, kind: str) -> bytes:
    """Never repeats the text: it may be a private key in the wrong place."""
    problem = f"is not a key: one begins with {kind}"
    if not text.startswith(kind):
        raise BadInput("key", problem)
    try:
        raw = _bytes(text.removeprefix(kind))
    except (NotBase64, ValueError):
        raise BadInput("key", problem) from None
    if len(raw) != PrivateKey.SIZE:
        raise BadInput("key", problem)
    return raw


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
