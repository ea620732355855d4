"""From what a caller gave to a user message that may be published. Pure: time is an argument."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.messages import (
    ANSWER_LIMIT,
    REASON_LIMIT,
    Content,
    ContentBlock,
    Permission,
    TurnOptions,
    UserMessage,
)
from warmwire.broker.wire.names import SessionKey, check_name, new_turn_id, turn_id_for
from warmwire.producer.errors import MessageTooLarge

KEY_LIMIT = 255
"""Characters in an idempotency key, at most."""

Given = str | Sequence[Mapping[str, object]]
"""A message as a caller gives it: text, or Messages API content blocks."""


@dataclass(frozen=True, slots=True)
class Request:
    """A user message, checked. ``keyed``: by an idempotency key, so it may be a repetition."""

    key: SessionKey
    message: UserMessage
    keyed: bool

    @property
    def turn(self) -> str:
        """The turn that the message begins."""
        return self.message.turn


def prepare(
    key: SessionKey,
    given: object,
    options: TurnOptions,
    *,
    now_ms: int,
    limit: int,
    idempotency_key: str | None = None,
) -> Request:
    """Check a message and give it its turn id; ``limit`` is in bytes.

    Raises:
        BadInput: naming the field.
        MessageTooLarge: naming the limit.
    """
    content = checked(given, limit)
    if idempotency_key is None:
        turn = new_turn_id(now_ms)
    else:
        turn = turn_id_for(key.tenant, key.session, _checked_key(idempotency_key))
    message = UserMessage(turn=turn, content=content, options=options, sent_ms=now_ms)
    return Request(key, message, keyed=idempotency_key is not None)


def options_of(**given: object) -> TurnOptions:
    """How a turn is to be run. Raises BadInput, naming the field."""
    try:
        return TurnOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadInput(str(first["loc"][0]), first["msg"][0].lower() + first["msg"][1:]) from None


def verdict(
    request: str,
    *,
    allow: bool,
    turn: str | None = None,
    instead: Mapping[str, object] | None = None,
    reason: str | None = None,
) -> Permission:
    """The answer to a question of the CLI's. Raises BadInput, naming the field and the limit."""
    check_name("request", request)
    if instead is not None and not allow:
        raise BadInput("input", "goes with allow: true alone")
    if reason is not None and (allow or len(reason) > REASON_LIMIT):
        problem = "goes with allow: false alone" if allow else f"may have {REASON_LIMIT} characters"
        raise BadInput("reason", problem)
    return Permission(request=request, allow=allow, turn=turn, input=_input(instead), reason=reason)


def _input(instead: Mapping[str, object] | None) -> str | None:
    if instead is None:
        return None
    try:
        text = json.dumps(instead, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput("input", f"cannot be written as JSON: {error}") from None
    if len(text) > ANSWER_LIMIT:
        raise BadInput("input", f"has {len(text)} characters of JSON, {ANSWER_LIMIT} are allowed")
    return text


def checked(given: object, limit: int) -> Content:
    """The message's content, if it may be sent. Raises as ``prepare``."""
    if isinstance(given, str):
        content: Content = given
        empty = not given.strip()
    else:
        content = _blocks(given)
        empty = all(_is_empty(block) for block in content)
    size = _size(content)
    if empty:
        raise BadInput("message", "must not be empty")
    if size > limit:
        raise MessageTooLarge(size, limit)
    return content


def _blocks(given: object) -> tuple[ContentBlock, ...]:
    problem = 'must be text, or a list of content blocks: objects with a "type"'
    if not isinstance(given, Sequence) or isinstance(given, bytes | bytearray):
        raise BadInput("message", problem)
    if not all(isinstance(block, Mapping) and isinstance(block.get("type"), str) for block in given):
        raise BadInput("message", problem)
    return tuple(dict(block) for block in given)


def _is_empty(block: ContentBlock) -> bool:
    return block["type"] == "text" and not str(block.get("text", "")).strip()


def _size(content: Content) -> int:
    try:
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        return len(text.encode())
    except UnicodeEncodeError:
        raise BadInput("message", "holds half of a surrogate pair, which is not text") from None
    except (TypeError, ValueError) as error:
        raise BadInput("message", f"cannot be written as JSON: {error}") from None


def _checked_key(key: str) -> str:
    if 1 <= len(key) <= KEY_LIMIT and key.isascii() and key.isprintable():
        return key
    raise BadInput("idempotency_key", f"must be 1 to {KEY_LIMIT} printable ASCII characters")
