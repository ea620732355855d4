"""What a worker shows on its ``--metrics-port``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warmwire.broker import telemetry
from warmwire.broker.nats.bus import Bus
from warmwire.broker.tasks import Tasks
from warmwire.worker.settings import WorkerSettings

if TYPE_CHECKING:
    from warmwire.broker.exposition import Exposed


async def shown(settings: WorkerSettings, bus: Bus, tasks: Tasks) -> Exposed | None:
    """Show them, if that is wanted. Raises Misconfigured."""
    if settings.metrics_port is None:
        return None
    from warmwire.broker.exposition import Exposed, watch_lag  # noqa: PLC0415 - loads the SDK

    exposed = Exposed(settings.metrics_host, settings.metrics_port, "warmwire-worker")
    telemetry.nats_connected.source = lambda: [(bus.connected, {})]
    await exposed.start()
    tasks.begin(watch_lag(), "measure the loop's lag")
    return exposed
