"""`warmwire up` as a supervisor. Its roles are stand-ins that fail on request; all else is real."""

import os
import re
import signal
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import nats
import pytest

from tests.compose.running import Running, parent_of, running, wait_for_the_end_of
from tests.conftest import SECONDS, wait_for
from tests.system.cluster import free_ports

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

WITH_STAND_INS = (sys.executable, str(Path(__file__).parent / "stand_ins" / "up.py"))

ROLES = ["nats-server", "worker.py", "edge.py"]  # a part of each one's command line

Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def go(name: str = "up", **environment: str) -> Running:
            return stack.enter_context(running(tmp_path / name, WITH_STAND_INS, environment))

        yield go


@pytest.fixture
def ready(start: Start) -> Running:
    up = start()
    up.wait_until_ready()
    return up


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def is_open(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def nats_url(up: Running) -> str:
    found = re.search(r"NATS at (\S+)", up.stderr)
    assert found, up.stderr
    return found[1]


def test_it_prints_one_line_that_is_the_address(ready: Running) -> None:
    with urllib.request.urlopen(f"{ready.url}/readyz", timeout=5 * SECONDS) as answer:  # noqa: S310 - our own http URL
        assert answer.status == 200
    assert re.fullmatch(r"ready http://127\.0\.0\.1:\d+\n", ready.stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_nothing_left(start: Start, number: signal.Signals) -> None:
    up = start(WARMWIRE_WORKERS="2", WARMWIRE_EDGES="2")
    up.wait_until_ready()
    below, ports = up.below(), [port_of(up.url), port_of(nats_url(up))]
    assert 5 == len(below)
    up.signal(number)
    assert 0 == up.end()
    assert [False, False] == [is_open(port) for port in ports]
    wait_for_the_end_of(below)


def test_a_signal_before_it_is_ready_ends_it_too(start: Start) -> None:
    up = start(STAND_IN_EDGE="never ready")
    up.wait_until_it_says("NATS at")
    below = up.below()
    up.signal(signal.SIGTERM)
    assert (0, "") == (up.end(), up.stdout)
    wait_for_the_end_of(below)


def test_kill_9_leaves_nothing(ready: Running) -> None:
    below = ready.below()
    ready.signal(signal.SIGKILL)
    ready.end()
    wait_for_the_end_of(below)


def test_a_second_signal_forces(start: Start) -> None:
    up = start(STAND_IN_WORKER="ignores SIGTERM")
    up.wait_until_ready()
    below = up.below()
    up.signal(signal.SIGINT)
    up.wait_until_it_says("once more to force")
    up.signal(signal.SIGINT)
    assert 1 == up.end()  # well before it would be killed for its slowness
    wait_for_the_end_of(below)


def test_a_role_that_does_not_end_in_time_is_killed(start: Start) -> None:
    up = start(STAND_IN_WORKER="ignores SIGTERM", WARMWIRE_STOP_TIMEOUT="0.2")
    up.wait_until_ready()
    up.signal(signal.SIGTERM)
    assert 0 == up.end()
    assert "worker-1 did not end within 0.2 s and is killed" in up.stderr


@pytest.mark.parametrize("part", ROLES)
def test_a_dead_child_is_started_again_and_said_so(ready: Running, part: str) -> None:
    before = ready.child(part)
    os.kill(before, signal.SIGKILL)
    ready.wait_until_it_says("ended (signal SIGKILL) and starts again in 0.1 s")
    wait_for(
        lambda: [pid for pid, command in ready.below().items() if part in command and pid != before],
        "another",
    )
    wait_for(
        lambda: is_open(port_of(ready.url)) and is_open(port_of(nats_url(ready))), "both ports to be open"
    )
    assert parent_of(before) is None


async def test_nats_keeps_its_url_and_its_data_when_it_starts_again(ready: Running) -> None:
    url = nats_url(ready)
    client = await nats.connect(url)
    await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
    await client.jetstream().publish("kept", b"this")
    await client.close()
    os.kill(ready.child("nats-server"), signal.SIGKILL)
    ready.wait_until_it_says("nats-server ended (signal SIGKILL)")
    wait_for(lambda: is_open(port_of(url)), "nats-server")
    client = await nats.connect(url)
    kept = await client.jetstream().get_last_msg("KEPT", "kept")
    await client.close()
    assert b"this" == kept.data


def test_a_role_that_refuses_its_settings_ends_all_with_its_one_line(start: Start) -> None:
    up = start(STAND_IN_WORKER="refuses its settings", STAND_IN_EDGE="never ready")
    assert (2, "") == (up.end(), up.stdout)
    assert "warmwire: --cli: nothing that we know" == up.stderr.splitlines()[-1]
    assert {} == up.below()


def test_never_ready_is_said_with_what_is_missing(start: Start) -> None:
    up = start(STAND_IN_EDGE="never ready", WARMWIRE_START_TIMEOUT=f"{5 * SECONDS:g}")
    assert (1, "") == (up.end(), up.stdout)
    said = f"warmwire: not ready within {5 * SECONDS:g} s: no worker has a free slot"
    assert said == up.stderr.splitlines()[-1]


def fails_at_once(up: Running, expected: str, code: int = 1) -> None:
    assert (code, "") == (up.end(), up.stdout)
    assert re.fullmatch(f"warmwire: {expected}\n", up.stderr), up.stderr


def test_a_nats_server_that_does_not_listen_in_time_is_said(start: Start, tmp_path: Path) -> None:
    stream = tmp_path / "up" / "data" / "nats" / "store" / "jetstream" / "$G" / "streams" / "S"
    stream.mkdir(parents=True)
    os.mkfifo(stream / "meta.inf")  # the server reads it before it listens, and nobody writes it
    up = start(WARMWIRE_START_TIMEOUT="0.5", WARMWIRE_STOP_TIMEOUT="0.5")
    assert (1, "") == (up.end(), up.stdout)
    assert "warmwire: not ready within 0.5 s: nats-server does not listen: see " in up.stderr


def test_a_port_in_use_is_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fails_at_once(
            start(WARMWIRE_PORT=str(port)), f"port {port} on 127.0.0.1 is in use: choose another .*"
        )


def test_a_port_in_use_by_another_up_is_one_line(ready: Running, start: Start) -> None:
    port = port_of(ready.url)
    fails_at_once(start("other", WARMWIRE_PORT=str(port)), f"port {port} on 127.0.0.1 is in use: .*")


def test_a_host_that_is_not_ours_is_one_line(start: Start) -> None:
    fails_at_once(start(WARMWIRE_HOST="192.0.2.1"), r"--host 192\.0\.2\.1 is no address of this machine")


def test_a_data_folder_that_cannot_be_written_is_one_line(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fails_at_once(
        start(WARMWIRE_DATA=str(tmp_path / "file" / "data")), "data folder .* cannot be written: .*"
    )


def test_a_full_disk_is_one_line(start: Start, tmp_path: Path) -> None:
    (tmp_path / "up" / "data").mkdir(parents=True)
    (tmp_path / "up" / "data" / "lock").symlink_to("/dev/full")
    fails_at_once(start(), r"data folder .* cannot be written: .*")


def test_a_data_folder_in_use_is_one_line(ready: Running, start: Start, tmp_path: Path) -> None:
    up = start("other", WARMWIRE_DATA=str(tmp_path / "up" / "data"))
    fails_at_once(up, f"data folder .* is in use by process {ready.process.pid}, .*")


def test_a_data_folder_is_free_again_after_kill_9(ready: Running, start: Start, tmp_path: Path) -> None:
    ready.signal(signal.SIGKILL)
    ready.end()
    start("other", WARMWIRE_DATA=str(tmp_path / "up" / "data")).wait_until_ready()


def test_an_unreachable_nats_is_one_line_within_seconds(start: Start) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refused
        url = f"nats://127.0.0.1:{closed.getsockname()[1]}"
        fails_at_once(start(WARMWIRE_NATS=url), f"no NATS server answers at {url} .*")


def test_a_bad_nats_url_is_one_line(start: Start) -> None:
    fails_at_once(
        start(WARMWIRE_NATS="http://127.0.0.1:x"),
        r"--nats \(WARMWIRE_NATS\) .*: a NATS URL looks like nats://host:4222",
        code=2,
    )


def test_a_running_nats_is_used_instead_of_the_embedded_one(start: Start, nats_server: str) -> None:
    up = start(WARMWIRE_NATS=nats_server)
    up.wait_until_ready()
    assert nats_server == nats_url(up)
    assert not [command for command in up.below().values() if "nats-server" in command]


def test_the_embedded_nats_listens_where_it_is_asked_to(start: Start) -> None:
    (port,) = free_ports(1)
    up = start(WARMWIRE_NATS_PORT=str(port))
    up.wait_until_ready()
    assert f"nats://127.0.0.1:{port}" == nats_url(up)


def test_a_nats_port_in_use_is_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = start(WARMWIRE_NATS_PORT=str(port))
        assert (1, "") == (up.end(), up.stdout)
        last = up.stderr.splitlines()[-1]
        assert last.startswith("warmwire: nats-server ended at its start: ")
        assert f"127.0.0.1:{port}" in last


def test_a_setting_of_a_role_that_cannot_work_is_one_line(start: Start) -> None:
    expected = r"--max-turns-at-once \(WARMWIRE_MAX_TURNS\) 'many': .*"
    fails_at_once(start(WARMWIRE_MAX_TURNS="many"), expected, code=2)


def test_only_workers_see_the_credential(start: Start) -> None:
    up = start(ANTHROPIC_API_KEY="a-secret")
    up.wait_until_ready()
    see_it = {part: b"a-secret" in environment_of(up.child(part)) for part in ROLES}
    assert {"nats-server": False, "worker.py": True, "edge.py": False} == see_it


def test_a_missing_cli_is_one_line(start: Start) -> None:
    fails_at_once(start(WARMWIRE_CLI="no-such-cli --flag"), "--cli: .*'no-such-cli'", code=2)


def test_a_missing_claude_is_one_line_that_says_how_to_get_it(start: Start, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked" / "claude_agent_sdk"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").touch()
    environment = {"PATH": str(tmp_path), "PYTHONPATH": str(blocked.parent), "WARMWIRE_CLI": "claude"}
    expected = r"--cli: no claude CLI found: .* pip install claude-agent-sdk"
    fails_at_once(start(**environment), expected, code=2)
