"""Alerts by promtool; alerts and dashboard on a real Prometheus that scrapes a run in which a worker dies."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from warmwire.broker.telemetry import INSTRUMENTS

from tests.compose.running import Running, running
from tests.conftest import SECONDS, require, wait_for

HERE = Path(__file__).parents[2] / "compose" / "observability"


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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


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


@contextmanager
def scraping(folder: Path, edge: str, worker: str) -> Iterator[Prometheus]:
    require(shutil.which("prometheus"), "prometheus (Debian package prometheus)")
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [target]}]}
        for name, target in (("edge", edge), ("worker", worker))
    ]
    often = {"scrape_interval": "300ms", "scrape_timeout": "300ms", "evaluation_interval": "300ms"}
    config = {"global": often, "rule_files": [str(HERE / "alerts.yml")], "scrape_configs": jobs}
    file, port = folder / "prometheus.yml", free_port()
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


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, int]]:
    port = free_port()
    environment = {"WARMWIRE_METRICS_PORT": str(port), "WARMWIRE_EMULATOR_RATE": "20"}
    with running(tmp_path_factory.mktemp("prometheus") / "up", environment=environment) as up:
        up.wait_until_ready()
        yield up, port


def chat(up: Running, session: str, *, dying: bool = False) -> None:
    body, url = {"session_id": session, "message": "Hello"}, f"{up.url}/v1/chat/stream"
    with httpx.stream("POST", url, json=body, timeout=60 * SECONDS) as answer:
        for line in answer.iter_lines():
            if dying and line == "event: content_block_delta":
                os.kill(up.child("warmwire.worker"), signal.SIGKILL)
                dying = False


@pytest.mark.slow
def test_a_real_prometheus_has_data_for_every_query_and_fires_when_a_worker_dies(
    up: tuple[Running, int], tmp_path: Path
) -> None:
    product, port = up
    queries = runpy.run_path(str(HERE / "dashboard.py"))["queries"]()
    with scraping(tmp_path, product.url.removeprefix("http://"), f"127.0.0.1:{port}") as prometheus:
        wait_for(lambda: answers(prometheus), "Prometheus answers", 30)
        chat(product, "s1")  # so that its series are there before the next ones count
        wait_for(lambda: len(prometheus.query("up == 1")) == 2, "both are scraped", 30)
        for number in range(3):
            chat(product, f"q{number}")
        assert not prometheus.firing("WarmwireTakeovers")
        wait_for(lambda: not lacking(prometheus, queries), "data for every query", 30)
        chat(product, "s2", dying=True)
        wait_for(lambda: prometheus.firing("WarmwireTakeovers"), "the alert", 30)
        assert not prometheus.firing("WarmwireGaps")


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
