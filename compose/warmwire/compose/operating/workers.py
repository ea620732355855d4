"""`warmwire worker list` and `warmwire worker drain`: the operator's hands on workers."""

import json

import click

from warmwire.broker.errors import NoResponder
from warmwire.broker.wire.messages import Drain
from warmwire.compose.errors import ComposeError
from warmwire.compose.operating.place import connected, heard, nats_option, run
from warmwire.compose.operating.top import Picture, picture_of

ANSWER_WITHIN = 2.0
"""Seconds that a worker may take to say that it leaves."""


LIST = """List the workers that live, as JSON, one a line.

With --json it is one object: the workers, their sums, what waits, and what an autoscaler asks for.
"""


@click.command(name="list", help=LIST)
@nats_option
@click.option("--json", "as_json", is_flag=True, help="One object, with a hint for autoscalers.")
def list_workers(nats: str | None, as_json: bool) -> None:
    """The command."""

    async def work() -> None:
        async with connected(nats) as place:
            alive = await heard(place)
            backlog = await place.store.backlog()
            picture = picture_of(alive, backlog)
            if as_json:
                click.echo(json.dumps({**picture, "autoscaler": hint(picture)}))
                return
            for row in picture["workers"]:
                click.echo(json.dumps(row))

    run(work)


def hint(picture: Picture) -> dict[str, object]:
    """What an autoscaler asks for, by a picture of `top`. Pure.

    ``spare``: a worker may go, without it at least half a worker's slots are free; ``leaves``: it is
    the one whose going moves least.
    """
    serving = [row for row in picture["workers"] if not row["draining"]]
    running = sum(row["running"] for row in picture["workers"])
    free = sum(row["free"] for row in serving)
    leaves = min(serving, key=lambda row: (row["running"], row["sessions"]), default=None)
    spare = len(serving) > 1 and free * len(serving) >= 1.5 * (free + running)
    return {
        "workers": len(serving),
        "draining": len(picture["workers"]) - len(serving),
        "turns": picture["queue"]["waiting"] + running,
        "slots": free + sum(row["running"] for row in serving),
        "spare": spare,
        "leaves": leaves["worker"] if leaves and spare else None,
    }


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
