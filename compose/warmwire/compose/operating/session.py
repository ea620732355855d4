"""`warmwire session`: look at one session, and stop what it does."""

import asyncio
import json
from collections.abc import Sequence
from time import monotonic

import click

from warmwire.broker.errors import NoResponder
from warmwire.broker.nats.asking import OWNER_WITHIN
from warmwire.broker.wire.messages import Claim, Claimed, Heartbeat, Release, decode
from warmwire.broker.wire.names import DEFAULT_TENANT, SessionKey
from warmwire.compose.errors import ComposeError
from warmwire.compose.operating.place import Place, connected, heard, nats_option, run
from warmwire.producer.manage import Management
from warmwire.producer.submit import Sessions
from warmwire.worker.sessions.transcript import entries_of

TURNS = 20
"""Turns that are shown, the last ones that ended."""

LOOK_EVERY = 0.1
"""Seconds between two looks at whether the owner has let go."""
CLAIM_WITHIN = 5.0
"""Seconds that a worker may take to claim a session."""

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
            management = Management(place.bus, place.subjects, Sessions(place.bus, place.subjects))
            standing = await management.standing(key)
            if standing is None:
                raise ComposeError(f"nobody has used the session {key}")
            owned = await place.store.owner(key)
            ended, _ = await management.ended_turns(key, 0, 1000)
            told = {
                "session": str(key),
                "owner": owned.record.worker if owned else None,
                "epoch": owned.sequence if owned else None,
                "waiting": [{"turn": each.turn, "sent_ms": each.sent_ms} for each in standing],
                "ended": [_ended(each.turn, each.record.envelope) for each in ended[-TURNS:]],
            }
            click.echo(json.dumps(told, indent=2))

    run(work)


def _ended(turn: str, envelope: str) -> dict[str, object]:
    event = json.loads(envelope)["event"]
    kept = ("type", "attempt", "duration_ms", "ttft_ms", "code", "usage", "traceparent")
    return {"turn": turn, **{name: event[name] for name in kept if name in event}}


@session.command(
    help="List the stored transcript, a JSON line for each entry: what it is, when, how large; no content."
)
@nats_option
@tenant_option
@click.option("--content", is_flag=True, help="Show what was said, too: it is your users'.")
@click.option("--last", default=100, show_default=True, type=click.IntRange(1), help="So many entries.")
@click.argument("session_id")
def log(nats: str | None, tenant: str, *, content: bool, last: int, session_id: str) -> None:
    """The command."""

    async def work() -> None:
        async with connected(nats) as place:
            key = SessionKey(tenant, session_id)
            stored, _ = await place.store.transcript(key)
            if not stored:
                raise ComposeError(f"no transcript is stored of the session {key}")
            entries = list(enumerate(entries_of(stored), 1))
            for number, entry in entries[-last:]:
                click.echo(json.dumps(logged(number, entry, content=content)))

    run(work)


KINDS = frozenset({"user", "assistant", "system", "summary", "attachment", "progress", "queue-operation"})
"""Types of a CLI's entries that are named; a text that another one has for a type may be anything."""


def logged(number: int, entry: bytes, *, content: bool) -> dict[str, object]:
    """What is shown of one entry: of what nobody vouches for only that it is there. Pure."""
    told: dict[str, object] = json.loads(entry)
    kind = str(told.get("type"))
    ours = kind.startswith("warmwire/")
    shown: dict[str, object] = {"number": number, "type": kind if ours or kind in KINDS else "other"}
    shown |= {name: told[name] for name in ("uuid", "timestamp") if isinstance(told.get(name), str)}
    shown["bytes"] = len(entry)
    if ours:
        shown |= {name: told[name] for name in ("turn", "epoch") if name in told}
        shown |= {"ending": end["type"]} if isinstance(end := told.get("end"), dict) else {}
    return shown | ({"entry": told} if content else {})


@session.command(help="Stop the turn that runs, or the one named.")
@nats_option
@tenant_option
@click.option("--turn", help="This turn, and no other.")
@click.argument("session_id")
def interrupt(nats: str | None, tenant: str, turn: str | None, session_id: str) -> None:
    """The command."""

    async def work() -> None:
        async with connected(nats) as place:
            sessions = Sessions(place.bus, place.subjects)
            stopped = await sessions.interrupt(SessionKey(tenant, session_id), turn)
            if stopped is None:
                raise ComposeError("there is nothing to stop")
            click.echo(f"stopping turn {stopped}")

    run(work)


@session.command(
    help="Have another worker own the session: after the turn that runs, or, with --now, by interrupting it."
)
@nats_option
@tenant_option
@click.option("--to", "target", metavar="WORKER", help="This one; else the one with most room.")
@click.option("--now", is_flag=True, help="Interrupt the turn that runs; its text so far stands.")
@click.option("--within", default=300.0, show_default=True, help="Seconds that the turn may take to end.")
@click.argument("session_id")
def move(
    nats: str | None, tenant: str, *, target: str | None, now: bool, within: float, session_id: str
) -> None:
    """The command."""

    async def work() -> None:
        async with connected(nats) as place:
            key = SessionKey(tenant, session_id)
            alive = await heard(place)
            owned = await place.store.owner(key)
            if owned is None or owned.record.worker is None:
                raise ComposeError(
                    f"nobody owns the session {key}: any worker takes it with its next message"
                )
            to = chosen(alive, owned.record.worker, target)
            if now:
                await Sessions(place.bus, place.subjects).interrupt(key, None)
            await _let_go(place, key, owned.sequence, within)
            await _claimed(place, key, to)
            click.echo(f"{key} is at {to}")

    run(work)


def chosen(alive: Sequence[Heartbeat], owner: str, target: str | None) -> str:
    """The worker that is to have it. Pure. Raises ComposeError."""
    if target == owner:
        raise ComposeError(f"{owner} owns it already")
    able = [beat for beat in alive if not beat.draining and target in (None, beat.worker)]
    others = sorted((beat for beat in able if beat.worker != owner), key=lambda beat: -beat.free)
    if not others:
        what = f"no worker {target!r} lives that is not leaving" if target else "there is no other worker"
        raise ComposeError(f"{what}; `warmwire worker list` names them")
    return others[0].worker


async def _let_go(place: Place, key: SessionKey, epoch: int, within: float) -> None:
    """Raises ComposeError."""
    try:
        await place.bus.request(place.subjects.control(key), Release().encode(), OWNER_WITHIN)
    except NoResponder:
        raise ComposeError("its owner does not answer; if it has died the next message moves it") from None
    deadline = monotonic() + within
    while (owned := await place.store.owner(key)) is not None and owned.sequence == epoch:
        if monotonic() > deadline:
            raise ComposeError(f"its turn still runs after {within:g} s: it moves when that ends; see --now")
        await asyncio.sleep(LOOK_EVERY)


async def _claimed(place: Place, key: SessionKey, to: str) -> None:
    """Raises ComposeError."""
    asked = Claim(tenant=key.tenant, session=key.session).encode()
    try:
        answer = await place.bus.request(place.subjects.worker_control(to), asked, CLAIM_WITHIN)
        mine = decode(Claimed, answer).mine
    except NoResponder:
        mine = False
    if not mine:
        raise ComposeError(
            f"{to} does not have it: another worker has been quicker; see `warmwire session show`"
        )
