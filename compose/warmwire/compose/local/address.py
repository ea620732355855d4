"""The HTTP address that several edges share.

Each edge binds it with SO_REUSEPORT. The supervisor binds it first and never listens: so a port in use is
found before anything starts, `--port 0` is one port for all edges, and nobody takes it while one restarts.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from warmwire.compose.errors import PortError


@dataclass(frozen=True)
class Address:
    """Where the edges listen. `host` is as the user gave it, `ip` what it resolved to, once for all."""

    host: str
    ip: str
    port: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@contextmanager
def held(host: str, port: int) -> Iterator[Address]:
    """Take the address for as long as the block lasts, or say in one line why it cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if port:
            _bind(family, address, socket.SO_REUSEADDR).close()  # fails where anything else listens
        sock = _bind(family, address, socket.SO_REUSEPORT)
    except OSError as error:
        raise PortError(_reason(error, host, port)) from error
    with sock:
        yield Address(host, str(address[0]), sock.getsockname()[1])


def _bind(family: int, address: tuple[str | int | bytes, ...], option: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _reason(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: choose another with --port, or --port 0 for a free one"
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges that this user lacks: choose one above 1023 with --port"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host} is no address of this machine"
    return f"cannot listen on {host} port {port}: {error.strerror}"
