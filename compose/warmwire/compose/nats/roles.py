"""What each role may do at a NATS server: the subjects that it publishes and listens to, and no others. Pure.

Found by watching real runs; tests/system/test_permissions.py holds each role to it, in both directions.
JetStream's API: https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from warmwire.broker.nats.streams import CONSUMER
from warmwire.broker.wire import names
from warmwire.broker.wire.names import Subjects, check_name


@dataclass(frozen=True, slots=True)
class Rights:
    """Subjects, with wildcards. ``answers``: may answer each request that it hears, once, within 30 s."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """Where the rights hold: an installation's subjects, of one tenant or (None) of all."""

    subjects: Subjects
    tenant: str | None = None

    def of_sessions(self, *kinds: str) -> tuple[str, ...]:
        """Subjects with a session in them."""
        return tuple(f"{self.subjects.prefix}.{kind}.{self._tenant}.*" for kind in kinds)

    def records(self, role: str) -> tuple[str, ...]:
        """The records that a role may write."""
        of = {"session": f"{self._tenant}.*", "turn": f"{self._tenant}.*.*", "ticket": "*"}
        return self.plain(*(f"{kind.word}.{of[kind.of]}" for kind in names.RECORDS if role in kind.writers))

    def plain(self, *rest: str) -> tuple[str, ...]:
        """Subjects that are of no tenant."""
        return tuple(f"{self.subjects.prefix}.{each}" for each in rest)

    @property
    def streams(self) -> tuple[str, str, str]:
        """The queue, the records, the transcripts."""
        made = self.subjects
        return made.request_stream, made.state_stream, made.log_stream

    @property
    def _tenant(self) -> str:
        return "*" if self.tenant is None else check_name("tenant", self.tenant)


def edge(scope: Scope) -> Rights:
    """It sends messages, keeps whose sessions are whose, shows events; it deletes sessions, so it purges."""
    return Rights(
        publish=(
            *scope.of_sessions("req", "ctl", "see"),
            *scope.records("edge"),
            *scope.plain("edge.*"),
            *_api(scope, "STREAM.INFO", "STREAM.CREATE", "STREAM.MSG.GET", "STREAM.PURGE"),
            _of_consumer("CONSUMER.INFO", scope),
        ),
        subscribe=(
            *scope.of_sessions("evt"),
            *scope.plain("see.*.*", "hb.*", "edge.*"),
            "$SRV.>",
            f"{inbox('edge')}.>",
        ),
        answers=True,
    )


def worker(scope: Scope) -> Rights:
    """It takes messages, owns sessions, writes their records and publishes their events."""
    queue = scope.subjects.request_stream
    return Rights(
        publish=(
            *scope.of_sessions("log", "evt", "fwd"),
            *scope.records("worker"),
            *scope.plain("hb.*"),
            *_api(scope, "STREAM.INFO", "STREAM.CREATE", "STREAM.MSG.GET"),
            _of_consumer("CONSUMER.INFO", scope),
            _of_consumer("CONSUMER.DURABLE.CREATE", scope),
            f"{_of_consumer('CONSUMER.CREATE', scope)}.>",
            _of_consumer("CONSUMER.MSG.NEXT", scope),
            f"$JS.ACK.{queue}.{CONSUMER}.>",
            f"$JS.ACK.*.*.{queue}.{CONSUMER}.>",  # of a JetStream with a domain
        ),
        subscribe=(
            *scope.of_sessions("ctl", "fwd"),
            *scope.plain("hb.*", "wrk.*.ctl"),
            "$SRV.>",
            f"{inbox('worker')}.>",
        ),
        answers=True,
    )


def producer(scope: Scope) -> Rights:
    """A service: it sends messages, follows their turns, stops them and answers their questions."""
    queue, state, _ = scope.streams
    return Rights(
        publish=(
            *scope.of_sessions("req", "ctl"),
            *scope.records("producer"),
            *(f"$JS.API.STREAM.MSG.GET.{stream}" for stream in (queue, state)),
        ),
        subscribe=(*scope.of_sessions("evt"), f"{inbox('producer')}.>"),
    )


def operator(scope: Scope) -> Rights:
    """A person: looks at everything, keeps the streams, drains workers, stops turns; says nothing."""
    return Rights(
        publish=(
            *scope.of_sessions("ctl"),
            *scope.records("operator"),
            *scope.plain("wrk.*.ctl"),
            "$JS.API.>",
            "$JS.ACK.>",  # of consumers that a person makes to look into a stream
            "$JS.SNAPSHOT.>",  # backups, and their way back
            "$JS.FC.>",
            "$SRV.>",
        ),
        subscribe=(f"{scope.subjects.prefix}.>", "$JS.EVENT.ADVISORY.>", f"{inbox('operator')}.>"),
    )


ROLES: dict[str, Callable[[Scope], Rights]] = {
    "edge": edge,
    "worker": worker,
    "producer": producer,
    "operator": operator,
}
"""Each role has a user of its own."""


def inbox(role: str) -> str:
    """Where answers to that role come: as `BrokerSettings.login` has it."""
    return f"_INBOX_{role}"


def _api(scope: Scope, *verbs: str) -> tuple[str, ...]:
    return tuple(f"$JS.API.{verb}.{stream}" for verb in verbs for stream in scope.streams)


def _of_consumer(verb: str, scope: Scope) -> str:
    return f"$JS.API.{verb}.{scope.subjects.request_stream}.{CONSUMER}"
