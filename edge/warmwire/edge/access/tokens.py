"""Tokens: JSON Web Tokens (RFC 7519), checked with keys that the operator has named.

Which algorithm is right follows from the key, never from the token: so a token without a signature, or one
that was signed with a public key as if that were a secret, is refused like any other forgery (RFC 8725).
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from warmwire.broker.errors import BadInput, Misconfigured
from warmwire.broker.wire.names import check_name
from warmwire.edge.access.caller import Caller, Scope
from warmwire.edge.access.jwks import Jwks, Key
from warmwire.edge.errors import Kind, Problem
from warmwire.edge.settings import EdgeSettings

TOKEN_LIMIT = 8192
"""Characters of a token, at most."""
LEEWAY = 10
"""Seconds that clocks may differ."""
SECRET_BYTES = 32
"""Bytes of a shared secret, at least: as many as the digest has (RFC 7518, section 3.2)."""
RSA_BITS = 2048
"""Bits of an RSA key, at least."""
SUBJECT_LIMIT = 255
"""Characters of a subject, at most."""
PATTERNS_LIMIT = 100
"""Names of sessions in a token, at most."""

_PATTERN = re.compile(r"(?=.)[A-Za-z0-9_-]{0,64}\*?\Z")
_WRONG = {
    jwt.InvalidAudienceError: "is for another audience",
    jwt.InvalidIssuerError: "has another issuer",
    jwt.InvalidAlgorithmError: "is signed by an algorithm that is not that of the key",
    jwt.InvalidSignatureError: "has a wrong signature",
    jwt.ImmatureSignatureError: "is not valid yet",
}


class Keys(Protocol):
    """Where the key of a token comes from."""

    @abstractmethod
    async def key(self, kid: str | None) -> Key:
        """The key of that id. Raises Problem."""

    @abstractmethod
    async def start(self) -> None:
        """Begin."""

    @abstractmethod
    async def stop(self) -> None:
        """End."""


@dataclass(frozen=True)
class OneKey:
    """A key from a file; there is no other."""

    _key: Key

    async def key(self, kid: str | None) -> Key:  # noqa: ARG002 - whatever the token calls it
        """The key."""
        return self._key

    async def start(self) -> None:
        """There is nothing to begin."""

    async def stop(self) -> None:
        """There is nothing to end."""


@dataclass(frozen=True)
class Expected:
    """What a token has to say. ``audience`` and ``issuer``: None is not checked."""

    audience: str | None
    issuer: str | None
    tenant_claim: str
    default_tenant: str | None


class Tokens:
    """Knows callers by their tokens."""

    def __init__(self, keys: Keys, expected: Expected) -> None:
        self._keys = keys
        self._expected = expected

    @classmethod
    def of(cls, settings: EdgeSettings) -> Self | None:
        """As the settings want it; None when authentication is off. Raises Misconfigured."""
        if settings.auth == "off":
            return None
        expected = Expected(
            settings.jwt_audience, settings.jwt_issuer, settings.jwt_tenant_claim, settings.jwt_default_tenant
        )
        return cls(_keys(settings), expected)

    async def start(self) -> None:
        """Begin."""
        await self._keys.start()

    async def stop(self) -> None:
        """End."""
        await self._keys.stop()

    async def caller(self, token: str) -> Caller:
        """Who brings that token. Raises Problem, which never repeats it."""
        if len(token) > TOKEN_LIMIT:
            raise Problem(
                Kind.INVALID_TOKEN, f"a token has up to {TOKEN_LIMIT} characters", limit=TOKEN_LIMIT
            )
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.InvalidTokenError:
            raise Problem(Kind.INVALID_TOKEN, "the token is no JSON Web Token") from None
        key = await self._keys.key(kid if isinstance(kid, str) else None)
        return caller_of(claims_of(token, key, self._expected), self._expected)


def claims_of(token: str, key: Key, expected: Expected) -> Mapping[str, object]:
    """What the token says, if it is genuine, in time and meant for us. Raises Problem."""
    try:
        return jwt.decode(
            token,
            key.key,
            algorithms=[key.algorithm],
            audience=expected.audience,
            issuer=expected.issuer,
            leeway=LEEWAY,
            options={
                "require": ["exp", "sub"],
                "verify_aud": expected.audience is not None,
                "verify_iss": expected.issuer is not None,
            },
        )
    except jwt.ExpiredSignatureError:
        raise Problem(Kind.TOKEN_EXPIRED, "the token has expired") from None
    except jwt.MissingRequiredClaimError as error:
        raise Problem(Kind.INVALID_TOKEN, f"the token has no {error.claim}", error.claim) from None
    except (jwt.InvalidTokenError, ValueError, OverflowError) as error:
        wrong = next((text for type_, text in _WRONG.items() if isinstance(error, type_)), "cannot be read")
        raise Problem(Kind.INVALID_TOKEN, f"the token {wrong}") from None


def caller_of(claims: Mapping[str, object], expected: Expected) -> Caller:
    """Whom the claims of a genuine token are about. Raises Problem when they are of no use here. Pure."""
    return Caller(
        tenant=_tenant(claims.get(expected.tenant_claim, expected.default_tenant), expected.tenant_claim),
        subject=_subject(claims["sub"]),
        scopes=_scopes(claims.get("scope", "")),
        sessions=_sessions(claims.get("sessions")),
        expires=_seconds(claims["exp"]) + LEEWAY,
    )


def _tenant(value: object, claim: str) -> str:
    try:
        return check_name(claim, value)
    except BadInput as error:
        raise _unusable(claim, error.problem) from None


def _subject(value: object) -> str:
    if (
        isinstance(value, str)
        and 1 <= len(value) <= SUBJECT_LIMIT
        and value.isascii()
        and value.isprintable()
    ):
        return value
    raise _unusable("sub", f"must be 1 to {SUBJECT_LIMIT} printable ASCII characters", SUBJECT_LIMIT)


def _scopes(value: object) -> frozenset[Scope]:
    if not isinstance(value, str):
        raise _unusable("scope", "must be a text with spaces between scopes")
    words = value.split()
    return frozenset(scope for scope in Scope if scope in words)


def _sessions(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(
        isinstance(each, str) and _PATTERN.match(each) for each in value
    ):
        raise _unusable("sessions", "must be a list of session ids, or their beginnings with * at the end")
    if len(value) > PATTERNS_LIMIT:
        raise _unusable("sessions", f"may have {PATTERNS_LIMIT} entries", PATTERNS_LIMIT)
    return tuple(value)


def _seconds(value: object) -> float:
    assert isinstance(value, int | float | str)  # noqa: S101 - else the token would not have been genuine
    return float(value)


def _unusable(claim: str, problem: str, limit: int | None = None) -> Problem:
    return Problem(Kind.UNUSABLE_TOKEN, f"the token's {claim} {problem}", claim, limit)


# -- keys from files


def _keys(settings: EdgeSettings) -> Keys:
    if settings.jwt_secret_file is not None:
        secret = _read("jwt_secret_file", settings.jwt_secret_file).strip()
        if len(secret) < SECRET_BYTES:
            raise Misconfigured(f"jwt_secret_file: a secret has {SECRET_BYTES} bytes or more")
        return OneKey(Key(secret, "HS256"))
    if settings.jwt_public_key_file is not None:
        return OneKey(public_key(_read("jwt_public_key_file", settings.jwt_public_key_file)))
    source = settings.jwks_url or settings.jwks_file
    assert source is not None  # noqa: S101 - the settings see to it
    return Jwks(source, settings.jwks_refresh)


def public_key(pem: bytes) -> Key:
    """A public key and the algorithm that goes with it. Raises Misconfigured."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise Misconfigured("jwt_public_key_file: holds no public key in PEM form") from None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS:
        return Key(key, "RS256")
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return Key(key, "ES256")
    raise Misconfigured(f"jwt_public_key_file: must be RSA of {RSA_BITS} bits or more, or of the curve P-256")


def _read(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{field}: {error.strerror}") from None
