"""`warmwire streams`: makes the streams, or brings them up to this version; for those whose roles may not."""

import time

import click

from warmwire.broker.nats import streams as broker
from warmwire.broker.settings import BrokerSettings
from warmwire.compose.operating.place import connected, nats_option, run
from warmwire.compose.options import load

HELP = """Make the streams and the workers' consumer, or bring them up to this version of warmwire.

Roles make what is missing by themselves, but with the rights of `warmwire nats-config` they change
nothing that is there. Run it as `operator` before an update that keeps new kinds of records.

\b
  WARMWIRE_REPLICAS=3 warmwire streams --nats nats://nats.example:4222
"""


@click.command(help=HELP)
@nats_option
def streams(nats: str | None) -> None:
    """The command."""

    async def work() -> None:
        async with connected(nats) as place:
            replicas = load(BrokerSettings, {}).replicas
            now_ms = time.time_ns() // 1_000_000
            await broker.ensure(place.bus, place.subjects, replicas, now_ms)
            for stream in broker.wanted_streams(place.subjects, replicas, now_ms):
                click.echo(f"{stream.name}: as it is to be")

    run(work)
