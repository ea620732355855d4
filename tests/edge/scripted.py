"""An edge, a nats-server, and a fake worker that does what each message says: for tests in other languages.

``python -m tests.edge.scripted`` prints ``ready <url>`` and serves until its stdin ends. A message is a
script: JSON, a list of steps. A step is an event to publish, or one of

- ``{"text": text}``: a delta of the first block;
- ``{"until": session}``: go on once a message has come to that session (which is answered with nothing);
- ``{"until": null}``: go on once the turn is to be interrupted;
- ``{"forget": true}``: from now on the worker has snapshots alone;
- ``{"end": "completed" | "interrupted" | "failed"}``: the end.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from warmwire.edge.settings import EdgeSettings

from tests.client import eventually
from tests.conftest import started_nats_server
from tests.edge.conftest import serving
from tests.edge.fake_worker import FakeTurn, FakeWorker, working


class Player:
    """Plays the scripts, each in a task of its own."""

    def __init__(self, worker: FakeWorker) -> None:
        self._worker = worker
        self._sessions: set[str] = set()
        self._playing: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Play what comes, until this is cancelled."""
        while True:
            turn = await self._worker.next_turn()
            self._sessions.add(turn.session_id)
            task = asyncio.create_task(self._play(turn))
            self._playing.add(task)
            task.add_done_callback(self._playing.discard)

    async def _play(self, turn: FakeTurn) -> None:
        await turn.begin()
        for step in json.loads(str(turn.message.content)):
            await self._do(turn, step)

    async def _do(self, turn: FakeTurn, step: dict[str, Any]) -> None:
        match step:
            case {"text": text}:
                await turn.delta(text)
            case {"until": None}:
                await eventually(lambda: turn.id in self._worker.interrupts, "it is interrupted", 60)
            case {"until": session}:
                await eventually(lambda: session in self._sessions, "that session begins", 60)
            case {"forget": _}:
                self._worker.forgetful = True
            case {"end": "completed"}:
                await turn.complete()
            case {"end": "interrupted"}:
                await turn.interrupted()
            case {"end": _}:
                await turn.fail("overloaded", "The API is overloaded.")
            case _:
                event = {**step, "turn": turn.id} if "turn" in step else step  # ours have one
                await turn.publish(json.dumps(event, separators=(",", ":")).encode())


async def main() -> None:
    """See the module."""
    with tempfile.TemporaryDirectory() as folder, started_nats_server(Path(folder)) as (nats, _):
        prefix = f"t{uuid.uuid4().hex[:12]}"
        async with (
            working(nats, prefix) as worker,
            serving(EdgeSettings(nats=nats, prefix=prefix, port=0, disconnect_grace=1)) as serves,
        ):
            await eventually(lambda: serves.edge.not_ready() is None, "the edge hears its worker")
            playing = asyncio.create_task(Player(worker).run())
            print(f"ready http://127.0.0.1:{serves.wire.port}", flush=True)
            await asyncio.to_thread(sys.stdin.read)
            playing.cancel()


if __name__ == "__main__":
    asyncio.run(main())
