"""Background tasks: one that fails is told, and all of them end."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from warmwire.broker.tasks import Tasks

from tests.client import eventually


async def test_a_task_that_fails_is_told() -> None:
    tasks = Tasks()

    async def fail() -> None:
        raise KeyError("mine")

    with capture_logs() as said:
        tasks.begin(fail(), "the failing one")
        await eventually(lambda: said, "a word")
    assert ("background task failed", "the failing one") == (said[0]["event"], said[0]["task"])
    await tasks.stop()


async def test_all_end_when_told_to() -> None:
    tasks = Tasks()

    async def lasting() -> None:
        await asyncio.Event().wait()

    running = [tasks.begin(lasting(), f"{number}") for number in range(3)]
    await tasks.stop()
    assert all(task.cancelled() for task in running)
    await tasks.stop()


async def test_one_that_does_not_hear_the_first_time_is_told_again() -> None:
    """As nats-py's flush does not."""
    tasks = Tasks()
    heard: list[str] = []

    async def deaf() -> None:
        while len(heard) < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard.append("cancel")

    tasks.begin(deaf(), "deaf")
    await asyncio.sleep(0)
    await tasks.stop()
    assert ["cancel", "cancel"] == heard


async def test_they_may_end_by_themselves() -> None:
    tasks = Tasks()
    done: list[int] = []

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        done.append(number)

    for number in range(3):
        tasks.begin(work(number), "work")
    await tasks.finish()
    assert [0, 1, 2] == done
