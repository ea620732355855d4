"""The streams and the consumer, created idempotently: whoever comes first makes them, the rest check them."""

from __future__ import annotations

from dataclasses import replace

from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from warmwire.broker.errors import Misconfigured, Unavailable
from warmwire.broker.nats.bus import Bus, translated
from warmwire.broker.wire.names import Subjects

QUEUED_PER_SESSION = 16
"""User messages that one session may have waiting or running."""
QUEUE_BYTES = 1024 * 1024 * 1024
"""Bytes of user messages in the work queue, at most."""
ACK_WAIT = 3.0
"""Seconds after which a user message whose owner is silent is given to another worker."""
ACK_PENDING = 100_000
"""User messages that may be with workers at a time (the server's default of 1,000 would stop the pool)."""
PULLS_WAITING = 8192
"""Open pull requests, at most; each worker keeps a few."""
DEDUPLICATION = 120.0
"""Seconds in which a repeated ``Nats-Msg-Id`` is noticed by the server; turn records notice it for longer."""
CONSUMER = "workers"
"""The one durable consumer that all workers pull from."""

_ALREADY_EXISTS = {10058, 10148}
_NO_CLUSTER = 10074
_NO_ROOM = 10047
_NO_STORE = 10049
"""Its disk did not do what the server wanted."""
_NO_JETSTREAM = {None, 10039, 10076}
"""Nobody listens for JetStream requests; not for this account; switched off."""

_CHECKED = (
    "subjects",
    "retention",
    "storage",
    "discard",
    "discard_new_per_subject",
    "max_msgs_per_subject",
    "max_bytes",
    "max_age",
    "duplicate_window",
    "allow_msg_ttl",
    "num_replicas",
)
"""What of a stream must be as wanted."""


def wanted_streams(subjects: Subjects, replicas: int, now_ms: int) -> tuple[api.StreamConfig, ...]:
    """How the three streams must be. ``first_seq`` makes epochs grow even over a lost and re-made stream."""
    kept = api.StreamConfig(
        storage=api.StorageType.FILE, max_age=0, duplicate_window=DEDUPLICATION, num_replicas=replicas
    )
    queue = replace(
        kept,
        name=subjects.request_stream,
        subjects=[subjects.all_requests],
        retention=api.RetentionPolicy.WORK_QUEUE,
        discard=api.DiscardPolicy.NEW,
        discard_new_per_subject=True,
        max_msgs_per_subject=QUEUED_PER_SESSION,
        max_bytes=QUEUE_BYTES,
    )
    grows = replace(kept, retention=api.RetentionPolicy.LIMITS, discard=api.DiscardPolicy.OLD, max_bytes=-1)
    state = replace(
        grows,
        name=subjects.state_stream,
        subjects=list(subjects.all_records),
        max_msgs_per_subject=1,
        allow_msg_ttl=True,
        first_seq=now_ms,
    )
    log = replace(
        grows, name=subjects.log_stream, subjects=[subjects.all_transcripts], max_msgs_per_subject=-1
    )
    return queue, state, log


def wanted_consumer(subjects: Subjects) -> api.ConsumerConfig:
    """How the workers' consumer must be."""
    return api.ConsumerConfig(
        durable_name=CONSUMER,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT,
        max_deliver=-1,
        max_ack_pending=ACK_PENDING,
        max_waiting=PULLS_WAITING,
        filter_subject=subjects.all_requests,
    )


async def ensure(bus: Bus, subjects: Subjects, replicas: int, now_ms: int, *, consumer: bool = True) -> None:
    """Make what is missing and check what is there; ``consumer``: the workers' one, too.

    Raises:
        Misconfigured: the server cannot give it, or a stream of that name is different.
        Unavailable: no answer.
    """
    for config in wanted_streams(subjects, replicas, now_ms):
        with translated():
            await _ensure_stream(bus.js, config)
    if consumer:
        with translated():
            await _ensure_consumer(bus.js, subjects)


async def _ensure_stream(js: JetStreamContext, wanted: api.StreamConfig) -> None:
    try:
        found = await _find_or_add(js, wanted)
        if set(found.subjects or ()) < set(wanted.subjects or ()):
            # It was made by a version that knew fewer kinds of records.
            found = (await js.update_stream(replace(found, subjects=wanted.subjects))).config
    except APIError as error:
        raise _refusal(f"stream {wanted.name}", error, wanted.num_replicas) from error
    differing = [name for name in _CHECKED if _differs(getattr(found, name), getattr(wanted, name))]
    if differing:
        raise Misconfigured(
            f"stream {wanted.name} exists with another {', '.join(differing)}: "
            "edit it with the nats tool, remove it, or set another --prefix"
        )


def _differs(found: object, wanted: object) -> bool:
    """nats-py leaves out what the server leaves out; there absent, zero and false are one."""
    return (found or None) != (wanted or None)


async def _find_or_add(js: JetStreamContext, wanted: api.StreamConfig) -> api.StreamConfig:
    name = str(wanted.name)
    try:
        return (await js.stream_info(name)).config
    except NotFoundError:
        try:
            return (await js.add_stream(wanted)).config
        except APIError as error:
            if error.err_code not in _ALREADY_EXISTS:
                raise
            return (await js.stream_info(name)).config  # another role was faster


def _refusal(what: str, error: APIError, replicas: int | None = None) -> Misconfigured | Unavailable:
    if error.err_code == _NO_CLUSTER:
        return Misconfigured(
            f"the NATS server cannot keep {replicas} copies: it is no cluster; set --replicas 1"
        )
    if error.err_code == _NO_ROOM:
        return Misconfigured(
            f"the NATS server has no room for {what}: the queue alone takes {QUEUE_BYTES >> 20} MiB; "
            "free some disk space, or raise its JetStream limit (max_file_store)"
        )
    if error.err_code in _NO_JETSTREAM:
        return Misconfigured("the NATS server has no JetStream: start it with -js")
    if error.err_code == _NO_STORE:
        return Unavailable(f"the NATS server could not make {what}: {error.description}; its log says why")
    if isinstance(error, ServiceUnavailableError | NotFoundError):  # or: another role makes it at this moment
        return Unavailable(f"JetStream is not ready for {what}: {error.description}")
    return Misconfigured(
        f"the NATS server refuses {what}: {error.description}; change or remove what is in the way"
    )


async def _ensure_consumer(js: JetStreamContext, subjects: Subjects) -> None:
    """Of a consumer that is different the server sets right what can be changed, and refuses the rest."""
    try:
        await js.add_consumer(subjects.request_stream, wanted_consumer(subjects))
    except APIError as error:
        raise _refusal(f"consumer {CONSUMER} of {subjects.request_stream}", error) from error
