"""A user's own token, from the header of a request: sealed before it goes any further."""

from __future__ import annotations

from collections.abc import Mapping
from time import time

from warmwire.broker.errors import BadInput
from warmwire.edge.settings import EdgeSettings
from warmwire.producer.credentials import with_token
from warmwire.producer.request import Request

HEADER = "X-Warmwire-Token"


def with_credential(request: Request, headers: Mapping[str, str], settings: EdgeSettings) -> Request:
    """The request with the user's token, if the headers have one. Raises BadInput, naming the header."""
    token = headers.get(HEADER.lower())
    if token is None:
        return request
    try:
        return with_token(request, token, settings.pool_public_key, time() + settings.credential_ttl)
    except BadInput as error:
        raise BadInput(HEADER, error.problem) from None
