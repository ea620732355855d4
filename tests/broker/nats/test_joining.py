"""A role that starts waits for what is a matter of time, and for nothing else."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from warmwire.broker.errors import Unavailable
from warmwire.broker.nats.joining import join
from warmwire.broker.settings import BrokerSettings

from tests.client import eventually
from tests.conftest import SECONDS, started_nats_server
from tests.system.cluster import free_ports

Said = pytest.CaptureFixture[str]

AGAIN = "NATS is not ready, asking again"


async def test_a_server_whose_disk_fails_once(failing: str) -> None:
    bus = await join(BrokerSettings(nats=failing), "worker", "w", consumer=True)
    assert 3 == len(await bus.js.streams_info())
    await bus.close()


async def test_not_by_a_role_that_is_to_leave(failing: str, capsys: Said) -> None:
    with pytest.raises(Unavailable, match="could not make stream WW_REQ"):
        await join(BrokerSettings(nats=failing), "worker", "w", lambda: True, consumer=True)
    assert AGAIN not in capsys.readouterr().out


async def test_a_server_that_is_too_slow_to_be_connected_to(tmp_path: Path, capsys: Said) -> None:
    said: list[str] = []

    def asked_again() -> bool:
        said.append(capsys.readouterr().out)
        return AGAIN in "".join(said)

    with started_nats_server(tmp_path) as (url, server):
        server.send_signal(signal.SIGSTOP)
        joining = asyncio.create_task(join(BrokerSettings(nats=url), "edge", "e", consumer=False))
        await eventually(asked_again, "it is asked again", deadline=20)
        server.send_signal(signal.SIGCONT)
        await (await asyncio.wait_for(joining, 30 * SECONDS)).close()


async def test_not_one_that_is_not_there(capsys: Said) -> None:
    (port,) = free_ports(1)
    with pytest.raises(Unavailable, match="no NATS server answers at"):
        await join(BrokerSettings(nats=f"nats://127.0.0.1:{port}"), "edge", "e", consumer=False)
    assert AGAIN not in capsys.readouterr().out
