"""A user's own token: sealed before it leaves the process. Pure. Needs PyNaCl."""

from __future__ import annotations

from dataclasses import replace

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.sealed import SealingKey, Token, seal
from warmwire.producer.request import Request


def with_token(request: Request, token: str, key: str | None, expires: float) -> Request:
    """The request with the token, sealed with the pool's public key until ``expires`` (Unix seconds).

    Raises:
        BadInput: without repeating the token.
    """
    if key is None:
        raise BadInput("token", "this pool takes no tokens: WARMWIRE_POOL_PUBLIC_KEY is not set")
    sealed = seal(SealingKey.parse(key), Token.checked(token), request.key, expires)
    return replace(request, message=request.message.model_copy(update={"credential": sealed}))
