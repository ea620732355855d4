"""The routes of a session as a whole: send without waiting, stop, look, watch, delete."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StrictBool
from starlette.responses import Response

from warmwire.broker.errors import Unavailable
from warmwire.broker.wire import envelope as codec
from warmwire.broker.wire.messages import Permission, Question
from warmwire.broker.wire.names import SessionKey
from warmwire.edge.access.caller import Need, Viewer
from warmwire.edge.chat import ChatRequest, Rollup, SessionPath, json_body, validated
from warmwire.edge.documents import openapi
from warmwire.edge.edge import Edge, cursor_of
from warmwire.edge.errors import Kind, Problem
from warmwire.producer.past import Ended
from warmwire.producer.request import verdict

PAGE = 50
"""Turns in a page, unless asked otherwise."""
PAGE_LIMIT = 200
"""Turns in a page, at most."""

_Strict = ConfigDict(frozen=True, extra="forbid")
RequestPath = Annotated[str, Path(json_schema_extra=openapi.SESSION_ID)]


class Stop(BaseModel):
    """The body of an interrupt."""

    model_config = _Strict

    turn: str | None = None


class Verdict(BaseModel):
    """The body of an answer to a question of the CLI's."""

    model_config = _Strict

    allow: StrictBool
    input: dict[str, object] | None = None
    reason: str | None = None
    turn: str | None = None

    def of(self, request: str) -> Permission:
        """For the owner. Raises BadInput, naming the field and the limit."""
        return verdict(request, allow=self.allow, turn=self.turn, instead=self.input, reason=self.reason)


class Look(BaseModel):
    """What of a URL counts when somebody looks at a session."""

    may_be_new: bool = False


class Watch(Rollup):
    """The query of a watch."""

    model_config = _Strict


class Page(BaseModel):
    """The query of a list."""

    model_config = _Strict

    after: int = Field(default=0, ge=0, lt=1 << 63)
    limit: int = Field(default=PAGE, ge=1, le=PAGE_LIMIT)


class Routes:
    """The routes under ``/v1/sessions``; their texts are those of the OpenAPI document."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._limit = edge.settings.max_message_bytes

    async def send(self, http: Request, session_id: SessionPath) -> Response:
        """Send a message without waiting for its answer."""
        caller = await self._edge.caller(http)
        key = SessionKey(caller.tenant, session_id)
        chat = validated(MessageRequest, await json_body(http, self._limit)).of(key.session)
        request = await self._edge.admitted(http, caller, chat)
        await self._edge.publish(request)
        return JSONResponse({"turn": request.turn, "session_id": key.session}, status_code=202)

    async def interrupt(self, http: Request, session_id: SessionPath) -> Response:
        """Stop a turn, or the one at hand; one that has not begun stops before it does."""
        key = await self._admitted(http, session_id, Need.CHANGE)
        empty = http.headers.get("content-length", "0") == "0" and "transfer-encoding" not in http.headers
        body = b"{}" if empty else await json_body(http, self._limit)
        stopped = await self._edge.sessions.interrupt(key, validated(Stop, body).turn)
        return JSONResponse({"session_id": key.session, "turn": stopped}, status_code=202 if stopped else 200)

    async def permit(self, http: Request, session_id: SessionPath, request: RequestPath) -> Response:
        """Allow or deny a tool that the CLI asks for. The first answer counts."""
        key = await self._admitted(http, session_id, Need.CHANGE)
        body = validated(Verdict, await json_body(http, self._limit))
        await self._edge.sessions.permit(key, body.of(request))
        return JSONResponse({"session_id": key.session, "request": request, "allow": body.allow})

    async def standing(self, http: Request, session_id: SessionPath) -> Response:
        """What waits and runs, and how many are watching."""
        key, edge = await self._admitted(http, session_id, Need.READ), self._edge
        look = validated(Look, http.query_params)
        waiting, viewers = await asyncio.gather(edge.management.standing(key), edge.presence.everywhere(key))
        if waiting is None and not look.may_be_new:
            raise _unknown(key)
        content = {
            "session_id": key.session,
            "state": "running" if waiting else "idle",
            "turns": [message.turn for message in waiting or ()],
            "messages": [{"turn": each.turn, **_asked(each.question)} for each in waiting or ()],
            "viewers": viewers,
        }
        return JSONResponse(content)

    async def delete(self, http: Request, session_id: SessionPath) -> Response:
        """Stop its turns, let its process go, forget everything about it."""
        key = await self._admitted(http, session_id, Need.CHANGE)
        deleted = await self._edge.management.delete(key)
        self._edge.access.forget(key)
        if not deleted:
            raise _unknown(key)
        return Response(status_code=204)

    async def turns(self, http: Request, session_id: SessionPath) -> Response:
        """The turns that have ended in the last 24 hours, the oldest first."""
        key = await self._admitted(http, session_id, Need.READ)
        page = validated(Page, http.query_params)
        found, more = await self._edge.management.ended_turns(key, page.after, page.limit)
        content = {"turns": [_turn(each) for each in found], "next": more}
        return Response(msgspec.json.encode(content), media_type="application/json")

    async def events(self, http: Request, session_id: SessionPath) -> Response:
        """Watch every turn, from now on or from a cursor. Any number may; also before it begins."""
        edge = self._edge
        caller = await edge.caller(http, tickets=True)
        key = SessionKey(caller.tenant, session_id)
        query = dict(http.query_params)
        query.pop("ticket", None)
        in_url = query.pop("last_event_id", None)
        viewer = Viewer(caller, validated(Watch, query).rollup_ms)
        last_event_id = http.headers.get("last-event-id") or in_url
        resumes = last_event_id is not None and cursor_of(last_event_id) is not None
        try:
            await edge.access.admit(caller, key, Need.WATCH)
            await edge.access.redeem(caller, "events", resumes=resumes)
        except Unavailable as error:
            return edge.empty(key, error, viewer)
        return await edge.watch(key, last_event_id, viewer)

    async def _admitted(self, http: Request, session: str, need: Need) -> SessionKey:
        """The session, if the caller may do that with it. Raises Problem, BadInput, Unavailable."""
        caller = await self._edge.caller(http)
        key = SessionKey(caller.tenant, session)
        await self._edge.access.admit(caller, key, need)
        return key


def router(edge: Edge) -> APIRouter:
    """The routes under ``/v1/sessions``."""
    api = APIRouter(prefix="/v1/sessions/{session_id}", tags=["sessions"])
    routes = Routes(edge)

    message = openapi.body(openapi.MESSAGE_FIELDS, openapi.KEY)
    stop = openapi.body(openapi.INTERRUPT, required=False)
    seen: openapi.Json = {"parameters": [openapi.ROLLUP, *openapi.CURSORS]}
    openapi.serve(api, "POST /messages", routes.send, openapi.ACCEPTED, message)
    openapi.serve(api, "POST /interrupt", routes.interrupt, openapi.INTERRUPTED, stop)
    answer = openapi.body(openapi.VERDICT)
    openapi.serve(api, "POST /permissions/{request}", routes.permit, openapi.PERMITTED, answer)
    openapi.serve(api, "GET ", routes.standing, openapi.STANDING, {"parameters": [_MAY_BE_NEW]})
    openapi.serve(api, "DELETE ", routes.delete, openapi.DELETED)
    openapi.serve(api, "GET /turns", routes.turns, openapi.TURNS, {"parameters": _PAGES})
    openapi.serve(api, "GET /events", routes.events, openapi.WATCHED, seen)
    return api


class MessageRequest(ChatRequest):
    """The body of ``POST …/messages``: its session is that of the path, which the body may repeat."""

    def of(self, session: str) -> ChatRequest:
        """The chat request. Raises Problem when the body names another session."""
        if self.session_id not in (None, session):
            raise Problem(Kind.INVALID_FIELD, "session_id is not that of the path", "session_id")
        return self.model_copy(update={"session_id": session})


_MAY_BE_NEW = openapi.parameter(
    "query",
    "may_be_new",
    {"type": "boolean", "default": False},
    "Answer for a session that nobody has used as for an idle one, instead of with 404.",
)
_PAGES = [
    openapi.parameter("query", "after", {"type": "integer", "minimum": 0}, "`next` of the page before."),
    openapi.parameter(
        "query", "limit", {"type": "integer", "minimum": 1, "maximum": PAGE_LIMIT, "default": PAGE}, ""
    ),
]


def _turn(found: Ended) -> dict[str, object]:
    record = found.record
    end = codec.decode(record.envelope.encode())
    return {
        "turn": found.turn,
        "ending": end.type.removeprefix("turn_"),
        "text": record.text,
        "truncated": record.truncated,
        **_asked(record.question),
        "attempt": record.attempt,
        "cursor": str(end.cursor),
        "event": msgspec.Raw(end.event),
    }


def _asked(question: Question | None) -> dict[str, object]:
    if question is None:  # the record of a version that did not keep it
        return {"message": None, "message_truncated": False}
    return {"message": question.text, "message_truncated": question.truncated}


def _unknown(key: SessionKey) -> Problem:
    return Problem(Kind.UNKNOWN_SESSION, f"nobody has used session {key.session}")
