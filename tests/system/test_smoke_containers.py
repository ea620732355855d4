"""The broker against a NATS in a container, whose image is made here from nothing."""

import shutil
import time
from asyncio import Queue, timeout
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from warmwire.broker.nats.bus import connect
from warmwire.broker.nats.pull import Pulled, Puller
from warmwire.broker.nats.store import Store
from warmwire.broker.nats.streams import ensure
from warmwire.broker.wire.messages import UserMessage
from warmwire.broker.wire.names import SessionKey, Subjects, new_turn_id
from warmwire.compose.nats.server import program

from tests.conftest import SECONDS, engine_runs, require

pytestmark = pytest.mark.docker

IMAGE = "warmwire-test/nats:latest"
DOCKERFILE = 'FROM scratch\nCOPY nats-server /nats-server\nENTRYPOINT ["/nats-server"]\n'


@pytest.fixture(scope="module")
def nats_in_container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    require(engine_runs(), "Docker engine")
    folder = tmp_path_factory.mktemp("image")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    shutil.copy(program(), folder / "nats-server")
    build(folder)
    testcontainers_config.ryuk_disabled = True  # its image would have to be fetched; `with` cleans up as well
    testcontainers_config.tc_host_override = "127.0.0.1"
    listening = LogMessageWaitStrategy("Server is ready").with_startup_timeout(int(30 * SECONDS))
    container = DockerContainer(IMAGE).with_exposed_ports(4222).with_command("-js").waiting_for(listening)
    with container:
        yield f"nats://{container.get_container_host_ip()}:{container.get_exposed_port(4222)}"


def build(folder: Path) -> None:
    client = docker.from_env()
    try:
        client.images.build(path=str(folder), tag=IMAGE, rm=True)
    finally:
        client.close()


async def test_a_message_goes_through_the_queue_of_a_nats_in_a_container(nats_in_container: str) -> None:
    subjects, key = Subjects("smoke"), SessionKey("tenant", "session")
    now_ms = time.time_ns() // 1_000_000
    message = UserMessage(turn=new_turn_id(now_ms), content="Hello", sent_ms=now_ms)
    pulled: Queue[Pulled] = Queue()
    bus = await connect(nats_in_container, "smoke test")
    try:
        await ensure(bus, subjects, replicas=1, now_ms=now_ms)
        puller = Puller(bus, subjects, room=lambda: 1, deliver=pulled.put_nowait)
        await puller.start()
        await Store(bus, subjects).submit(key, message, {})
        async with timeout(10 * SECONDS):
            arrived = await pulled.get()
        await puller.stop()
    finally:
        await bus.close()
    assert message == UserMessage.model_validate_json(arrived.data)
