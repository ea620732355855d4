"""Tokens for tests, keys for them, and a key set on a real web server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from time import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

SECRET = "0123456789abcdef0123456789abcdef"
ALL = "chat:read chat:write"


def token(
    sub: str = "alice", *, key: Any = SECRET, alg: str = "HS256", kid: str | None = None, **other: Any
) -> str:
    """A token that is good for an hour, unless told otherwise; a claim that is None is left out."""
    claims = {"sub": sub, "tenant": "acme", "scope": ALL, "exp": int(time()) + 3600, **other}
    headers = {"kid": kid} if kid else None
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, key, alg, headers=headers)


def bearer(sub: str = "alice", **other: Any) -> dict[str, str]:
    """The header with such a token."""
    return {"authorization": f"Bearer {token(sub, **other)}"}


def with_secret(folder: Path) -> dict[str, Any]:
    """Settings of an edge that takes such tokens."""
    path = folder / "secret"
    path.write_text(SECRET + "\n")
    return {"auth": "jwt", "jwt_secret_file": path}


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """One for all tests: making one takes long."""
    return rsa.generate_private_key(65537, 2048)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    """The same."""
    return ec.generate_private_key(ec.SECP256R1())


def pem(key: Any) -> bytes:
    """The public half, as in a file."""
    public: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


def jwk(key: Any, kid: str, **other: Any) -> dict[str, Any]:
    """The public half, as in a key set."""
    to_jwk: Any = (RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm).to_jwk
    return {**to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig", **other}


class KeyServer:
    """Answers with ``answer``, whatever is asked. Use ``key_server``."""

    def __init__(self) -> None:
        self.answer = b""
        self.asked = 0
        self.url = ""

    def hold(self, *keys: dict[str, Any]) -> None:
        """The set from now on."""
        self.answer = json.dumps({"keys": keys}).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
        writer.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(self.answer), self.answer))
        await writer.drain()
        writer.close()


@asynccontextmanager
async def key_server() -> AsyncIterator[KeyServer]:
    """A web server with a key set."""
    keys = KeyServer()
    server = await asyncio.start_server(keys.serve, "127.0.0.1", 0)
    keys.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
    async with server:
        yield keys
