"""The service of a team that answers support tickets: HTTP for its callers, NATS towards warmwire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from opentelemetry import context, propagate
from pydantic import BaseModel, Field

from warmwire.producer import (
    Answer,
    Growing,
    KeyReused,
    Producer,
    QueueFull,
    StoreFull,
    Turn,
    Unavailable,
    WarmwireError,
)

MAX_TICKETS = 10_000
"""Tickets that are kept in memory; past it a new one is refused. A real service has a database."""
PROMPT = "Answer this customer in three sentences.\n\n"

log = logging.getLogger("tickets")


class NewTicket(BaseModel):
    """What a customer has written."""

    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    text: str = Field(min_length=1, max_length=20_000)


class Ticket(BaseModel):
    """A ticket, and what is known of its answer; ``state`` is the type of the last event that says so."""

    id: str
    turn: str
    beginning: str  # the cursor before the first event
    state: str = "turn_queued"
    answer: str = ""
    traceparent: str | None = None


class Desk:
    """The tickets of this process, and the tasks that collect their answers."""

    def __init__(self, producer: Producer, tasks: asyncio.TaskGroup) -> None:
        self.producer = producer
        self.tickets: dict[str, Ticket] = {}
        self._tasks = tasks

    async def open(self, new: NewTicket) -> Ticket:
        """Publish the ticket once, however often it is posted and to whichever process: its id is the key."""
        if new.id not in self.tickets and len(self.tickets) >= MAX_TICKETS:
            raise HTTPException(503, f"there are {MAX_TICKETS} tickets already")
        turn = await self.producer.send(PROMPT + new.text, session_id=new.id, idempotency_key=new.id)
        if new.id in self.tickets:
            turn.close()
        else:
            self.tickets[new.id] = Ticket(id=new.id, turn=turn.id, beginning=turn.cursor)
            self._tasks.create_task(collect(turn, self.tickets[new.id]))
        return self.tickets[new.id]

    def known(self, ticket: str) -> Ticket:
        """A ticket that was posted here."""
        if ticket not in self.tickets:
            raise HTTPException(404, "no such ticket")
        return self.tickets[ticket]


async def collect(turn: Turn, ticket: Ticket) -> None:
    """Keep the answer as it grows. If this process dies the turn goes on: post the ticket again."""
    answer = Answer()
    try:
        async for event in turn:
            answer.add(event)
            ticket.answer = answer.text
            if event.type == "turn_started" or event.terminal:
                ticket.state = event.type
                ticket.traceparent = event.data.get("traceparent", ticket.traceparent)
    except WarmwireError as error:  # of this ticket alone: the others go on
        ticket.state = "turn_failed"
        log.warning("ticket %s: %s", ticket.id, error)


async def written(turn: Turn) -> AsyncIterator[str]:
    """The answer from its beginning, and what is still to come of it, as it comes."""
    growing = Growing()
    async with turn:
        async for event in turn:
            if text := growing.add(event):
                yield text


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One connection for all requests. At the end iterations end first, so that no task is left waiting."""
    async with Producer.connect() as producer, asyncio.TaskGroup() as tasks:
        app.state.desk = Desk(producer, tasks)
        yield
        await producer.close()


def desk_of(request: Request) -> Desk:
    """The desk of this application."""
    desk: Desk = request.app.state.desk
    return desk


async def try_again(_request: Request, error: Exception) -> JSONResponse:
    """Nothing is lost: the caller may come again."""
    return JSONResponse({"detail": str(error)}, 503, {"retry-after": "1"})


AtDesk = Annotated[Desk, Depends(desk_of)]
app = FastAPI(title="Tickets", lifespan=lifespan)
for _kind in (QueueFull, StoreFull, Unavailable):
    app.add_exception_handler(_kind, try_again)


@app.post("/tickets", status_code=202)
async def post_ticket(new: NewTicket, request: Request, desk: AtDesk) -> Ticket:
    """Accept a ticket. The caller's `traceparent` goes along: the turn is part of that trace."""
    token = context.attach(propagate.extract(dict(request.headers)))
    try:
        return await desk.open(new)
    except KeyReused:
        raise HTTPException(409, "this ticket has another text") from None
    finally:
        context.detach(token)


@app.get("/tickets/{ticket}")
async def get_ticket(ticket: str, desk: AtDesk) -> Ticket:
    """What is known now."""
    return desk.known(ticket)


@app.get("/tickets/{ticket}/answer")
async def stream_answer(ticket: str, desk: AtDesk) -> StreamingResponse:
    """The answer as it is written."""
    known = desk.known(ticket)
    turn = await desk.producer.resume(known.id, known.beginning)
    return StreamingResponse(written(turn), media_type="text/plain; charset=utf-8")


@app.post("/tickets/{ticket}/stop", status_code=202)
async def stop_answer(ticket: str, desk: AtDesk) -> Ticket:
    """Stop the answer; the text so far stands."""
    known = desk.known(ticket)
    await desk.producer.interrupt(known.id, known.turn)
    return known
