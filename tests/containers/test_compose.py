"""The stack of compose.yaml on a real engine, and its files without one."""

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from tests.conftest import SECONDS, engine_runs, require
from tests.containers.chaos import SCENARIOS
from tests.containers.stack import COMPOSE, ROOT, SERVERS, Stack, docker
from tests.system.edge_load import frames
from tests.system.scenario import Plan, play

HERE = ROOT / "compose"
SHORT = ("stop-nats", "cut-worker", "scale", "restart-stack")
"""What is played in every run of the tests; `make container-chaos` plays all, with more sessions."""
SESSIONS = 16
DELTAS, RATE = 30, 10
PROFILES = ("grafana", "tracing", "tools")


def configured(*arguments: str, form: str = "yaml") -> str:
    command = [COMPOSE, *arguments, "config", "--format", form]
    done = subprocess.run(command, cwd=HERE, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("over", ["", "compose.dev.yaml", "compose.public.yaml"])
def test_compose_takes_the_files_with_every_profile(over: str) -> None:
    files = [name for name in ("compose.yaml", over) if name]
    given = [option for name in files for option in ("--file", name)]
    said = configured(*given, *(f"--profile={name}" for name in PROFILES))
    for service in ("nats-1", "worker", "edge", "nginx", "prometheus", "grafana", "otel-collector", "jaeger"):
        assert f"\n  {service}:\n" in said


def test_only_the_public_stack_listens_elsewhere_than_on_loopback_and_it_asks_for_tokens() -> None:
    private = json.loads(configured("--file", "compose.yaml", "--profile=*", form="json"))
    public = json.loads(configured("--file", "compose.yaml", "--file", "compose.public.yaml", form="json"))
    ports = [port for each in private["services"].values() for port in each.get("ports", ())]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert [(port["published"], port["target"]) for port in public["services"]["nginx"]["ports"]] == [
        ("443", 8443)
    ]
    environment = public["services"]["edge"]["environment"]
    assert environment["WARMWIRE_AUTH"] == "jwt"
    assert environment["WARMWIRE_INSECURE_NO_AUTH"] == "false"


def test_each_role_gets_its_grace_period_and_no_secret_in_its_environment() -> None:
    services = json.loads(configured("--file", "compose.yaml", form="json"))["services"]
    drain = float(services["worker"]["environment"]["WARMWIRE_DRAIN_TIMEOUT"])
    grace = re.fullmatch(r"(?:(\d+)m)?(\d+)s", services["worker"]["stop_grace_period"])
    assert grace is not None
    assert int(grace[1] or 0) * 60 + int(grace[2]) > drain + 10
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET", name):
                assert str(value).startswith("/run/secrets/"), name


@pytest.fixture
def answering() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz?all=1" else 503)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("path", "code"), [("/healthz?all=1", 0), ("/readyz", 1)])
def test_the_health_check_is_what_the_url_answers(answering: str, path: str, code: int) -> None:
    assert healthy(f"{answering}{path}") == code


def test_the_health_check_fails_where_nobody_answers() -> None:
    assert healthy("http://127.0.0.1:1/healthz") == 1


def healthy(url: str) -> int:
    command = [sys.executable, "-IS", str(HERE / "images" / "healthy.py"), url]
    return subprocess.run(command, check=False, capture_output=True).returncode


# -- on an engine. One test: four at once would be four stacks.


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(1500 * SECONDS)
async def test_the_stack_serves_chats_and_loses_nothing_whatever_happens_to_it(tmp_path: Path) -> None:
    require(engine_runs(), "Docker engine")
    async with Stack(tmp_path, DELTAS, RATE) as stack:
        await a_chat_goes_through_nginx(stack)
        await every_container_is_locked_up(stack)
        await prometheus_sees_every_role(stack)
        await an_operator_sees_the_workers(stack)
        for name in SHORT:
            outcome = await play(
                name, Plan(tmp_path / name, 1, SESSIONS, DELTAS), partial(SCENARIOS[name], stack)
            )
            assert [] == outcome.violations, name
            assert outcome.hit.turns, f"{name}: the fault hit no turn: nothing was tested"
        await an_edge_and_a_worker_are_replaced(stack)
        await a_chat_goes_through_nginx(stack)


async def a_chat_goes_through_nginx(stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=stack.front, timeout=20 * SECONDS) as client:
        assert "warmwire" in (await client.get("/")).text
        assert (await client.get("/metrics")).status_code == 404
        body = {"session_id": "chat", "message": "Hello"}
        async with client.stream("POST", "/v1/chat/stream", json=body) as response:
            assert response.status_code == 200
            events = [frame.event async for frame in frames(response.aiter_lines())]
    assert events.count("content_block_delta") >= DELTAS
    assert "turn_completed" in events


async def every_container_is_locked_up(stack: Stack) -> None:
    ids = (await stack.compose("ps", "--quiet")).split()
    assert len(ids) == len(SERVERS) + 3 + 2 + 2
    for container in json.loads(await docker("inspect", *ids)):
        host = container["HostConfig"]
        assert container["Config"]["User"] not in ("", "0", "root"), container["Name"]
        assert host["ReadonlyRootfs"], container["Name"]
        assert host["CapDrop"] == ["ALL"], container["Name"]
        assert host["Memory"] > 0, container["Name"]
        assert container["State"]["Health"]["Status"] == "healthy", container["Name"]


async def prometheus_sees_every_role(stack: Stack) -> None:
    async with asyncio.timeout(60 * SECONDS), httpx.AsyncClient(base_url=stack.prometheus) as client:
        while await scraped(client) != {"edge": 2, "worker": 3}:  # noqa: ASYNC110 - it looks every 10 s
            await asyncio.sleep(0.5)


async def scraped(client: httpx.AsyncClient) -> dict[str, int]:
    answer = (await client.get("/api/v1/query", params={"query": "count by (job) (up == 1)"})).json()
    return {each["metric"]["job"]: int(each["value"][1]) for each in answer["data"]["result"]}


async def an_operator_sees_the_workers(stack: Stack) -> None:
    said = await stack.compose("run", "--rm", "--no-deps", "warmwire", "worker", "list")
    listed = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert len(listed) == 3, said


async def an_edge_and_a_worker_are_replaced(stack: Stack) -> None:
    before = {service: await stack.containers(service) for service in ("worker", "edge", "nginx")}
    await stack.script("roll", *before)
    for service, old in before.items():
        now = await stack.containers(service)
        assert len(now) == len(old)
        assert not {*now} & {*old}


def test_each_scenario_says_what_it_does() -> None:
    assert set(SHORT) < set(SCENARIOS)
    assert all(function.__doc__ for function in SCENARIOS.values())
