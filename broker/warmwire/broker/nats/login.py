"""How a role proves to NATS who it is, and how it knows whom it talks to.

Secrets are in files, read anew for each connection: what is rotated counts from the next one on. None is a
flag, which everybody on the machine could read.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from warmwire.broker.errors import BadInput

SECRET_BYTES = 4096
"""Bytes of a file with a password or a seed, at most."""


class Known(TypedDict, total=False):
    """What nats-py is told of who we are, by its own words."""

    inbox_prefix: str
    nkeys_seed: str
    user: str
    password: Callable[[], str]
    tls: ssl.SSLContext


@dataclass(frozen=True, slots=True)
class Login:
    """A user with a password, or an NKEY; and the authority that has signed the servers' certificates.

    ``inbox_prefix`` is where answers come: each role has its own, so that none can listen to another's.
    """

    user: str | None = None
    password_file: Path | None = None
    nkey_seed_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    inbox_prefix: str = "_INBOX"

    def options(self) -> Known:
        """What nats-py is told of it. Raises BadInput, naming the setting."""
        return {"inbox_prefix": self.inbox_prefix, **self._proof(), **self._tls()}

    def _proof(self) -> Known:
        if self.nkey_seed_file is not None:
            _check_seed(secret("nats_nkey_seed_file", self.nkey_seed_file))
            return {"nkeys_seed": str(self.nkey_seed_file)}
        if self.user is None or self.password_file is None:
            return {}
        secret("nats_password_file", self.password_file)
        return {"user": self.user, "password": _reader(self.password_file)}

    def _tls(self) -> Known:
        if self.tls_ca is None and self.tls_cert is None:
            return {}
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
        except (OSError, ssl.SSLError) as error:
            raise BadInput("nats_tls_ca", f"{self.tls_ca} holds no certificates: {_why(error)}") from None
        if self.tls_cert is not None:
            try:
                context.load_cert_chain(self.tls_cert, self.tls_key)
            except (OSError, ssl.SSLError) as error:
                raise BadInput("nats_tls_cert", f"cannot be used with its key: {_why(error)}") from None
        return {"tls": context}


NOBODY = Login()
"""For a server that lets everybody in."""


def secret(field: str, path: Path) -> str:
    """What the file holds, without the white space around it. Raises BadInput, which names no content."""
    try:
        with path.open("rb") as file:
            data = file.read(SECRET_BYTES + 1)
    except OSError as error:
        raise BadInput(field, f"{path} cannot be read: {error.strerror}") from None
    if len(data) > SECRET_BYTES or not data.strip():
        raise BadInput(field, f"{path} must hold one secret, of {SECRET_BYTES} bytes at most")
    return data.decode(errors="replace").strip()


def _check_seed(seed: str) -> None:
    try:
        import nkeys  # noqa: PLC0415 - for those who log in with one
    except ModuleNotFoundError:
        raise BadInput(
            "nats_nkey_seed_file", 'needs the package nkeys: pip install "warmwire[nkey]"'
        ) from None
    try:
        nkeys.from_seed(bytearray(seed.encode())).wipe()
    except (nkeys.NkeysError, ValueError):
        raise BadInput("nats_nkey_seed_file", "holds no seed of an NKEY; one begins with SU") from None


def _reader(path: Path) -> Callable[[], str]:
    """Called for each connection; a file that is gone by then lets nobody in, and the log says so."""
    return lambda: secret("nats_password_file", path)


def _why(error: OSError | ssl.SSLError) -> str:
    return error.strerror or type(error).__name__
