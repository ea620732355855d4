"""Real proxies on loopback, with the configurations that we ship: only addresses, files and times differ.

The configurations are compose/proxies/nginx.conf and compose/proxies/haproxy.cfg.
"""

from __future__ import annotations

import shutil
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.conftest import require
from tests.system.cluster import Process, free_ports, listens, until

SHIPPED = Path(__file__).parent.parent / "compose" / "proxies"
NGINX = shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")
HAPROXY = shutil.which("haproxy", path="/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin")

AROUND_NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {more}
    include {folder}/warmwire.conf;
}}
"""
"""What the shipped file is included in; one process, so that killing it leaves none behind."""


@dataclass(frozen=True)
class Addresses:
    """Where a proxy listens, and a context that trusts its certificate."""

    plain: int
    tls: int
    trust: ssl.SSLContext

    @property
    def http(self) -> str:
        """Its URL without TLS."""
        return f"http://127.0.0.1:{self.plain}"

    @property
    def https(self) -> str:
        """Its URL with TLS."""
        return f"https://127.0.0.1:{self.tls}"


def changed(text: str, changes: Mapping[str, str]) -> str:
    """A shipped configuration with some of its lines changed; each has to be there, once."""
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the shipped configuration"
        text = text.replace(old, new)
    return text


def certificate(folder: Path) -> ssl.SSLContext:
    """A certificate for loopback with its key, in `site.pem`; returns a context that trusts it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "site.pem"))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return trust


def nginx_command(
    folder: Path, addresses: tuple[int, int], edges: Sequence[int], changes: Mapping[str, str], more: str = ""
) -> list[str]:
    """nginx with the shipped configuration; `more` stands in `http { }` before it."""
    require(NGINX, "nginx")
    assert NGINX is not None
    servers = ("    server 127.0.0.1:8081 ", "    server 127.0.0.1:8082 ")
    limits = "max_fails=1 fail_timeout=2s;\n"
    given = "".join(f"    server 127.0.0.1:{edge} {limits}" for edge in edges)
    config = changed(
        (SHIPPED / "nginx.conf").read_text(),
        {
            "".join(server + limits for server in servers): given,
            "listen 80;": f"listen 127.0.0.1:{addresses[0]};",
            "listen 443 ": f"listen 127.0.0.1:{addresses[1]} ",
            "/etc/warmwire/tls/fullchain.pem": str(folder / "site.pem"),
            "/etc/warmwire/tls/privkey.pem": str(folder / "site.pem"),
            **changes,
        },
    )
    (folder / "warmwire.conf").write_text(config)
    (folder / "nginx.conf").write_text(AROUND_NGINX.format(folder=folder, more=more))
    return [NGINX, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def haproxy_command(
    folder: Path, addresses: tuple[int, int], edges: Sequence[int], changes: Mapping[str, str]
) -> list[str]:
    """HAProxy with the shipped configuration."""
    require(HAPROXY, "haproxy")
    assert HAPROXY is not None
    servers = "    server edge1 127.0.0.1:8081\n    server edge2 127.0.0.1:8082\n"
    given = "".join(f"    server edge{number} 127.0.0.1:{edge}\n" for number, edge in enumerate(edges, 1))
    config = changed(
        (SHIPPED / "haproxy.cfg").read_text(),
        {
            servers: given,
            "bind :80\n": f"bind 127.0.0.1:{addresses[0]}\n",
            "bind :443 ": f"bind 127.0.0.1:{addresses[1]} ",
            "/etc/warmwire/tls/site.pem": str(folder / "site.pem"),
            **changes,
        },
    )
    (folder / "haproxy.cfg").write_text(config)
    return [HAPROXY, "-db", "-f", str(folder / "haproxy.cfg")]


@asynccontextmanager
async def proxy(
    kind: str, folder: Path, edges: Sequence[int], changes: Mapping[str, str] | None = None, more: str = ""
) -> AsyncIterator[Addresses]:
    """A proxy in front of edges on these ports, once it accepts connections."""
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing else runs in this test yet
    plain, tls = free_ports(2)
    trust = certificate(folder)
    if kind == "nginx":
        command = nginx_command(folder, (plain, tls), edges, changes or {}, more)
    else:
        command = haproxy_command(folder, (plain, tls), edges, changes or {})
    process = Process(kind, command, folder / f"{kind}.out", {})
    try:
        await until(lambda: listens(plain) or not process.running, f"{kind} listens")
        assert process.running, process.said
        yield Addresses(plain, tls, trust)
    finally:
        process.kill()
