"""The benchmark of peers: one serves whole streams, what is missing is said. `make bench-peers` measures."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from bench.peers.__main__ import compare, shown
from bench.peers.__main__ import main as peers
from bench.peers.systems import PEERS
from bench.streams import Bench, Load

from tests.conftest import require

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")


def test_a_peer_serves_whole_streams(tmp_path: Path) -> None:
    require(shutil.which("cc"), "C compiler")
    bench = Bench(tmp_path, 1)
    with PEERS["sse-starlette"].running(tmp_path / "sse", bench.source) as served:
        last = list(bench.run(served, 5, 10, 10, 1000))[-1]
        used = served.cpu()
    assert (50, 5, 0, 0, 0) == tuple(
        last[name] for name in ("got", "complete", "lost", "repeated", "refused")
    )
    assert ["app"] == list(used)


def test_what_a_peer_lacks_is_said_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["peers", "--check", "--system", "pushpin", "--system", "sse-starlette"])
    assert 1 == peers()
    said = capsys.readouterr().err
    assert "pushpin: apt install pushpin" in said
    assert "sse-starlette: installed" in said


def look(at: float, got: int, *, still: bool) -> dict[str, float]:
    """What the viewers say; `still` while all streams run."""
    zeros = dict.fromkeys(("cpu", "lost", "repeated", "refused", "samples", "p50", "p90", "p99", "max"), 0)
    firsts = dict.fromkeys(("first_p50", "first_p99", "first_max"), 0)
    return {"at": at, "got": got, "open": still, "begun": 10, **zeros, **firsts}


def test_a_row_counts_what_came_while_all_ran() -> None:
    seen = [
        (look(0, 10, still=False), {"app": 0.0, "redis": 0.0}),
        (look(1, 110, still=True), {"app": 1.0, "redis": 0.5}),
        (look(3, 310, still=True), {"app": 1.2, "redis": 0.6}),
        (look(4, 390, still=False), {"app": 9.0, "redis": 9.0}),
    ]
    row = compare("sse-starlette", Load(10, 10), seen, 1, 40)
    assert (100, True, 10) == (row["achieved"], row["keeps_up"], row["late"])
    assert {"app": 1000.0, "redis": 500.0} == row["us"]


def test_one_that_does_not_keep_up_is_marked() -> None:
    seen = [(look(at, at * 50, still=at > 0), {"app": at / 10}) for at in range(4)]
    row = {"round": 0} | compare("pushpin", Load(10, 10), seen, 1, 40)
    assert not row["keeps_up"]
    assert "50/s of 100" in shown([row])
    ours = {**row, "system": "product", "us_total": row["us_total"] / 2}
    assert "| 2.00 |" in shown([ours, row])
