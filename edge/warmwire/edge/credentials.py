"""A user's own token, from the header of a request: sealed before it goes any further."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import time

from warmwire.broker.errors import BadInput
from warmwire.broker.sealed import SealingKey, Token, seal
from warmwire.producer.request import Request

from .settings import EdgeSettings

HEADER = "X-Warmwire-Token"


def with_credential(request: Request, headers: Mapping[str, str], settings: EdgeSettings) -> Request:
    """The request with the user's token, if the headers have one. Raises BadInput, naming the header."""
    text = headers.get(HEADER.lower())
    if text is None:
        return request
    if settings.pool_public_key is None:
        raise BadInput(HEADER, "this pool takes no tokens: WARMWIRE_POOL_PUBLIC_KEY is not set")
    try:
        token = Token.checked(text)
    except BadInput as error:
        raise BadInput(HEADER, error.problem) from None
    key = SealingKey.parse(settings.pool_public_key)
    sealed = seal(key, token, request.key, time() + settings.credential_ttl)
    return replace(request, message=request.message.model_copy(update={"credential": sealed}))
