"""What `warmwire nats-config` writes, and that a real nats-server takes it."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from click.testing import CliRunner
from cryptography import x509
from structlog.testing import capture_logs

from warmwire.broker.errors import Misconfigured, Unavailable
from warmwire.broker.nats import streams
from warmwire.broker.nats.bus import Bus, connect
from warmwire.broker.nats.login import Login
from warmwire.broker.wire.names import Subjects
from warmwire.compose.nats.config import nats_config

from tests.compose.secured import Served, running, served, users, write
from tests.conftest import SECONDS
from tests.system.cluster import free_ports

NAMES = {"edge", "worker", "producer", "operator", "system"}


def refused(folder: Path, *options: str) -> str:
    """What it says where it does nothing."""
    result = CliRunner().invoke(nats_config, ["--out", str(folder), *options], standalone_mode=False)
    assert result.exception is not None
    assert not (folder / "nats.conf").exists()
    return str(result.exception)


def test_every_role_has_a_user_whose_password_only_users_json_and_its_file_hold(tmp_path: Path) -> None:
    write(tmp_path / "nats")
    found = users(tmp_path / "nats")
    text = (tmp_path / "nats" / "nats.conf").read_text()
    assert NAMES == found.keys()
    hashes = [line.split('"')[3] for line in text.splitlines() if '"password": ' in line]
    for name, user in found.items():
        assert (name, user["password"]) == (
            user["user"],
            (tmp_path / "nats" / "users" / f"{name}.password").read_text().strip(),
        )
        assert len(user["password"]) >= 40
        assert user["password"] not in text
        assert 1 == sum(bcrypt.checkpw(user["password"].encode(), hashed.encode()) for hashed in hashes)


def test_secrets_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "nats"
    write(folder, "--cluster", "3", "--tenant", "acme")
    modes = {
        str(path.relative_to(folder)): path.stat().st_mode & 0o777
        for path in folder.rglob("*")
        if path.is_file()
    }
    public = {"tls/ca.pem", "tls/server.pem"}
    assert {name: 0o644 if name in public else 0o600 for name in modes} == modes
    assert modes.keys() >= {"nats.conf", "users.json", "tls/server.key", "users/edge-acme.password"}
    assert {0o700} == {path.stat().st_mode & 0o777 for path in (folder, folder / "users", folder / "tls")}


def test_a_second_run_keeps_secrets_and_makes_a_new_one_where_a_file_is_gone(tmp_path: Path) -> None:
    write(tmp_path)
    before = users(tmp_path)
    (tmp_path / "users" / "edge.password").unlink()
    ca = (tmp_path / "tls" / "ca.pem").read_text()
    write(tmp_path, "--tenant", "acme")
    after = users(tmp_path)
    assert before["edge"] != after["edge"]
    assert {name: after[name] for name in NAMES - {"edge"}} == {
        name: before[name] for name in NAMES - {"edge"}
    }
    assert {f"{name}-acme" for name in NAMES - {"system"}} == after.keys() - NAMES
    assert ca == (tmp_path / "tls" / "ca.pem").read_text()


def test_the_certificate_is_for_every_name_by_which_servers_are_reached(tmp_path: Path) -> None:
    write(tmp_path, "--nodes", "nats-a,nats-b", "--name", "*.nats.example", "--name", "10.0.0.7")
    certificate = x509.load_pem_x509_certificate((tmp_path / "tls" / "server.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "nats-a", "nats-b", "*.nats.example"} == set(names.get_values_for_type(x509.DNSName))
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    assert {"127.0.0.1", "::1", "10.0.0.7"} == addresses


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--sync-interval", "sometimes"], "--sync-interval: 'sometimes'"),
        (["--tenant", "a.b"], "--tenant: must be 1 to 64 characters"),
        (["--prefix", "a.b"], "--prefix: must be 1 to 32 characters"),
        (["--nodes", "nats 1,nats-2"], "--nodes: 'nats 1' is no host name"),
        (["--name", '"x'], "--name: '\"x' is no host name"),
        (["--tls-cert", "c.pem"], "--tls-cert and --tls-key go together"),
        (["--tls-ca", "c.pem"], "--tls-ca: is for a --tls-cert"),
        (["--no-tls", "--tls-cert", "c", "--tls-key", "k"], "--tls-cert: not with --no-tls"),
        (["--cluster", "3", "--tls-cert", "c", "--tls-key", "k"], "--tls-ca: is needed in a cluster"),
    ],
)
def test_what_cannot_work_is_refused_by_its_name(tmp_path: Path, options: list[str], says: str) -> None:
    assert refused(tmp_path / "nats", *options).startswith(says)


def test_without_tls_only_this_machine_is_listened_to(tmp_path: Path) -> None:
    write(tmp_path, "--no-tls")
    text = (tmp_path / "nats.conf").read_text()
    assert 'host: "127.0.0.1"' in text
    assert "tls {" not in text
    assert not (tmp_path / "tls").exists()


@pytest.mark.parametrize("auth", ["password", "nkey"])
async def test_each_user_is_let_in_and_nobody_else(tmp_path: Path, auth: str) -> None:
    with served(tmp_path / "nats", "--auth", auth, "--tenant", "acme") as server:
        for user in users(server.folder):
            bus = await connect(server.url, user, server.login(user))
            assert bus.connected
            await bus.close()
        wrong = tmp_path / "wrong"
        wrong.write_text("guessed\n")
        for login in (
            Login("edge", wrong, tls_ca=server.folder / "tls" / "ca.pem"),
            Login(tls_ca=server.folder / "tls" / "ca.pem"),
        ):
            with pytest.raises(Unavailable, match=r"[Aa]uthorization"):
                await connect(server.url, "x", login)


async def test_who_does_not_know_the_authority_does_not_talk_to_the_server(tmp_path: Path) -> None:
    with served(tmp_path / "nats") as server, pytest.raises(Unavailable, match="certificate"):
        await connect(server.url, "x", server.login("edge", nats_tls_ca=None))


async def test_who_knows_an_authority_shows_no_password_to_a_server_without_tls(tmp_path: Path) -> None:
    write(tmp_path / "with")
    with served(tmp_path / "without", "--no-tls") as server:
        ca = tmp_path / "with" / "tls" / "ca.pem"
        with pytest.raises(Unavailable, match="the server has no TLS"):
            await connect(server.url, "x", server.login("edge", nats_tls_ca=ca))


async def test_who_leaves_while_the_server_still_sends_leaves_without_a_word(tmp_path: Path) -> None:
    with served(tmp_path / "nats") as server:
        worker = await connect(server.url, "worker", server.login("worker"))
        sending = asyncio.create_task(sent_without_end(worker))
        said: list[MutableMapping[str, Any]] = []
        async with asyncio.timeout(10 * SECONDS):
            while not said:  # now and then all that was sent has been read
                said = await said_while_leaving(server)
        sending.cancel()
        await worker.close()
    assert ["debug"] == [line["log_level"] for line in said]


async def sent_without_end(worker: Bus) -> None:
    """Publish events of a session as fast as the server takes them."""
    while True:
        for _ in range(200):
            await worker.publish("ww.evt.default.s1", b"x" * 10_000)
        await worker.flush()


async def said_while_leaving(server: Served) -> list[MutableMapping[str, Any]]:
    """What an edge that hears those events logs when it leaves."""
    edge, heard = await connect(server.url, "edge", server.login("edge")), asyncio.Event()
    await edge.listen("ww.evt.default.s1", lambda _: heard.set())
    await heard.wait()
    with capture_logs() as said:
        await edge.close()
    return said


def test_a_cluster_has_one_configuration_for_all_its_servers(tmp_path: Path) -> None:
    write(tmp_path, "--cluster", "3", "--at", "/etc/nats", "--store", "/data")
    text = (tmp_path / "nats.conf").read_text()
    assert "server_name: $NATS_NAME" in text
    for line in ('cert_file: "/etc/nats/tls/server.pem"', 'store_dir: "/data"', "sync_interval: always"):
        assert line in text
    assert 3 == text.count("nats-route://route:")
    assert all(f"@nats-{number}:6222" in text for number in (1, 2, 3))


async def test_servers_of_a_cluster_find_each_other_and_keep_three_copies(tmp_path: Path) -> None:
    """On one machine each needs ports of its own; in all else they have the same file."""
    write(tmp_path, "--nodes", "a,b,c", "--host", "127.0.0.1")
    text, ports = (tmp_path / "nats.conf").read_text(), free_ports(6)
    for node, port in zip("abc", ports[3:], strict=True):
        text = text.replace(f"@{node}:6222", f"@127.0.0.1:{port}")
    with ExitStack() as stack:
        for node, port, route in zip("abc", ports[:3], ports[3:], strict=True):
            folder = tmp_path / node
            folder.mkdir()
            own = text.replace("port: 4222", f"port: {port}").replace("port: 6222", f"port: {route}")
            (folder / "nats.conf").write_text(own.replace(f"{tmp_path}/jetstream", f"{folder}/jetstream"))
            stack.enter_context(running(folder, NATS_NAME=node))
        servers = Served(tmp_path, ",".join(f"nats://127.0.0.1:{port}" for port in ports[:3]))
        bus = await connect(servers.url, "worker", servers.login("worker"))
        await eventually_ensured(bus)
        info = await bus.js.stream_info("WW_STATE")
        await bus.close()
    assert info.cluster is not None
    assert 2 == len(info.cluster.replicas or [])


async def eventually_ensured(bus: Bus) -> None:
    """Once the servers have elected who leads."""
    async with asyncio.timeout(60 * SECONDS):
        while True:
            try:
                return await streams.ensure(bus, Subjects("ww"), 3, 1000)
            except (Misconfigured, Unavailable):  # it says of a server without a leader that it has no room
                pass
            await asyncio.sleep(0.1)  # between two tries, which have a deadline
