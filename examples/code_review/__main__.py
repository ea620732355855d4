"""A review that alerts while it is being written: at the first CRITICAL, not at the end of the answer."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from warmwire.producer import Answer
from warmwire.producer.edge_client import EdgeClient

from examples.code_review.alerts import Alerts
from examples.local import run

HERE = Path(__file__).parent
PROMPT = "Review this change. One finding per line; begin it with CRITICAL, MAJOR or MINOR.\n\n"


async def page_somebody(finding: str) -> None:
    """Where a real service calls the pager or blocks the merge. The stream does not wait for it."""
    await asyncio.sleep(0)
    print(f"\n>>> ALERT: {finding}", flush=True)


async def review(given: argparse.Namespace) -> None:
    """Stream a review; alert within it, and with ``--stop`` have it end there."""
    answer, alerts, first = Answer(), Alerts(), 0
    async with EdgeClient() as edge, asyncio.TaskGroup() as pages:
        turn = await edge.send(PROMPT + given.change.read_text(), on_cancel="interrupt")
        async for event in turn:
            answer.add(event)
            print(event.text or "", end="", flush=True)
            for finding in alerts.new(answer.text + "\n" * event.terminal):
                first = first or len(answer.text)
                pages.create_task(page_somebody(finding))
                if given.stop:
                    await turn.interrupt()
    if event.type == "turn_failed":
        raise SystemExit(f"\nthe review failed: {event.data['code']}: {event.data['message']}")
    when = f"the first alert after {first} of {len(answer.text)}" if first else "no alert within"
    print(f"\n{event.type}: {when} characters")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.code_review", description=__doc__)
    parser.add_argument("--change", type=Path, default=HERE / "change.diff", help="what to review")
    parser.add_argument("--stop", action="store_true", help="interrupt the review at the first alert")
    run(review, parser, HERE / "answer.md")
