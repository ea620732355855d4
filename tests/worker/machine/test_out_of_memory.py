"""A CLI that the kernel ends because its memory is used up: one turn fails, and nothing else."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from warmwire.worker.machine import tree

from tests.conftest import wait_for
from tests.standin import plain_cli
from tests.system.product import Product, end_of, ended, text_of

CLI = shlex.join((sys.executable, plain_cli.__file__, "--polite"))
MEMORY = 32 * 1024 * 1024
"""Bytes that the CLI may take once it is in its group; it wants 512 MB."""
VERSIONS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.swap.max", "memory.events"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.swappiness", "memory.oom_control"),
)
"""Of control groups: where they are; the files of the limit and of swapping, and that which counts kills."""

Kills = Callable[[], int]
Cage = Callable[[int], Kills]


@pytest.fixture
def cage() -> Iterator[Cage]:
    """Puts a process where it has little memory; what that returns says how many were killed there."""
    made: list[Path] = []

    def put(pid: int) -> Kills:
        group, kills = _group(made)
        (group / "cgroup.procs").write_text(str(pid))
        return lambda: int(re.findall(r"^oom_kill (\d+)$", kills.read_text(), re.MULTILINE)[0])

    yield put
    for group in made:
        wait_for(partial(_is_empty, group), "nobody is in the group")
        group.rmdir()


def _is_empty(group: Path) -> bool:
    return not (group / "cgroup.procs").read_text()


def _group(made: list[Path]) -> tuple[Path, Path]:
    why = "there is no memory controller"
    for root, limit, swap, kills in VERSIONS:
        if not (root / "cgroup.procs").exists():
            continue
        group = root / f"warmwire-test-{secrets.token_hex(4)}"
        try:
            group.mkdir()
            made.append(group)
            (group / limit).write_text(str(MEMORY))
            if (group / swap).exists():
                (group / swap).write_text("0")
        except OSError as error:
            why = str(error)
        else:
            return group, group / kills
    pytest.skip(f"no control group with a memory limit can be made here: {why}")


async def test_a_cli_that_the_kernel_kills_for_its_memory_fails_its_turn_and_others_go_on(
    product: Product, tmp_path: Path, cage: Callable[[int], Callable[[], int]]
) -> None:
    await product.work(cli=CLI, dialect="stream-json")
    await product.ask("the heron", "big")
    (pid,) = tree.working_in(tmp_path)
    killed = cage(pid)
    other = await product.chat("long", "other")
    await other.until("content_block_delta")
    end = end_of(await product.ask("grow", "big"))
    assert ("cli_crashed", True, 1) == (end["code"], end["retryable"], killed())
    await other.until("content_block_delta")
    await product.interrupt("other")
    assert "turn_interrupted" == (await ended(other))[-1][0]
    assert "the heron" in text_of(await product.ask("recall", "big"))


async def test_it_is_the_same_wherever_the_signal_comes_from(product: Product, tmp_path: Path) -> None:
    await product.work(cli=CLI, dialect="stream-json")
    await product.ask("the heron")
    (pid,) = tree.working_in(tmp_path)
    stream = await product.chat("long")
    await stream.until("content_block_delta")
    os.kill(pid, signal.SIGKILL)
    end = end_of(await ended(stream))
    assert ("cli_crashed", True) == (end["code"], end["retryable"])
    assert "the heron" in text_of(await product.ask("recall"))
