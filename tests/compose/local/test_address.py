import socket

import pytest

from warmwire.compose.errors import PortError
from warmwire.compose.local.address import Address, held

from tests.conftest import require


def shares(address: Address) -> socket.socket:
    """What an edge does."""
    family = socket.AF_INET6 if ":" in address.ip else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((address.ip, address.port))
    sock.listen()
    return sock


def can_connect(address: Address) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address.ip else socket.AF_INET) as sock:
        return sock.connect_ex((address.ip, address.port)) == 0


def test_a_held_address_is_shared_by_several_edges_and_takes_no_connection_itself() -> None:
    with held("127.0.0.1", 0) as address:
        assert not can_connect(address)
        with shares(address), shares(address):
            assert can_connect(address)
        assert not can_connect(address)


def test_nobody_else_takes_a_held_port() -> None:
    with held("127.0.0.1", 0) as address, socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", address.port))


def test_it_is_free_afterwards() -> None:
    with held("127.0.0.1", 0) as first:
        pass
    with held("127.0.0.1", first.port) as again:
        assert first == again


@pytest.mark.parametrize("listener", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - whoever listens everywhere has it too
def test_a_port_on_which_something_listens_is_refused(listener: str) -> None:
    with socket.create_server((listener, 0)) as taken, pytest.raises(PortError, match=r"in use.*--port 0"):
        held("127.0.0.1", taken.getsockname()[1]).__enter__()


def test_a_name_is_resolved_once_and_shown_as_given() -> None:
    with held("localhost", 0) as address:
        assert address.ip in {"127.0.0.1", "::1"}
        assert f"http://localhost:{address.port}" == address.url


def test_an_ipv6_address_is_in_brackets() -> None:
    require(socket.has_dualstack_ipv6(), "IPv6")
    with held("::1", 0) as address:
        assert f"http://[::1]:{address.port}" == address.url


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_a_host_that_is_not_ours_is_named(host: str) -> None:
    with pytest.raises(PortError, match=f"--host {host} is no address of this machine"), held(host, 0):
        pass
