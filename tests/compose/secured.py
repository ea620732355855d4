"""A real nats-server with what `warmwire nats-config` writes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from warmwire.broker.nats.login import Login
from warmwire.broker.settings import BrokerSettings
from warmwire.compose.nats.config import nats_config
from warmwire.compose.nats.server import program

from tests.conftest import wait_for


def write(folder: Path, *options: str) -> Result:
    """Run the command; raises what it raises."""
    arguments = ["--out", str(folder), *options]
    return CliRunner().invoke(nats_config, arguments, catch_exceptions=False, standalone_mode=False)


def users(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "users.json").read_text())
    return found


@dataclass(frozen=True)
class Served:
    """A server with that configuration."""

    folder: Path
    url: str
    pid: int = 0

    def settings(self, user: str) -> dict[str, Any]:
        """Of a role that is that user."""
        secret, ca = self.folder / "users" / user, self.folder / "tls" / "ca.pem"
        given: dict[str, Any] = {"nats": self.url, **({"nats_tls_ca": ca} if ca.exists() else {})}
        if (seed := secret.with_suffix(".nk")).exists():
            return given | {"nats_nkey_seed_file": seed}
        return given | {"nats_user": user, "nats_password_file": secret.with_suffix(".password")}

    def environment(self, user: str) -> dict[str, str]:
        """The same for a process."""
        return {f"WARMWIRE_{name.upper()}": str(value) for name, value in self.settings(user).items()}

    def login(self, user: str, **other: Any) -> Login:
        """The same for one connection."""
        return BrokerSettings(**self.settings(user) | other).login(user.partition("-")[0])

    @property
    def log(self) -> str:
        """What the server has said."""
        return (self.folder / "log").read_text()


@contextmanager
def served(folder: Path, *options: str) -> Iterator[Served]:
    """A real server with what the command writes, on a port of its own."""
    write(folder, "--port", "-1", "--host", "127.0.0.1", *options)
    with running(folder) as (url, process):
        yield Served(folder, url, process.pid)


@contextmanager
def running(folder: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A nats-server with the configuration in the folder; its URL."""
    ports = folder / "ports"
    ports.mkdir(exist_ok=True)
    command = [program(), "--config", str(folder / "nats.conf")]
    command += ["--ports_file_dir", str(ports), "--log", str(folder / "log")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=os.environ | environment)
    file = ports / f"nats-server_{process.pid}.ports"
    try:
        wait_for(lambda: file.exists() or process.poll() is not None, "nats-server listens")
        assert process.poll() is None, (folder / "log").read_text()
        wait_for(lambda: file.read_text().rstrip().endswith("}"), "its port")
        yield str(json.loads(file.read_text())["nats"][0]), process
    finally:
        process.kill()
        process.wait()
