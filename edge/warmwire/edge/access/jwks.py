"""A set of public keys (JWKS, RFC 7517) from a URL or a file: cached, bounded, refreshed when one is missing.

Signing keys change while the service runs. A token with a key id that is not known makes us look again, at
most every ``refresh`` seconds, so that made-up ids cost nobody anything. While the set cannot be had the
keys that are known stay good, for ``KEPT`` seconds.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from time import monotonic
from typing import NamedTuple, TypedDict

import jwt
from jwt.algorithms import AllowedPublicKeys

from warmwire.broker.logs import logger
from warmwire.edge.errors import Kind, Problem

log = logger(__name__)

FETCH_WITHIN = 5.0
"""Seconds that a fetch may take."""
SET_BYTES = 256 * 1024
"""Bytes of a key set, at most."""
KEYS_LIMIT = 100
"""Keys of a set that are kept; further ones are left out."""
FRESH_FOR = 300.0
"""Seconds after which the set is fetched anew though every key is known: a key may have been withdrawn."""
KEPT = 24 * 3600.0
"""Seconds that keys are good for while the set cannot be fetched."""

_ALGORITHMS: Mapping[tuple[str | None, str | None], str] = {("RSA", None): "RS256", ("EC", "P-256"): "ES256"}


class Key(NamedTuple):
    """A key, and the one algorithm that goes with it."""

    key: AllowedPublicKeys | bytes
    algorithm: str


class Listed(TypedDict, total=False):
    """What counts of a key in a set, beside the key itself."""

    kid: str
    kty: str
    crv: str
    use: str
    alg: str


class CannotFetch(Exception):
    """The set cannot be had."""


class Jwks:
    """Keys by their ids. ``source`` is a URL or a file; ``refresh`` is in seconds, as is the ``clock``."""

    def __init__(self, source: str | Path, refresh: float, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._source = source
        self._refresh = refresh
        self._keys: Mapping[str | None, Key] = {}
        self._fetched: float | None = None
        self._tried = float("-inf")
        self._fetching = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Have the keys before the first token comes, if they can be had."""
        await self._fetch()

    async def stop(self) -> None:
        """Fetch no more."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    async def key(self, kid: str | None) -> Key:
        """The key of that id; without an id the only one. Raises Problem."""
        if self._age > KEPT:
            self._keys = {}
        known = self._find(kid)
        if known is None:
            await self._fetch()
            known = self._find(kid)
        elif self._age > FRESH_FOR and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = asyncio.create_task(self._fetch())
        if known is not None:
            return known
        if not self._keys:
            raise Problem(Kind.KEYS_UNAVAILABLE, "the keys that tokens are checked with cannot be had")
        raise Problem(Kind.INVALID_TOKEN, "the token is signed with a key that is not known", "kid")

    @property
    def _age(self) -> float:
        return float("inf") if self._fetched is None else self._clock() - self._fetched

    def _find(self, kid: str | None) -> Key | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    async def _fetch(self) -> None:
        """Once at a time, and not too often; whoever waited for another's fetch has its outcome."""
        async with self._fetching:
            if self._clock() - self._tried < self._refresh:
                return
            self._tried = self._clock()
            try:
                self._keys = keys_in(await asyncio.to_thread(_read, self._source))
                self._fetched = self._clock()
            except CannotFetch as error:
                log.warning("the key set cannot be had", error=str(error), keys_known=len(self._keys))


def keys_in(data: bytes) -> dict[str | None, Key]:
    """The keys of a set that tokens may be signed with, by their ids. Pure. Raises CannotFetch."""
    try:
        listed: list[Listed] = list(json.loads(data)["keys"])
    except (ValueError, KeyError, TypeError) as error:
        raise CannotFetch(f"it is no key set ({type(error).__name__})") from None
    usable = [(each.get("kid"), key) for each in listed if (key := _understood(each)) is not None]
    if listed and not usable:
        raise CannotFetch("it has no key that tokens may be signed with")
    return dict(usable[:KEYS_LIMIT])


def _understood(each: Listed) -> Key | None:
    """One that is not is ignored, as the RFC wants it (section 5): a set may hold keys for others."""
    try:
        return _key(each) if _signs(each) else None
    except (ValueError, TypeError, AttributeError, jwt.PyJWTError):
        return None


def _signs(each: Listed) -> bool:
    """Secrets have no place in a public set; keys for encryption are none of ours."""
    kind = _kind(each)
    right_use = each.get("use") in (None, "sig") and isinstance(each.get("kid"), str | None)
    return right_use and kind in _ALGORITHMS and each.get("alg") in (None, _ALGORITHMS[kind])


def _kind(each: Listed) -> tuple[str | None, str | None]:
    return each.get("kty"), each.get("crv")


def _key(each: Listed) -> Key:
    algorithm = _ALGORITHMS[_kind(each)]
    return Key(jwt.PyJWK(dict(each), algorithm).key, algorithm)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The operator has named one place."""

    def redirect_request(self, req: object, fp: object, *_: object, **__: object) -> None:
        """Do not follow."""


def _read(source: str | Path) -> bytes:
    try:
        if isinstance(source, Path):
            data = source.read_bytes()
        else:
            opener = urllib.request.build_opener(_NoRedirect())
            with opener.open(source, timeout=FETCH_WITHIN) as answer:
                data = answer.read(SET_BYTES + 1)
    except (OSError, ValueError, HTTPException) as error:
        raise CannotFetch(getattr(error, "strerror", None) or type(error).__name__) from None
    if len(data) > SET_BYTES:
        raise CannotFetch(f"it has more than {SET_BYTES} bytes")
    return data
