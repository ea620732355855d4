"""Alerts by promtool; alerts and dashboard on a real Prometheus that scrapes a run with injected faults.

There the rules are ``alerts.yml`` with every duration divided by ``QUICKER``: nobody waits for minutes.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from warmwire.broker.telemetry import INSTRUMENTS
from warmwire.worker.cli.program import cli_command

from tests.compose.running import Running, running
from tests.conftest import SECONDS, require, wait_for
from tests.system.cluster import free_ports, is_free

HERE = Path(__file__).parents[2] / "compose" / "observability"
QUICKER = 60
SLOW_MS = 1500


@pytest.mark.parametrize(
    "arguments", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_the_alerts_fire_at_their_faults_and_resolve(arguments: tuple[str, ...]) -> None:
    require(shutil.which("promtool"), "promtool (Debian package prometheus)")
    said = subprocess.run(["promtool", *arguments], cwd=HERE, check=False, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "SUCCESS" in said.stdout


def test_the_dashboard_is_what_its_code_says() -> None:
    check = [sys.executable, str(HERE / "dashboard.py"), "--check"]
    assert subprocess.run(check, check=False).returncode == 0


class Prometheus:
    """A real one, which scrapes a `warmwire up`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **query: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=query, timeout=20 * SECONDS)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def query(self, query: str) -> list[Any]:
        result: list[Any] = self.ask("query", query=query)["result"]
        return result

    def firing(self, alert: str) -> bool:
        alerts = self.ask("alerts")["alerts"]
        return any(each["labels"]["alertname"] == alert and each["state"] == "firing" for each in alerts)


def quicker(rules: str) -> str:
    """The rules with every window and every ``for`` divided by ``QUICKER``."""

    def divided(found: re.Match[str]) -> str:
        seconds = int(found["count"]) * {"m": 60, "s": 1}[found["unit"]]
        return f"{found['before']}{seconds * 1000 // QUICKER}ms"

    return re.sub(r"(?P<before>\[|for: )(?P<count>\d+)(?P<unit>[ms])\b", divided, rules)


def test_only_durations_are_quicker() -> None:
    rule = "expr: rate(x_bucket[5m]) > 0.5\nfor: 30s\nsummary: for 2m"
    assert "expr: rate(x_bucket[5000ms]) > 0.5\nfor: 500ms\nsummary: for 2m" == quicker(rule)


@contextmanager
def scraping(folder: Path, edge: str, worker: str) -> Iterator[Prometheus]:
    require(shutil.which("prometheus"), "prometheus (Debian package prometheus)")
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [target]}]}
        for name, target in (("edge", edge), ("worker", worker))
    ]
    rules = folder / "alerts.yml"
    rules.write_text(quicker((HERE / "alerts.yml").read_text()))
    often = {"scrape_interval": "300ms", "scrape_timeout": "300ms", "evaluation_interval": "300ms"}
    config = {"global": often, "rule_files": [str(rules)], "scrape_configs": jobs}
    file, (port,) = folder / "prometheus.yml", free_ports(1)
    file.write_text(json.dumps(config))
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(30 * SECONDS)


class Product(NamedTuple):
    """A `warmwire up`, its worker's port for metrics, and how slow its next CLI will be."""

    up: Running
    metrics: str
    ttft_ms: Path


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp("prometheus")
    # The edge's metrics are on the next one.
    port = next(port for port in free_ports(10) if is_free(port + 1))
    ttft_ms, cli = folder / "ttft_ms", folder / "cli"
    ttft_ms.write_text("20")
    emulator = shlex.join(cli_command("emulator"))
    cli.write_text(f'#!/bin/sh\nWARMWIRE_EMULATOR_TTFT_MS=$(cat {ttft_ms}) exec {emulator} "$@"\n')
    cli.chmod(0o755)
    environment = {
        "WARMWIRE_METRICS_PORT": str(port),
        "WARMWIRE_EMULATOR_RATE": "20",
        "WARMWIRE_CLI": str(cli),
        "WARMWIRE_SPARES": "0",  # a spare would be as quick or slow as it was when it was started
    }
    with running(folder / "up", environment=environment) as up:
        up.wait_until_ready()
        yield Product(up, f"127.0.0.1:{port}", ttft_ms)


@pytest.fixture(scope="module")
def prometheus(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    edge, folder = product.up.url.removeprefix("http://"), tmp_path_factory.mktemp("tsdb")
    with scraping(folder, edge, product.metrics) as prometheus:
        wait_for(lambda: answers(prometheus), "Prometheus answers", 30)
        chat(product.up, "s1")  # so that its series are there before the next ones count
        wait_for(lambda: len(prometheus.query("up == 1")) == 2, "both are scraped", 30)
        yield prometheus


def chat(up: Running, session: str, *, dying: bool = False) -> None:
    body, url = {"session_id": session, "message": "Hello"}, f"{up.url}/v1/chat/stream"
    with httpx.stream("POST", url, json=body, timeout=60 * SECONDS) as answer:
        for line in answer.iter_lines():
            if dying and line == "event: content_block_delta":
                os.kill(up.child("warmwire.worker"), signal.SIGKILL)
                dying = False


@contextmanager
def chatting(up: Running, name: str, at_once: int) -> Iterator[None]:
    """Turn after turn in so many sessions, until the end of the block."""
    enough = threading.Event()

    def talk(session: str) -> None:
        while not enough.is_set():
            chat(up, session)

    threads = [threading.Thread(target=talk, args=(f"{name}{number}",)) for number in range(at_once)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def wait_until(prometheus: Prometheus, alert: str, *, fires: bool, within: float = 60) -> None:
    wait_for(lambda: prometheus.firing(alert) is fires, f"{alert} {'fires' if fires else 'resolves'}", within)


@pytest.mark.slow
def test_every_query_of_the_dashboard_has_data(product: Product, prometheus: Prometheus) -> None:
    queries = runpy.run_path(str(HERE / "dashboard.py"))["queries"]()
    for number in range(3):
        chat(product.up, f"q{number}")
    wait_for(lambda: not lacking(prometheus, queries), "data for every query", 30)
    assert lacking(prometheus, ["no_such_metric"])


@pytest.mark.slow
def test_a_slow_cli_fires_the_alert_and_a_quick_one_resolves_it(
    product: Product, prometheus: Prometheus
) -> None:
    assert not prometheus.firing("WarmwireFirstDeltaSlow")
    product.ttft_ms.write_text(str(SLOW_MS))
    with chatting(product.up, "slow", 6):
        wait_until(prometheus, "WarmwireFirstDeltaSlow", fires=True)
        wait_for(
            lambda: slowest_stage(prometheus) == "cli", "the CLI is the slowest, past its six starts", 30
        )
    product.ttft_ms.write_text("20")
    with chatting(product.up, "quick", 2):
        wait_until(prometheus, "WarmwireFirstDeltaSlow", fires=False)


def slowest_stage(prometheus: Prometheus) -> str:
    """Of those that a turn passes one after the other."""
    one_by_one = '{stage=~"accept|queue|process|cli"}'
    spent = f"topk(1, sum by (stage) (increase(warmwire_ttft_seconds_sum{one_by_one}[10s])))"
    (found,) = prometheus.query(spent)
    stage: str = found["metric"]["stage"]
    return stage


@pytest.mark.slow
def test_a_killed_worker_fires_the_takeover_alert_for_a_while(
    product: Product, prometheus: Prometheus
) -> None:
    assert not prometheus.firing("WarmwireTakeovers")
    chat(product.up, "killed", dying=True)
    wait_until(prometheus, "WarmwireTakeovers", fires=True)
    assert not prometheus.firing("WarmwireGaps")
    wait_until(prometheus, "WarmwireTakeovers", fires=False)


@pytest.mark.slow
def test_without_its_only_worker_there_is_no_capacity_until_it_is_back(
    product: Product, prometheus: Prometheus
) -> None:
    alerts = ("WarmwireNotReady", "WarmwireNoFreeSlots")
    product.up.signal(signal.SIGSTOP)  # nobody starts another worker
    try:
        os.kill(product.up.child("warmwire.worker"), signal.SIGKILL)
        for alert in alerts:
            wait_until(prometheus, alert, fires=True)
    finally:
        product.up.signal(signal.SIGCONT)
    for alert in alerts:
        wait_until(prometheus, alert, fires=False)


def answers(prometheus: Prometheus) -> bool:
    try:
        return bool(httpx.get(f"{prometheus.url}/-/ready").status_code == 200)
    except httpx.TransportError:
        return False


def lacking(prometheus: Prometheus, queries: list[str]) -> list[str]:
    """The queries without data."""
    return [query for query in queries if not prometheus.query(query.replace("$__rate_interval", "1m"))]


def test_dashboard_and_alerts_name_only_metrics_that_there_are() -> None:
    text = (HERE / "dashboard.json").read_text() + (HERE / "alerts.yml").read_text()
    named = set(re.findall(r"\bwarmwire_[a-z_]+", text))
    known = {name + end for name in INSTRUMENTS for end in ("", "_bucket", "_count", "_sum")}
    assert named <= known
