"""While NATS is away: what is refused, what is waited for, and that all goes on afterwards."""

from __future__ import annotations

import signal
import uuid
from pathlib import Path

from warmwire.edge.settings import EdgeSettings

from tests.client import eventually
from tests.conftest import SECONDS, started_nats_server
from tests.edge.conftest import serving
from tests.edge.fake_worker import working
from tests.edge.wire import Answer


async def test_an_edge_without_nats_says_so_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    prefix = f"t{uuid.uuid4().hex[:12]}"
    with started_nats_server(tmp_path) as (url, nats):
        async with working(url, prefix) as worker, serving(EdgeSettings(nats=url, prefix=prefix)) as serves:
            await eventually(lambda: serves.edge.not_ready() is None, "the edge hears its worker")
            wire = serves.wire
            wire.within = 30 * SECONDS
            answer = await wire.post({"session_id": "s1", "message": "Hello"})
            turn = await worker.next_turn()
            await turn.start()
            cursor = (await answer.until("content_block_start"))[-1][2]
            nats.send_signal(signal.SIGSTOP)
            await says_so(await wire.post({"session_id": "s2", "message": "Hello"}))
            back = await wire.resume("s1", cursor)
            assert (200, b"retry: 1000\n\n") == (back.status, await back.body())
            nats.send_signal(signal.SIGCONT)
            await eventually(lambda: serves.edge.not_ready() is None, "the edge is ready again", 30)
            again = await wire.resume("s1", cursor)
            await turn.delta("still here")
            await turn.complete()
            for viewer in (answer, again):
                events = await viewer.until("[DONE]")
                assert [kind for kind, _, _ in events] == ["content_block_delta", "turn_completed", "[DONE]"]


async def says_so(refused: Answer) -> None:
    """It is refused, and may be tried again."""
    assert (503, "2") == (refused.status, refused.headers["retry-after"])
    assert (await refused.problem())["type"] == "urn:warmwire:problem:unavailable"
