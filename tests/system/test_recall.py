"""A session begun on one worker knows its conversation on another, after the first was killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from warmwire.producer import Producer

from tests.conftest import SECONDS
from tests.standin.messages_api import MessagesApi
from tests.system.cluster import Cluster

SAID = ("remember the heron", "and the otter")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path / "cluster") as cluster:
        yield cluster


async def recalled_after_kill(cluster: Cluster, **environment: str) -> str:
    """What `recall` answers on a second worker, after the first was killed with -9."""
    given = {f"WARMWIRE_{name.upper()}": value for name, value in environment.items()}
    (first,) = await cluster.start_workers(1, environment=given)
    async with Producer.connect(cluster.url) as producer:
        for message in SAID:
            await (await producer.send(message, session_id="s1")).text()
        first.kill()
        (second,) = await cluster.start_workers(1, environment=given)
        assert first.id != second.id
        return await (await producer.send("recall", session_id="s1")).text()


async def test_the_emulator_recalls(cluster: Cluster) -> None:
    answer = await recalled_after_kill(cluster, emulator_rate="500")
    assert [answer.count(message) for message in SAID] == [1, 1]


@pytest.mark.claude
@pytest.mark.timeout(300 * SECONDS)
async def test_the_real_cli_recalls(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async with MessagesApi() as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-dummy")
        answer = await recalled_after_kill(cluster, cli="claude", spares="0")
    assert answer.splitlines() == list(SAID)
