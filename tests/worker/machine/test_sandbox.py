"""CLIs in bubblewrap: what they see of the machine, and that they start, stop and end as outside of it."""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from warmwire.broker.errors import BadInput
from warmwire.edge.settings import EdgeSettings
from warmwire.worker.cli.launch import Launch
from warmwire.worker.cli.program import find_claude
from warmwire.worker.machine import sandbox, tree
from warmwire.worker.machine.process import Exit
from warmwire.worker.machine.processes import Processes
from warmwire.worker.machine.sandbox import Sandbox

from tests.client import eventually
from tests.compose.secured import served
from tests.conftest import require
from tests.edge.conftest import serving
from tests.standin.messages_api import Behaviour, MessagesApi
from tests.system.product import Product, end_of, ended, only, text_of
from tests.worker.conftest import Start, starting

PLAIN = Path(__file__).parents[2] / "standin" / "plain_cli.py"
OUTSIDE = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def bwrap() -> Path:
    """The program. A missing package is an error in CI; a kernel that forbids it is said, wherever it is."""
    found = shutil.which("bwrap")
    require(found, "bwrap (bubblewrap)")
    assert found is not None
    why = sandbox.check(Path(found))
    if why is not None:
        pytest.skip(f"this kernel or container does not let bwrap work: {why}")
    return Path(found)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """As a worker starts them."""
    async with starting(Processes(tmp_path / "worker", alone=False).start) as start_one:
        yield start_one


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A data folder with two sessions."""
    for session in ("mine", "yours"):
        (tmp_path / "data" / session / "work").mkdir(parents=True)
        (tmp_path / "data" / session / "secret").write_text("of " + session)
    (tmp_path / "data" / "pool.key").write_text("a key")
    return tmp_path / "data"


def _own_network() -> str:
    return str(Path("/proc/self/ns/net").readlink())


def plan(data: Path, script: str, *, argv: tuple[str, ...] = (), **options: Any) -> Launch:
    own = data / "mine"
    environment = {"PATH": os.environ["PATH"], "HOME": str(own), "TMPDIR": str(own)}
    plain = Launch(argv or ("sh", "-c", script), environment, own / "work", (own, own / "work"))
    program = shutil.which("bwrap")
    assert program is not None
    secrets = options.pop("secrets", ())
    return Sandbox(Path(program), data, secrets).enclosed(plain, **{"network": True, **options})


async def said(start: Start, launch: Launch) -> list[str]:
    """What a script prints, to its end."""
    running = await start(launch)
    await running.until(Exit)
    return [line.decode() for line in running.raw]


@pytest.mark.usefixtures("bwrap")
class TestPolicy:
    async def test_its_own_folder_can_be_written_and_the_rest_cannot(
        self, start: Start, folders: Path
    ) -> None:
        script = f"echo x > made; cat ../secret; for at in / /etc {OUTSIDE}; do touch $at/x || echo no; done"
        (folders / "mine" / "secret").write_text("of mine\n")
        assert ["of mine", "no", "no", "no"] == await said(start, plan(folders, script))
        assert (folders / "mine" / "work" / "made").is_file()

    async def test_other_sessions_are_not_there(self, start: Start, folders: Path) -> None:
        assert ["mine"] == await said(start, plan(folders, f"ls {folders}"))

    async def test_neither_are_other_processes(self, start: Start, folders: Path) -> None:
        (many,) = await said(start, plan(folders, "ls /proc | grep -c '^[0-9]'"))
        assert int(many) < 10
        assert [""] != await said(start, plan(folders, f"test -e /proc/{os.getpid()}/environ || echo none"))

    async def test_temporary_files_of_others_are_not_there(self, start: Start, folders: Path) -> None:
        script = "ls /tmp /run; echo x > /tmp/x && cat /tmp/x"
        lines = await said(start, plan(folders, script))
        assert "x" == lines[-1]
        assert str(os.getpid()) not in " ".join(lines)
        assert not {"docker.sock", "containerd", "dbus"} & set(lines)

    async def test_a_cli_that_is_installed_among_them_is_there_and_cannot_be_written(
        self, start: Start, folders: Path, tmp_path: Path
    ) -> None:
        cli, beside = tmp_path / "bin" / "cli", tmp_path / "beside"
        cli.parent.mkdir()
        cli.write_text(f"#!/bin/sh\nls {beside} || echo x >> $0 || echo unchanged\n")
        cli.chmod(0o755)
        beside.touch()
        assert ["unchanged"] == await said(start, plan(folders, "", argv=(str(cli),)))

    async def test_what_is_hidden_is_empty(self, start: Start, folders: Path, tmp_path: Path) -> None:
        hidden, key = tmp_path / "hidden", tmp_path / "key"
        hidden.mkdir()
        (hidden / "file").touch()
        key.write_text("a key")
        script = f"ls {hidden}; cat {key}; echo end"
        launch = plan(folders, script, hide=(hidden, key), secrets=(folders / "pool.key",))
        assert ["end"] == await said(start, launch)

    @pytest.mark.parametrize("network", [False, True])
    async def test_the_network_is_as_set(self, start: Start, folders: Path, network: bool) -> None:
        script = "readlink /proc/self/ns/net; tail -n +3 /proc/net/dev | cut -d: -f1"
        namespace, *devices = await said(start, plan(folders, script, network=network))
        assert network is (namespace == _own_network())
        assert network or ["lo"] == [device.strip() for device in devices]

    async def test_with_its_outside_all_of_it_dies(self, start: Start, folders: Path) -> None:
        running = await start(plan(folders, "setsid sleep 600 & echo started; sleep 600"))
        await eventually(lambda: running.raw, "it runs")
        inside = tree.descendants([running.process.pid])
        assert len(inside) >= 3
        os.kill(running.process.pid, signal.SIGKILL)
        await eventually(
            lambda: not any(state(pid) not in (None, "Z") for pid in inside), "all of it is gone"
        )

    async def test_it_has_no_capabilities_even_as_root(self, start: Start, folders: Path) -> None:
        (line,) = await said(start, plan(folders, "grep CapEff /proc/self/status"))
        assert 0 == int(line.split()[1], 16)

    async def test_kept_folders_of_others_are_not_there(
        self, start: Start, folders: Path, tmp_path: Path
    ) -> None:
        kept = tmp_path / "kept"
        for session in ("mine", "yours"):
            (kept / session).mkdir(parents=True)
        own = plan(folders, "pwd; ls ..")
        plain = Launch(own.argv[own.argv.index("--") + 1 :], own.env, kept / "mine", own.folders)
        enclosed = Sandbox(Path(own.argv[0]), folders).enclosed(plain, network=True, kept=kept)
        assert [str(kept / "mine"), "mine"] == await said(start, enclosed)


# As bwrap 0.8 says it, as a container's mount goes away just then.
LOST = "bwrap: Can't bind mount /oldroot/ on /newroot/: Unable to apply mount flags: Invalid argument"


@pytest.mark.usefixtures("bwrap")
class TestAMountThatGoesAway:
    async def test_meanwhile_is_nobodys_end(self, start: Start, folders: Path, tmp_path: Path) -> None:
        launch = plan(folders, f"ls {folders}")
        failing = replace(launch, argv=(str(failing_bwrap(tmp_path, 2)), *launch.argv[1:]))
        running = await start(failing)
        assert 0 == (await running.until(Exit))[1].returncode
        assert [b"mine"] == running.raw

    async def test_each_time_is_told_once(self, start: Start, folders: Path, tmp_path: Path) -> None:
        launch = plan(folders, "exit 0")
        failing = replace(launch, argv=(str(failing_bwrap(tmp_path, 9)), *launch.argv[1:]))
        heard, ended = await (await start(failing)).until(Exit)
        assert ([ended], 1, LOST) == (heard, ended.returncode, ended.stderr.strip())
        assert sandbox.TRIES == len(tried(tmp_path))

    async def test_what_fails_otherwise_is_not_tried_again(
        self, start: Start, folders: Path, tmp_path: Path
    ) -> None:
        launch = plan(folders, "exit 0")
        failing = replace(launch, argv=(str(failing_bwrap(tmp_path, 9, "bwrap: No")), *launch.argv[1:]))
        assert "bwrap: No" == (await (await start(failing)).until(Exit))[1].stderr.strip()
        assert 1 == len(tried(tmp_path))

    async def test_one_whose_start_is_given_up_meanwhile_is_not_there(
        self, start: Start, folders: Path, tmp_path: Path
    ) -> None:
        waits = tmp_path / "bwrap"
        waits.write_text(f"#!/bin/sh\nmkdir {tmp_path}/try-1\nexec sleep 600\n")
        waits.chmod(0o755)
        launch = plan(folders, "exit 0")
        being_started = asyncio.ensure_future(start(replace(launch, argv=(str(waits),))))
        await eventually(lambda: tried(tmp_path), "it has begun")
        being_started.cancel()
        with pytest.raises(asyncio.CancelledError):
            await being_started
        assert set() == tree.working_in(folders)

    @pytest.mark.parametrize(("failures", "why"), [(2, None), (3, LOST)])
    def test_while_a_sandbox_is_tried_out_is_none_of_its_faults(
        self, tmp_path: Path, failures: int, why: str | None
    ) -> None:
        assert why == sandbox.check(failing_bwrap(tmp_path, failures))


def failing_bwrap(folder: Path, failures: int, says: str = LOST) -> Path:
    """bubblewrap that fails so many times first."""
    script = folder / "bwrap"
    script.write_text(
        f"""#!/bin/sh
for n in {" ".join(map(str, range(failures)))}; do
    mkdir {folder}/try-$n 2>/dev/null && echo {shlex.quote(says)} >&2 && exit 1
done
exec {shutil.which("bwrap")} "$@"
"""
    )
    script.chmod(0o755)
    return script


def tried(folder: Path) -> list[Path]:
    """The times that it has failed."""
    return list(folder.glob("try-*"))


def test_without_the_program_the_operator_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="install bubblewrap"):
        sandbox.found(tmp_path)


def test_where_it_cannot_work_the_operator_is_told_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "bwrap"
    script.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(BadInput, match="No permissions to create new namespace"):
        sandbox.found(tmp_path)


# --- a worker ----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMWIRE_EMULATOR_RATE", "500")
    monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", "hang:3")
    monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT_ON", "long")


def enclosed_in(folder: Path) -> set[int]:
    """The processes of bubblewrap whose home is there."""
    return {pid for pid in tree.working_in(folder) if "bwrap" in _command(pid)}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return ""


@pytest.mark.usefixtures("bwrap")
class TestWorker:
    @pytest.mark.parametrize("spares", [0, 1])
    async def test_turns_run_in_it_and_nothing_is_left(
        self, product: Product, tmp_path: Path, spares: int
    ) -> None:
        worker = await product.work(sandbox="bwrap", spares=spares)
        await eventually(lambda: spares == sum(s.ready for s in worker._supply.spares()), "the spare")
        assert "turn_completed" == (await product.ask("the heron"))[-1][0]
        assert enclosed_in(tmp_path)
        assert "the heron" in text_of(await product.ask("recall"))
        await worker.stop()
        assert set() == tree.working_in(tmp_path)

    async def test_a_turn_in_it_is_interrupted_and_frozen_as_outside(
        self, product: Product, tmp_path: Path
    ) -> None:
        await product.work(sandbox="bwrap", freeze_after=0)
        stream = await product.chat("a long one")
        await stream.until("content_block_delta")
        await product.interrupt()
        assert "turn_interrupted" == (await ended(stream))[-1][0]
        inside = {process.pid for process in map(tree.seen, tree.working_in(tmp_path)) if process}
        stopped = "T"
        await eventually(lambda: all(state(pid) == stopped for pid in inside), "all of it is frozen")
        assert "a long one" in text_of(await product.ask("recall"))

    async def test_an_interrupt_by_signal_ends_the_turn_and_not_the_sandbox(
        self, product: Product, tmp_path: Path
    ) -> None:
        cli = shlex.join((sys.executable, str(PLAIN), "--polite"))
        await product.work(sandbox="bwrap", cli=cli, dialect="stream-json")
        stream = await product.chat("long")
        await stream.until("content_block_delta")
        before = enclosed_in(tmp_path)
        await product.interrupt()
        assert "turn_interrupted" == (await ended(stream))[-1][0]
        assert "long" in text_of(await product.ask("recall"))
        assert before == enclosed_in(tmp_path)

    async def test_a_cli_that_dies_in_it_fails_its_turn_and_the_next_one_has_the_memory(
        self, product: Product, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", "crash:2")
        await product.work(sandbox="bwrap")
        await product.ask("the heron")
        assert "cli_crashed" == end_of(await product.ask("a long one"))["code"]
        assert "the heron" in text_of(await product.ask("recall"))

    async def test_a_profile_may_ask_for_it_or_do_without(self, product: Product, tmp_path: Path) -> None:
        profiles = tmp_path / "profiles.toml"
        profiles.write_text('[inside]\nsandbox = "bwrap"\n[outside]\nsandbox = "none"\n')
        await product.work(profiles=profiles)
        await product.ask("Hello", profile="outside")
        await product.ask("Hello", "s2")
        assert set() == enclosed_in(tmp_path)
        await product.ask("Hello", "s3", profile="inside")
        assert enclosed_in(tmp_path)


@asynccontextmanager
async def worker_process(settings: Mapping[str, str]) -> AsyncIterator[int]:
    """The pid of a worker, which is killed in the end."""
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "warmwire.worker"), env={**os.environ, **settings}
    )
    try:
        yield worker.pid
    finally:
        worker.kill()
        await worker.wait()


@pytest.mark.usefixtures("bwrap")
async def test_a_worker_that_is_killed_leaves_nothing_in_it(product: Product, tmp_path: Path) -> None:
    given = {**product.given, "data": str(tmp_path / "data"), "cli": "emulator", "sandbox": "bwrap"}
    environment = {f"WARMWIRE_{name.upper()}": value for name, value in given.items()}
    async with worker_process(environment):
        stream = await product.chat("a long one")
        await stream.until("content_block_delta")
        assert enclosed_in(tmp_path)
    await eventually(lambda: not tree.working_in(tmp_path), "nothing is left")


@pytest.mark.usefixtures("bwrap")
@pytest.mark.parametrize("kind", ["bwrap", "none"])
async def test_what_a_worker_logs_in_with_can_be_read_from_outside_of_it_only(
    tmp_path: Path, kind: str
) -> None:
    canary = secrets.token_hex(8)
    with TemporaryDirectory(dir="/var/tmp") as outside, served(Path(outside), "--no-tls") as nats:
        settings = nats.environment("worker") | {
            "WARMWIRE_DATA": str(tmp_path / "data"),
            "WARMWIRE_CLI": shlex.join((sys.executable, str(PLAIN))),
            "WARMWIRE_DIALECT": "stream-json",
            "WARMWIRE_SANDBOX": kind,
            "OPERATORS_OWN": canary,
        }
        (password,) = (path for path in (Path(outside) / "users").iterdir() if path.stem == "worker")
        edge_settings = EdgeSettings(**nats.settings("edge"), port=0)
        async with serving(edge_settings) as edge, worker_process(settings) as pid:
            product = Product(nats.url, "ww", tmp_path, edge.wire, edge.edge)
            await eventually(lambda: edge.edge.not_ready() is None, "the edge hears the worker")
            environ = f"/proc/{pid}/environ"
            told = text_of(await product.ask(f"holds {password.read_text().strip()} {password}"))
            seen = text_of(await product.ask(f"holds {canary} {environ} /proc/[0-9]*/environ"))
    assert {"none": str(password), "bwrap": ""}[kind] == told
    assert (kind == "none") is (environ in seen)
    assert (kind == "none") is bool(seen)


def state(pid: int) -> str | None:
    """What the kernel says of it; None when it is gone."""
    process = tree.seen(pid)
    return process.state if process else None


@pytest.mark.claude
@pytest.mark.usefixtures("bwrap")
async def test_the_real_cli_works_in_it_and_its_tools_see_no_other_session(
    product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(find_claude(), "claude CLI (pip install 'warmwire[claude]')")
    profiles = tmp_path / "profiles.toml"
    profiles.write_text('[default]\ntools = ["Bash"]\nallowed_tools = ["Bash"]\nsandbox = "bwrap"\n')
    look = f"ls {tmp_path}/data/workers/*/sessions/default; ls {tmp_path}"
    async with MessagesApi(Behaviour(text="Done.", tool=look)) as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "made up")
        await product.work(cli="claude", profiles=profiles)
        await product.ask("Hello", "mine")
        events = await product.ask("Hello", "yours")
    assert "turn_completed" == events[-1][0]
    assert "yours" in only("tool_finished", events)["summary"]
    assert "mine" not in only("tool_finished", events)["summary"]
