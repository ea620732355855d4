"""`warmwire worker list` and `warmwire worker drain`: the operator's hands on workers."""

import json

import click

from warmwire.broker.errors import NoResponder
from warmwire.broker.messages import Drain
from warmwire.broker.store import Store

from .errors import ComposeError
from .place import connected, heard, nats_option, run
from .top import picture_of

ANSWER_WITHIN = 2.0
"""Seconds that a worker may take to say that it leaves."""


@click.command(name="list", help="List the workers that live, as JSON, one a line.")
@nats_option
def list_workers(nats: str | None) -> None:
    """The command."""

    async def work() -> None:
        async with connected(nats) as place:
            alive = await heard(place)
            backlog = await Store(place.bus, place.subjects).backlog()
            for row in picture_of(alive, backlog)["workers"]:
                click.echo(json.dumps(row))

    run(work)


@click.command(
    help="Have a worker leave in order, as SIGTERM does: running turns end first, sessions move on."
)
@nats_option
@click.argument("worker")
def drain(nats: str | None, worker: str) -> None:
    """The command."""

    async def work() -> None:
        async with connected(nats) as place:
            subject = place.subjects.worker_control(worker)
            try:
                await place.bus.request(subject, Drain().encode(), ANSWER_WITHIN)
            except NoResponder:
                raise ComposeError(f"no worker {worker!r} lives; `warmwire worker list` names them") from None
            click.echo(f"{worker} drains")

    run(work)
