from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from warmwire.worker.machine.memory import pss_mb
from warmwire.worker.pool.capacity import Gauge, machine_limits, sampled_mb
from warmwire.worker.settings import WorkerSettings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

TAKES = "x = bytearray(64 << 20)\nprint('up', flush=True)\ninput()"
PARENT = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {TAKES!r}])"


@pytest.fixture
def parent() -> Iterator[int]:
    """A small process with a child that takes 64 MB."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert b"up\n" == process.stdout.readline()
        yield process.pid
        process.communicate(b"\n")


def test_what_a_process_has_started_counts(parent: int) -> None:
    alone, both = pss_mb(parent), sampled_mb([parent])
    assert alone is not None
    assert both is not None
    assert both > alone + 60


def test_what_is_gone_does_not_count() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert sampled_mb([gone.pid]) is None
    assert sampled_mb([]) is None
    assert sampled_mb([gone.pid, os.getpid()]) == pytest.approx(sampled_mb([os.getpid()]), rel=0.2)


async def test_the_gauge_keeps_what_it_knew_when_nobody_is_there(parent: int) -> None:
    there = [parent]
    gauge = Gauge(lambda: there)
    await gauge.sample()
    known = gauge.process_mb
    assert known is not None
    assert known > 60
    there.clear()
    await gauge.sample()
    assert known == gauge.process_mb


def test_the_settings_reach_the_limits() -> None:
    found = machine_limits(WorkerSettings(max_turns_at_once=3, max_sessions=5, freeze_after=7, park_after=9))
    assert (3, 5, 7, 9) == (found.turns, found.sessions, found.freeze_after, found.park_after)
