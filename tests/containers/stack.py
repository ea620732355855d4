"""The stack of compose.yaml on this machine's Docker engine: images, containers, and what befalls them."""

import asyncio
import json
import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from warmwire.broker.nats.login import Login

from tests.conftest import SECONDS
from tests.system.cluster import WORKER_ID, free_ports

ROOT = Path(__file__).parents[2]
FILES = (ROOT / "compose" / "compose.yaml", Path(__file__).with_name("compose.test.yaml"))
SERVERS = ("nats-1", "nats-2", "nats-3")
COMPOSE = str(Path(sysconfig.get_path("scripts")) / "docker-compose")
READY_WITHIN = 180
"""Seconds of a normal machine in which a stack must be healthy."""
STREAMS = """
from urllib.request import urlopen
print(urlopen("http://127.0.0.1:8222/jsz?streams=true").read().decode())
"""


class FailedError(Exception):
    """A command did not do what it was to do; holds the end of what it said."""


async def run(*command: str, environment: Mapping[str, str] | None = None) -> str:
    """A command's output. Raises FailedError."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
    )
    said, _ = await process.communicate()
    if process.returncode != 0:
        raise FailedError(f"{' '.join(command)}: {said.decode(errors='replace')[-3000:]}")
    return said.decode(errors="replace").strip()


async def docker(*arguments: str) -> str:
    """What `docker` says. Raises FailedError."""
    return await run("docker", *arguments)


class Stack:
    """A project of Compose with ports and secrets of its own. `async with` leaves nothing of it behind."""

    def __init__(self, folder: Path, deltas: int, rate: int) -> None:
        front, prometheus, *nats = free_ports(2 + len(SERVERS))
        self.deltas = deltas
        self.project = f"warmwire-test-{os.getpid()}"
        self.front = f"http://127.0.0.1:{front}"
        self.prometheus = f"http://127.0.0.1:{prometheus}"
        self.nats = ",".join(f"tls://127.0.0.1:{port}" for port in nats)
        self.secrets = folder / "secrets"
        self.environment = {
            "PATH": f"{Path(COMPOSE).parent}:{os.environ['PATH']}",
            "COMPOSE_FILE": ":".join(map(str, FILES)),
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_PROGRESS": "quiet",
            "SECRETS": str(self.secrets),
            "PORT": str(front),
            "PROMETHEUS_PORT": str(prometheus),
            "DELTAS": str(deltas),
            "RATE": str(rate),
            **{f"NATS_PORT_{number}": str(port) for number, port in enumerate(nats, 1)},
        }

    async def __aenter__(self) -> Self:
        await self.script("setup")
        try:
            await self.up()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.compose("down", "--volumes", "--timeout", "1")

    @property
    def producer(self) -> Login:
        """How a service shows itself to the NATS servers."""
        nats = self.secrets / "nats"
        return Login(
            "producer",
            nats / "users" / "producer.password",
            tls_ca=nats / "tls" / "ca.pem",
            inbox_prefix="_INBOX_producer",
        )

    # -- what an operator does

    async def compose(self, *arguments: str) -> str:
        """What `docker compose` says. Raises FailedError."""
        return await run(COMPOSE, *arguments, environment=self.environment)

    async def up(self, *arguments: str) -> None:
        """Start what is not there; returns once all of it is healthy. Raises FailedError with the logs."""
        limit = str(round(READY_WITHIN * SECONDS))
        wait = ("--detach", "--no-build", "--no-recreate", "--wait", "--wait-timeout", limit)
        try:
            await self.compose("up", *wait, *arguments)
        except FailedError as error:
            raise FailedError(f"{error}\n{await self.compose('logs', '--tail', '3')}") from error

    async def script(self, name: str, *arguments: str) -> str:
        """What `compose/NAME` says. Raises FailedError."""
        return await run(str(ROOT / "compose" / name), *arguments, environment=self.environment)

    # -- what there is

    async def containers(self, service: str) -> list[str]:
        """The running containers of a service, by id."""
        return (await self.compose("ps", "--quiet", service)).split()

    async def worker_in(self, container: str) -> str:
        """The id of the worker in that container."""
        ready = [line for line in (await docker("logs", container)).splitlines() if "worker ready" in line]
        found = WORKER_ID.search(ready[-1])
        assert found, ready
        return found.group()

    async def leader_of(self, stream: str) -> str:
        """The service whose NATS server leads a stream."""
        (container,) = await self.containers(SERVERS[0])
        told: dict[str, Any] = json.loads(await docker("exec", container, "python3.11", "-c", STREAMS))
        streams = [each for account in told["account_details"] for each in account["stream_detail"]]
        return next(str(each["cluster"]["leader"]) for each in streams if each["name"] == stream)
