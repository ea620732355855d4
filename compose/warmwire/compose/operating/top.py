"""`warmwire top`: the workers, what they do and how fast, live."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Literal, TypedDict

import click

from warmwire.broker.nats.store import Backlog
from warmwire.broker.wire.messages import Heartbeat, Recently, Tiers
from warmwire.compose.operating.place import Place, connected, heard, nats_option, run

if TYPE_CHECKING:
    from rich.console import Group

HELP = """Show the workers live: sessions by tier, free slots, times to the first delta, the slowest turns.

Everything comes from heartbeats and from one question to JetStream each second; no event is read.

\b
  warmwire top
  warmwire top --once --json | jq .workers
"""

EVERY = 1.0
"""Seconds between two pictures."""


Figure = Literal["free", "running", "sessions", "warm", "frozen", "spare", "ended", "failed"]
SUMMED: tuple[Figure, ...] = ("free", "running", "sessions", "warm", "frozen", "spare", "ended", "failed")
DRAWN: tuple[Figure, ...] = ("running", "free", "sessions", "warm", "frozen", "spare", "ended", "failed")


class Row(TypedDict):
    """A worker. ``ttft_ms`` is empty before it has had a turn."""

    worker: str
    version: str
    draining: bool
    free: int
    running: int
    sessions: int
    warm: int
    frozen: int
    spare: int
    ended: int
    failed: int
    ttft_ms: dict[str, int]


class Waiting(TypedDict):
    """What waits in the queue, and since when the first of it does."""

    waiting: int
    since: str | None


class Slow(TypedDict):
    """A turn whose first delta took long."""

    turn: str
    session: str
    ttft_ms: int


class Picture(TypedDict):
    """What is shown, as ``--json`` prints it."""

    workers: list[Row]
    total: dict[Figure, int]
    queue: Waiting
    slowest: list[Slow]


@click.command(help=HELP)
@nats_option
@click.option("--once", is_flag=True, help="Print it once and end.")
@click.option("--json", "as_json", is_flag=True, help="As JSON; without --once a line each second.")
def top(nats: str | None, once: bool, as_json: bool) -> int:
    """The command; returns the exit code."""
    with suppress(KeyboardInterrupt):
        run(lambda: _show(nats, once=once, as_json=as_json))
    return 0


async def _show(nats: str | None, *, once: bool, as_json: bool) -> None:
    async with connected(nats) as place:
        await heard(place)
        if once or as_json:
            while True:
                picture = picture_of(place.liveness.alive(monotonic()), await place.store.backlog())
                _print(picture, as_json=as_json)
                if once:
                    return
                await asyncio.sleep(EVERY)
        await _live(place)


def picture_of(workers: tuple[Heartbeat, ...], backlog: Backlog) -> Picture:
    """What is shown. Pure."""
    rows = [_worker(beat) for beat in sorted(workers, key=lambda beat: beat.worker)]
    slow = [turn for beat in workers for turn in (beat.recently or Recently()).slowest]
    return {
        "workers": rows,
        "total": {name: sum(row[name] for row in rows) for name in SUMMED},
        "queue": {
            "waiting": backlog.waiting,
            "since": backlog.since.isoformat() if backlog.since else None,
        },
        "slowest": [
            {"turn": turn.turn, "session": turn.session, "ttft_ms": turn.ttft_ms}
            for turn in sorted(slow, key=lambda turn: -turn.ttft_ms)[:5]
        ],
    }


def _worker(beat: Heartbeat) -> Row:
    recently, tiers = beat.recently or Recently(), beat.tiers or Tiers()
    times: dict[str, int] = dict(zip(("p50", "p95", "max"), recently.ttft_ms, strict=False))
    return {
        "worker": beat.worker,
        "version": beat.version,
        "draining": beat.draining,
        "free": beat.free,
        "running": beat.running,
        "sessions": beat.sessions,
        "warm": tiers.warm,
        "frozen": tiers.frozen,
        "spare": tiers.spare,
        "ended": recently.ended,
        "failed": recently.failed,
        "ttft_ms": times,
    }


def _print(picture: Picture, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(picture))
        return
    from rich.console import Console  # noqa: PLC0415 - help is quick without it

    width = None if sys.stdout.isatty() else 130
    Console(width=width).print(drawn(picture, 0.0))


async def _live(place: Place) -> None:
    from rich.live import Live  # noqa: PLC0415 - help is quick without it

    before: tuple[float, int] | None = None
    with Live(screen=True, auto_refresh=False) as live:
        while True:
            now = monotonic()
            picture = picture_of(place.liveness.alive(now), await place.store.backlog())
            ended = picture["total"]["ended"]
            rate = max(0, ended - before[1]) / (now - before[0]) if before else 0.0
            before = now, ended
            live.update(drawn(picture, rate), refresh=True)
            await asyncio.sleep(EVERY)


def drawn(picture: Picture, rate: float) -> Group:
    """The picture as tables of rich."""
    from rich.console import Group  # noqa: PLC0415 - help is quick without it
    from rich.table import Column, Table  # noqa: PLC0415 - the same

    total, queue = picture["total"], picture["queue"]
    workers = Table(
        Column("worker", no_wrap=True, min_width=18), *DRAWN, "ttft p50", "p95", "max", title="workers"
    )
    for row in picture["workers"]:
        name = f"{row['worker']} (draining)" if row["draining"] else row["worker"]
        times = [
            f"{row['ttft_ms'][key]} ms" if key in row["ttft_ms"] else "" for key in ("p50", "p95", "max")
        ]
        workers.add_row(name, *(str(row[column]) for column in DRAWN), *times)
    slowest = Table("turn", "session", "first delta after", title="slowest turns of five minutes")
    for turn in picture["slowest"]:
        slowest.add_row(turn["turn"], turn["session"], f"{turn['ttft_ms']} ms")
    head = (
        f"{len(picture['workers'])} workers, {total['running']} turns run, {total['free']} could begin, "
        f"{queue['waiting']} wait, {rate:.1f} end each second"
    )
    return Group(head, workers, slowest)
