"""One answer, many viewers: a presenter asks, some watch, some join late, and all see the same."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import uuid
from pathlib import Path

from warmwire.producer import Answer
from warmwire.producer.edge_client import EdgeClient

from examples.local import run

PROMPT = "Explain to a new colleague how a message becomes an answer."
LATE = {"Dora": 50, "Emil": 600}
"""Who joins late, and after how many characters of the answer."""
INVITED = "Emil"
"""Was given the cursor of the answer's beginning, not only the session: has all of it, even after its end."""


class Viewer:
    """Somebody with a connection of their own, as each browser has one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.joined = asyncio.Event()
        self.found: int | None = None  # characters that were there at once
        self.ending = ""
        self._answer = Answer()

    @property
    def text(self) -> str:
        """What this viewer sees."""
        return self._answer.text

    async def watch(self, session: str, cursor: str | None = None) -> None:
        """Watch until a turn ends: a snapshot of what there is comes first; with a cursor, all since then."""
        async with EdgeClient() as edge, await edge.watch(session, cursor) as events:
            self.joined.set()
            async for event in events:
                self._answer.add(event)
                if event.text or event.type == "snapshot":
                    self.found = len(self.text) if self.found is None else self.found
                if event.terminal:
                    self.ending = event.type
                    return


async def present(given: argparse.Namespace) -> None:
    """Ask, while others watch; then compare what everybody has seen."""
    session = f"demo-{uuid.uuid4()}"
    viewers = [Viewer(name) for name in given.watchers]
    async with EdgeClient() as edge, asyncio.TaskGroup() as tasks:
        for viewer in viewers:
            tasks.create_task(viewer.watch(session))
        await asyncio.gather(*(viewer.joined.wait() for viewer in viewers))
        print(f"{', '.join(given.watchers)} watch {session}; the presenter asks", flush=True)
        answer, waiting = Answer(), dict(LATE)
        turn = await edge.send(given.prompt, session_id=session)
        beginning = turn.cursor
        async for event in turn:
            answer.add(event)
            for name in [name for name, after in waiting.items() if len(answer.text) >= after]:
                print(f"after {waiting.pop(name)} characters {name} joins", flush=True)
                viewers.append(Viewer(name))
                tasks.create_task(viewers[-1].watch(session, beginning if name == INVITED else None))
    _compare(answer.text, event.type, viewers)


def _compare(text: str, ending: str, viewers: list[Viewer]) -> None:
    print(f"presenter: {len(text)} characters, {_digest(text)}, {ending}")
    for each in viewers:
        seen = f"{len(each.text)} characters, {_digest(each.text)}, {each.ending}"
        print(f"{each.name}: {seen}; had {each.found} at first")
    different = [each.name for each in viewers if (each.text, each.ending) != (text, ending)]
    if different or ending != "turn_completed":
        raise SystemExit(f"not the same: {', '.join(different) or ending}")
    print(f"all {len(viewers) + 1} have seen the same")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.collaborative", description=__doc__)
    parser.add_argument("--prompt", default=PROMPT, help="what the presenter asks")
    parser.add_argument(
        "watchers", nargs="*", default=["Ana", "Ben", "Cem"], help="who watches from the beginning"
    )
    run(present, parser, Path(__file__).with_name("answer.md"))
