"""`warmwire session`: look at one session, and stop what it does."""

import json

import click

from warmwire.broker.names import DEFAULT_TENANT, SessionKey
from warmwire.broker.store import Store
from warmwire.producer.manage import Management
from warmwire.producer.submit import Sessions

from .errors import ComposeError
from .place import Place, connected, nats_option, run

TURNS = 20
"""Turns that are shown, the last ones that ended."""

tenant_option = click.option(
    "--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose session it is."
)


@click.group(help="Look at one session, or stop what it does.")
def session() -> None:
    """The commands below."""


@session.command(help="Show who owns it, what waits or runs, and how its turns ended, as JSON; no content.")
@nats_option
@tenant_option
@click.argument("session_id")
def show(nats: str | None, tenant: str, session_id: str) -> None:
    """The command."""

    async def work() -> None:
        async with connected(nats) as place:
            key = SessionKey(tenant, session_id)
            store, management = _of(place)[0], _of(place)[2]
            standing = await management.standing(key)
            if standing is None:
                raise ComposeError(f"nobody has used the session {key}")
            owned = await store.owner(key)
            ended, _ = await management.ended_turns(key, 0, 1000)
            told = {
                "session": str(key),
                "owner": owned.record.worker if owned else None,
                "epoch": owned.sequence if owned else None,
                "waiting": [{"turn": each.turn, "sent_ms": each.sent_ms} for each in standing.waiting],
                "ended": [_ended(each.turn, each.record.envelope) for each in ended[-TURNS:]],  # type: ignore[union-attr]
            }
            click.echo(json.dumps(told, indent=2))

    run(work)


def _ended(turn: str, envelope: str) -> dict[str, object]:
    event = json.loads(envelope)["event"]
    kept = ("type", "attempt", "duration_ms", "ttft_ms", "code", "usage", "traceparent")
    return {"turn": turn, **{name: event[name] for name in kept if name in event}}


@session.command(help="Stop the turn that runs, or the one named.")
@nats_option
@tenant_option
@click.option("--turn", help="This turn, and no other.")
@click.argument("session_id")
def interrupt(nats: str | None, tenant: str, turn: str | None, session_id: str) -> None:
    """The command."""

    async def work() -> None:
        async with connected(nats) as place:
            stopped = await _of(place)[1].interrupt(SessionKey(tenant, session_id), turn)
            if stopped is None:
                raise ComposeError("there is nothing to stop")
            click.echo(f"stopping turn {stopped}")

    run(work)


def _of(place: Place) -> tuple[Store, Sessions, Management]:
    sessions = Sessions(place.bus, place.subjects)
    return (
        Store(place.bus, place.subjects),
        sessions,
        Management(place.bus, place.subjects, sessions),
    )
