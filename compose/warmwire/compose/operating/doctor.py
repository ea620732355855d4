"""`warmwire doctor`: looks at what the product needs, and says what to do where something is wrong."""

import asyncio
import json
import os
import resource
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click

from warmwire.broker.errors import BadInput, WarmwireError
from warmwire.broker.nats.bus import without_password
from warmwire.broker.nats.streams import wanted_streams
from warmwire.broker.settings import BrokerSettings
from warmwire.compose.nats.server import MAX_PAYLOAD
from warmwire.compose.operating.place import Place, connected, heard, nats_option, nats_url
from warmwire.compose.options import load
from warmwire.worker.cli import abilities
from warmwire.worker.cli.program import cli_command, probe

HELP = """Look at NATS, its streams, the workers, this machine's limits and clock, the CLI and its credential.

Prints one line for each, and what to do where something is wrong; the exit code is 1 then.

\b
  warmwire doctor
  warmwire doctor --nats nats://nats.example:4222
"""

FILES = 10_384
"""Open files that an edge needs for its default number of connections."""
SLOW_MS = 50
"""Milliseconds of a round trip to NATS that are felt."""
CLOCK_APART = 0.5
"""Seconds that this machine's clock may differ from the NATS server's."""
CLOCK_WITHIN = 5.0
"""Seconds in which JetStream must say what time it has."""
GOOD, WARNING, BAD = "ok", "warning", "wrong"
MARKS = {GOOD: "✓", WARNING: "!", BAD: "✗"}


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do. `state` is one of the three above."""

    what: str
    state: str
    text: str
    remedy: str = ""


@click.command(help=HELP)
@nats_option
@click.option(
    "--cli", default=lambda: os.environ.get("WARMWIRE_CLI", "emulator"), help="As `warmwire up --cli`."
)
def doctor(nats: str | None, cli: str) -> int:
    """The command; returns the exit code."""
    findings = [files(resource.getrlimit(resource.RLIMIT_NOFILE)[0]), program(cli), credential(cli)]
    findings += asyncio.run(_nats(nats))
    for each in findings:
        click.echo(f"{MARKS[each.state]} {each.what}: {each.text}")
        if each.remedy:
            click.echo(f"    {each.remedy}")
    return 1 if any(each.state == BAD for each in findings) else 0


def files(soft: int) -> Finding:
    """The limit of open files. Pure."""
    if soft == resource.RLIM_INFINITY or soft >= FILES:
        return Finding("open files", GOOD, str(soft))
    remedy = f"`ulimit -n {FILES}`, or LimitNOFILE={FILES} in the unit: an edge serves fewer connections else"
    return Finding("open files", WARNING, f"{soft} in this shell", remedy)


def program(cli: str) -> Finding:
    """The CLI, and whether its version is one that was tested."""
    try:
        command = cli_command(cli)
    except BadInput as error:
        return Finding("CLI", BAD, f"{error.field}: {error.problem}", "choose one with --cli (WARMWIRE_CLI)")
    said = asyncio.run(probe(command))
    doubt = abilities.doubt(said)
    if doubt is None:
        return Finding("CLI", GOOD, said)
    return Finding("CLI", WARNING, f"{said or command[0]}: {doubt}", "`make contract` tries it")


def credential(cli: str) -> Finding:
    """Whether the CLI could ask its API; of the credential itself nothing is shown."""
    if cli == "emulator":
        return Finding("credential", GOOD, "the emulator needs none")
    if os.environ.get("ANTHROPIC_API_KEY") or os.environ.get("WARMWIRE_POOL_KEY_FILE"):
        return Finding("credential", GOOD, "set for this shell")
    own = (Path.home() / ".claude" / ".credentials.json").exists()
    lacking = "only your own login, which workers do not use" if own else "no ANTHROPIC_API_KEY in this shell"
    remedy = "set ANTHROPIC_API_KEY for the workers, or let users send tokens (docs/credentials.md)"
    return Finding("credential", WARNING, lacking, remedy)


async def _nats(given: str | None) -> list[Finding]:
    url = without_password(nats_url(given))
    try:
        async with connected(given) as place:
            findings = [Finding("NATS", GOOD, url)]
            looks: list[Callable[[Place], Awaitable[Finding]]] = [
                _round_trip,
                _clock,
                _payload,
                _streams,
                _workers,
            ]
            for look in looks:
                try:
                    findings.append(await look(place))
                except WarmwireError as error:
                    findings.append(
                        Finding(look.__name__.strip("_"), BAD, str(error), "look at the NATS server")
                    )
            return findings
    except WarmwireError as error:
        remedy = "start `warmwire up`, or name a server with --nats (WARMWIRE_NATS)"
        return [Finding("NATS", BAD, str(error), remedy)]


async def _round_trip(place: Place) -> Finding:
    began = time.monotonic()
    await place.bus.flush()
    ms = (time.monotonic() - began) * 1000
    if ms < SLOW_MS:
        return Finding("round trip", GOOD, f"{ms:.1f} ms")
    return Finding(
        "round trip", WARNING, f"{ms:.0f} ms", "put workers and edges nearer to NATS: each delta pays this"
    )


async def _clock(place: Place) -> Finding:
    """JetStream says what time it has, by the way."""
    subject = f"$JS.API.STREAM.INFO.{place.subjects.request_stream}"
    began = time.time()
    said = json.loads(await place.bus.request(subject, b"", CLOCK_WITHIN))
    ended = time.time()
    if "ts" not in said:
        return Finding("clock", WARNING, "the NATS server does not say its time", "update nats-server")
    return clock(datetime.fromisoformat(said["ts"]).timestamp(), began, ended)


def clock(theirs: float, began: float, ended: float) -> Finding:
    """The NATS server's clock, between two looks at ours; all in Unix seconds. Pure."""
    apart = max(began - theirs, theirs - ended, 0.0)
    if apart < CLOCK_APART:
        return Finding("clock", GOOD, f"within {apart + ended - began:.3f} s of the NATS server's")
    ours = "behind" if theirs > ended else "ahead of"
    remedy = "let NTP set both (`timedatectl`): times in traces, and when credentials expire, are wrong else"
    return Finding("clock", WARNING, f"{apart:.1f} s {ours} the NATS server's", remedy)


async def _payload(place: Place) -> Finding:
    most = place.bus.max_payload
    if most >= MAX_PAYLOAD:
        return Finding("max_payload", GOOD, f"{most} bytes")
    remedy = f"set max_payload: {MAX_PAYLOAD} in nats.conf: long messages are refused else (413)"
    return Finding("max_payload", WARNING, f"{most} bytes", remedy)


async def _streams(place: Place) -> Finding:
    wanted = wanted_streams(place.subjects, load(BrokerSettings, {}).replicas, 0)
    names = {str(stream.name) for stream in wanted}
    found = {str(info.config.name): info for info in await place.bus.js.streams_info()}
    lacking = sorted(names - found.keys())
    if lacking:
        remedy = "start a worker or an edge: they make them"
        return Finding("streams", WARNING, f"{', '.join(lacking)} not there", remedy)
    subjects = {name: set(info.config.subjects or ()) for name, info in found.items()}
    older = [str(each.name) for each in wanted if not set(each.subjects or ()) <= subjects[str(each.name)]]
    if older:
        remedy = "run `warmwire streams` as a user who may change them (operator)"
        return Finding("streams", BAD, f"{', '.join(older)} of an older version", remedy)
    single = [name for name in sorted(names) if found[name].config.num_replicas == 1]
    clustered = any(
        cluster is not None and cluster.replicas for cluster in (found[name].cluster for name in names)
    )
    if single and clustered:
        remedy = "set --replicas 3 and edit the streams: they live on one server of a cluster"
        return Finding("streams", WARNING, f"{', '.join(single)} have one copy", remedy)
    return Finding("streams", GOOD, ", ".join(sorted(names)))


async def _workers(place: Place) -> Finding:
    alive = await heard(place)
    if not alive:
        return Finding("workers", BAD, "none is heard", "start one: `warmwire up`, or `warmwire worker`")
    versions = sorted({beat.version for beat in alive})
    free = sum(beat.free for beat in alive if not beat.draining)
    if len(versions) > 1:
        remedy = "finish the update: workers of several versions live"
        return Finding("workers", WARNING, f"{len(alive)} of versions {', '.join(versions)}", remedy)
    if not free:
        return Finding("workers", WARNING, f"{len(alive)}, all busy", "start more: messages wait")
    return Finding("workers", GOOD, f"{len(alive)}, version {versions[0]}, {free} turns could begin")
