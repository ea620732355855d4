"""What travels over a WebSocket: JSON text frames, both ways. Pure.

From the client: ``user_message``, ``interrupt``, ``permission``, ``watch``, ``unwatch``, ``ping``. To the
client: events as ``{"session_id", "cursor", "event"}``; ``pong``, ``error`` and ``reconnect``; and for
requests that have an ``id``, ``accepted``, ``interrupting``, ``answered``, ``watching`` and ``unwatched``.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StrictBool, TypeAdapter, ValidationError

from warmwire.broker.reading.reader import Item
from warmwire.broker.wire.envelope import Envelope
from warmwire.broker.wire.messages import Permission
from warmwire.edge.chat import ChatRequest, problem_in
from warmwire.edge.errors import Kind, Problem
from warmwire.producer.answer import event_of
from warmwire.producer.request import verdict


class Close(Enum):
    """Code and reason. The hundred says what to do.

    Below 4500 (and at 1001, 1006, 1011, 1012): come back with your cursors. From 4600 on: the same, with a
    new token. In between: it would end the same way.
    """

    ROTATE = 4000, "this connection has been open for long enough, connect again"
    LEAVING = 4002, "this edge is leaving, connect again"
    UNAVAILABLE = 4003, "the message queue does not answer, connect again in a while"
    SILENT = 4004, "nothing was asked for a long time, connect again when something is"
    BAD_FRAMES = 4500, "too many frames that are no requests"
    TURN_FAILED = 4501, "the turn failed"
    REFUSED = 4502, "refused"
    UNAUTHENTICATED = 4600, "no token, or none that is good"
    EXPIRED = 4601, "the token has expired, connect again with a new one"

    @property
    def code(self) -> int:
        """The close code."""
        return self.value[0]

    @property
    def reason(self) -> str:
        """Why, in words."""
        return self.value[1]


class Frame(BaseModel):
    """What requests share. ``id`` comes back with the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    id: str | None = Field(default=None, max_length=64)


class Send(Frame, ChatRequest):
    """Send a message; its session is watched from now on."""

    type: Literal["user_message"]
    idempotency_key: str | None = None


class Stop(Frame):
    """Stop a turn, or the one at hand."""

    type: Literal["interrupt"]
    session_id: str
    turn: str | None = None


class Permit(Frame):
    """Answer a question of the CLI's."""

    type: Literal["permission"]
    session_id: str
    request: str
    allow: StrictBool
    input: dict[str, object] | None = None
    reason: str | None = None
    turn: str | None = None

    @property
    def answer(self) -> Permission:
        """For the owner. Raises BadInput, naming the field and the limit."""
        return verdict(self.request, allow=self.allow, turn=self.turn, instead=self.input, reason=self.reason)


class Watch(Frame):
    """Watch a session, from a cursor or from now on."""

    type: Literal["watch"]
    session_id: str
    cursor: str | None = Field(default=None, max_length=256)


class Unwatch(Frame):
    """Watch a session no longer."""

    type: Literal["unwatch"]
    session_id: str


class Ping(Frame):
    """Answered with ``pong``."""

    type: Literal["ping"]


Request = Send | Stop | Permit | Watch | Unwatch | Ping
_requests: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="type")])
TYPES = ("user_message", "interrupt", "permission", "watch", "unwatch", "ping")


def read(text: str) -> Request:
    """A client's frame. Raises Problem."""
    try:
        return _requests.validate_json(text)
    except ValidationError as error:
        raise _problem(error) from None
    except RecursionError:
        raise Problem(Kind.NOT_JSON, "the frame is nested too deeply") from None


def _problem(error: ValidationError) -> Problem:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"].startswith("union_tag"):
        return Problem(Kind.INVALID_FIELD, f"type must be one of {', '.join(TYPES)}", "type")
    return problem_in(error, skip=TYPES)


# -- to the client


def encode(item: Item, turn: str, session: str) -> bytes:
    """An event."""
    if isinstance(item, Envelope):
        cursor, event = b"%b.%d.%d" % (item.turn.encode(), item.epoch, item.seq), item.event
    else:
        made = event_of(item, turn)
        cursor, event = (made.cursor or "").encode(), made.raw
    return b'{"session_id":"%b","cursor":"%b","event":%b}' % (session.encode(), cursor, event)


def event(session: str, cursor: str, raw: bytes) -> bytes:
    """An event that the edge has made."""
    return b'{"session_id":"%b","cursor":"%b","event":%b}' % (session.encode(), cursor.encode(), raw)


def answer(type_: str, request: Frame | None, /, **fields: object) -> bytes:
    """Any other frame; absent values are left out."""
    whole = {"type": type_, "id": request.id if request else None, **fields}
    return msgspec.json.encode({name: value for name, value in whole.items() if value is not None})


def error(problem: Problem, request: Frame | None) -> bytes:
    """What is wrong with a frame."""
    document = problem.document()
    session = getattr(request, "session_id", None)
    fields = {
        "code": str(problem.kind),
        "session_id": session,
        "retry_after": problem.retry_after or None,
    }
    return answer("error", request, **fields, **{k: v for k, v in document.items() if k != "type"})
