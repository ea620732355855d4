"""Answers NATS's service discovery (`nats micro ls`): which workers and edges there are, what they did.

Over the connection that there is, with three subscriptions for each question: all, those of a kind, one.
https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-32.md
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Literal

from warmwire.broker.nats.bus import Arrived, Bus
from warmwire.broker.tasks import Tasks
from warmwire.broker.wire.names import Subjects, service_subjects

Verb = Literal["PING", "INFO", "STATS"]
VERBS: tuple[Verb, ...] = ("PING", "INFO", "STATS")


@dataclass(frozen=True, slots=True)
class Handled:
    """What came by one subject since the start. Times are in nanoseconds."""

    num_requests: int
    num_errors: int
    processing_time: int
    last_error: str = ""

    @property
    def average(self) -> int:
        """Of one request."""
        return self.processing_time // self.num_requests if self.num_requests else 0


@dataclass(frozen=True, slots=True)
class Service:
    """One process as others find it. ``handles`` are subjects by the name of what is done with them."""

    name: str
    id: str
    description: str
    handles: Mapping[str, str]
    handled: Callable[[str], Handled]

    def answer(self, verb: Verb, prefix: str, started: str) -> dict[str, object]:
        """To one question. Pure, but for ``handled``."""
        told: dict[str, object] = {
            "type": f"io.nats.micro.v1.{verb.lower()}_response",
            "name": self.name,
            "id": self.id,
            "version": version("warmwire"),
            "metadata": {"prefix": prefix},
        }
        if verb == "INFO":
            told |= {"description": self.description, "endpoints": [*map(self._endpoint, self.handles)]}
        if verb == "STATS":
            told |= {"started": started, "endpoints": [*map(self._stats, self.handles)]}
        return told

    def _endpoint(self, name: str) -> dict[str, object]:
        return {"name": name, "subject": self.handles[name], "queue_group": "", "metadata": {}}

    def _stats(self, name: str) -> dict[str, object]:
        at = self.handled(name)
        counted = asdict(at) | {"average_processing_time": at.average}
        return {"name": name, "subject": self.handles[name], "queue_group": "", **counted, "data": {}}


async def announce(bus: Bus, subjects: Subjects, service: Service, tasks: Tasks) -> None:
    """Answer from now on, for as long as the connection stands. Raises Unavailable."""
    started = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    for verb in VERBS:

        def asked(message: Arrived, verb: Verb = verb) -> None:
            if message.reply:
                answer = json.dumps(service.answer(verb, subjects.prefix, started)).encode()
                tasks.begin(bus.publish(message.reply, answer), "answer discovery")

        for subject in service_subjects(verb, service.name, service.id):
            await bus.subscribe(subject, asked)
