"""What `warmwire nats-config` writes, and that a real nats-server takes it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from warmwire.broker.bus import connect
from warmwire.broker.errors import Unavailable
from warmwire.broker.login import Login
from warmwire.compose.nats_config import nats_config
from warmwire.compose.nats_server import program

from tests.conftest import wait_for

NAMES = {"edge", "worker", "producer", "operator", "system"}


def write(folder: Path, *options: str) -> Result:
    """Run the command; raises what it raises."""
    arguments = ["--out", str(folder), *options]
    return CliRunner().invoke(nats_config, arguments, catch_exceptions=False, standalone_mode=False)


def refused(folder: Path, *options: str) -> str:
    """What it says where it does nothing."""
    result = CliRunner().invoke(nats_config, ["--out", str(folder), *options], standalone_mode=False)
    assert result.exception is not None
    assert not (folder / "nats.conf").exists()
    return str(result.exception)


def users(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "users.json").read_text())
    return found


@dataclass(frozen=True)
class Served:
    """A server with that configuration."""

    folder: Path
    url: str
    process: subprocess.Popen[bytes]

    def login(self, name: str, **other: Any) -> Login:
        """As a role is given it."""
        secret = self.folder / "users" / name
        ca = self.folder / "tls" / "ca.pem"
        given: dict[str, Any] = {
            "tls_ca": ca if ca.exists() else None,
            "inbox_prefix": f"_INBOX_{name.partition('-')[0]}",
        }
        if secret.with_suffix(".nk").exists():
            given["nkey_seed_file"] = secret.with_suffix(".nk")
        else:
            given |= {"user": name, "password_file": secret.with_suffix(".password")}
        return Login(**given | other)


@contextmanager
def served(folder: Path, *options: str) -> Iterator[Served]:
    """A real server with what the command writes, on a port of its own."""
    write(folder, "--port", "-1", "--host", "127.0.0.1", *options)
    ports = folder / "ports"
    ports.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [program(), "--config", folder / "nats.conf", "--ports_file_dir", ports, "--log", folder / "log"],
        stdin=subprocess.DEVNULL,
    )
    file = ports / f"nats-server_{process.pid}.ports"
    try:
        wait_for(lambda: file.exists() or process.poll() is not None, "nats-server listens")
        assert process.poll() is None, (folder / "log").read_text()
        wait_for(lambda: file.read_text().endswith("}\n") or file.read_text().endswith("}"), "its port")
        yield Served(folder, str(json.loads(file.read_text())["nats"][0]), process)
    finally:
        process.kill()
        process.wait()


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
        with pytest.raises(Unavailable, match=r"[Aa]uthorization"):
            await connect(
                server.url, "x", server.login("edge", nkey_seed_file=None, user="edge", password_file=wrong)
            )
        with pytest.raises(Unavailable, match=r"[Aa]uthorization"):
            await connect(server.url, "x", Login(tls_ca=server.folder / "tls" / "ca.pem"))


async def test_who_does_not_know_the_authority_does_not_talk_to_the_server(tmp_path: Path) -> None:
    with served(tmp_path / "nats") as server, pytest.raises(Unavailable, match="certificate"):
        await connect(server.url, "x", server.login("edge", tls_ca=None))


async def test_who_knows_an_authority_shows_no_password_to_a_server_without_tls(tmp_path: Path) -> None:
    write(tmp_path / "with")
    with served(tmp_path / "without", "--no-tls") as server:
        ca = tmp_path / "with" / "tls" / "ca.pem"
        with pytest.raises(Unavailable, match="the server has no TLS"):
            await connect(server.url, "x", server.login("edge", tls_ca=ca))


def test_a_cluster_has_one_configuration_for_all_its_servers(tmp_path: Path) -> None:
    write(tmp_path, "--cluster", "3", "--at", "/etc/nats", "--store", "/data")
    text = (tmp_path / "nats.conf").read_text()
    assert "server_name: $NATS_NAME" in text
    for line in ('cert_file: "/etc/nats/tls/server.pem"', 'store_dir: "/data"', "sync_interval: always"):
        assert line in text
    assert 3 == text.count("nats-route://route:")
    assert all(f"@nats-{number}:6222" in text for number in (1, 2, 3))
