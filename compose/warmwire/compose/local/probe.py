"""Looks from outside at what `warmwire up` depends on: the CLI, a NATS server that is not ours, the edges."""

import asyncio
import json
import time

from warmwire.broker.errors import BadInput, Misconfigured, WarmwireError
from warmwire.broker.nats.bus import connect
from warmwire.broker.nats.streams import ensure
from warmwire.broker.settings import BrokerSettings
from warmwire.broker.wire.names import Subjects
from warmwire.compose.errors import StartError, UsageError
from warmwire.compose.local.address import Address
from warmwire.compose.options import load
from warmwire.edge import guard
from warmwire.edge.access.tokens import Tokens
from warmwire.edge.settings import EdgeSettings
from warmwire.worker.cli.program import cli_command
from warmwire.worker.settings import WorkerSettings

ANSWER_WITHIN = 1.0  # seconds; the edges are on this machine
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to ask where an edge listens everywhere


def check_settings(cli: str) -> None:
    """What would end every worker or edge at its start is one clear line before anything starts."""
    load(WorkerSettings, {})
    load(EdgeSettings, {})
    try:
        cli_command(cli)
    except BadInput as error:
        raise UsageError(f"--{error.field}: {error.problem}") from error


def check_exposure(address: Address, *, insecure: bool) -> None:
    """The edges would not listen where everybody could come in: said before anything starts."""
    settings = load(EdgeSettings, {"insecure_no_auth": insecure or None})
    try:
        guard.check_exposure(settings, address.ip)
        Tokens.of(settings)
    except Misconfigured as error:
        raise UsageError(str(error)) from error


async def check_nats(url: str) -> None:
    """Whether that NATS server answers within seconds and gives the streams that every role needs."""
    broker = load(BrokerSettings, {"nats": url})
    try:
        bus = await connect(url, "warmwire up", broker.login("operator"))
        try:
            await ensure(bus, Subjects(broker.prefix), broker.replicas, now_ms=time.time_ns() // 1_000_000)
        finally:
            await bus.close()
    except WarmwireError as error:
        raise StartError(str(error)) from error


async def missing(address: Address) -> str | None:
    """What is missing before a message would be answered; None when nothing is."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            status, body = await _get(address, "/readyz")
    except (OSError, TimeoutError, ValueError, IndexError) as error:
        return f"the edge does not answer ({str(error) or type(error).__name__})"
    return None if status == 200 else _reason(body) or f"/readyz answers {status}"


async def _get(address: Address, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection(ANYWHERE.get(address.ip, address.ip), address.port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {address.host}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), body
    finally:
        writer.close()


def _reason(body: bytes) -> str:
    """The `detail` of a problem document, else the text as it is."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return " ".join(body.decode(errors="replace").split())[:200]
