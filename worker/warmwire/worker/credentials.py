"""Users' credentials in the worker: opened here and nowhere else.

A credential is told to the CLI over stdin, so it is in no argument, and in no environment that another
process could read. What the CLI says is searched for it before anybody else sees it.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.names import SessionKey
from warmwire.broker.wire.sealed import CannotOpen, PoolKey, Token, unseal
from warmwire.worker.errors import CredentialRefused, ErrorCode

HIDDEN = b"[credential]"
TOO_OPEN = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
"""What a key file may not allow. A group may read it: so Kubernetes mounts secrets for a plain user."""


class Keys:
    """The pool's private keys; a file holds one in each line, of which users' edges need only know one."""

    def __init__(self, keys: Mapping[str, PoolKey]) -> None:
        self._keys = keys

    @classmethod
    def load(cls, path: Path | None) -> Keys:
        """Those in a file, none without one. Raises BadInput."""
        if path is None:
            return cls({})
        try:
            mode, text = path.stat().st_mode, path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput("pool_key_file", f"{path} cannot be read: {error}") from None
        if mode & TOO_OPEN:
            raise BadInput("pool_key_file", f"{path} is open to others: chmod 600 {path}")
        return cls(_parsed(text, path))

    def open(self, sealed: str | None, session: SessionKey, now: float) -> Token | None:
        """The token of a message that has one; ``now`` in Unix seconds. Raises CredentialRefused."""
        if sealed is None:
            return None
        try:
            return unseal(self._keys, sealed, session, now)
        except CannotOpen as error:
            code = ErrorCode.CREDENTIAL_EXPIRED if error.expired else ErrorCode.CREDENTIAL_UNREADABLE
            raise CredentialRefused(code, str(error)) from None


def hidden(said: bytes, token: Token | None) -> bytes:
    """What a process said, without the token that it has."""
    secret = token.value.encode() if token is not None else b""
    return said.replace(secret, HIDDEN) if secret and secret in said else said


def _parsed(text: str, path: Path) -> dict[str, PoolKey]:
    try:
        keys = [PoolKey.parse(line) for line in text.split()]
    except BadInput as error:
        raise BadInput("pool_key_file", f"a line of {path} {error.problem}") from None
    if not keys:
        raise BadInput("pool_key_file", f"{path} is empty: make one with `warmwire keygen`")
    return {key.sealing.id: key for key in keys}
