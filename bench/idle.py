"""Idle viewers of one edge: what each costs in memory, and in CPU while nothing happens.

    python -m bench.idle [--viewers 10000] [--seconds 30] [--json FILE]

Every viewer watches a session of its own, of which nobody has asked anything yet.
"""

from __future__ import annotations

import argparse
import resource
import socket
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench import measure

AT_ONCE = 20
"""Connections that are opened together."""
ANSWER = b"HTTP/1.1 200"


def watch(port: int, first: int, count: int) -> list[socket.socket]:
    """Some viewers more, each answered."""
    opened = [socket.create_connection(("127.0.0.1", port), measure.WITHIN) for _ in range(count)]
    for number, viewer in enumerate(opened, first):
        viewer.sendall(b"GET /v1/sessions/idle%d/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
    for viewer in opened:
        head = viewer.recv(4096)
        if not head.startswith(ANSWER):
            raise SystemExit(f"bench: not a stream: {head[:200]!r}")
    return opened


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--viewers", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30, help="how long nothing happens")
    parser.add_argument("--json", type=Path, help="file to write the figures to, too")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # the edge, which inherits it, needs some more
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(options.viewers + 100, hard), hard))
    limits = {"max_connections": options.viewers + 10}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        served = stack.enter_context(measure.product(Path(folder) / "product", "emulator", **limits))
        before = served.memory()
        viewers: list[socket.socket] = []
        while len(viewers) < options.viewers:
            more = min(AT_ONCE, options.viewers - len(viewers))
            viewers += [stack.enter_context(each) for each in watch(served.port, len(viewers), more)]
        after, used, begun = served.memory(), served.cpu(), time.monotonic()
        time.sleep(options.seconds)
        per_second = (served.cpu()["edge"] - used["edge"]) / (time.monotonic() - begun)
    row = {
        "viewers": options.viewers,
        "edge_kb_per_viewer": round((after["edge"] - before["edge"]) / 1024 / options.viewers, 1),
        "nats_kb_per_viewer": round((after["nats"] - before["nats"]) / 1024 / options.viewers, 1),
        "edge_us_per_viewer_and_second": round(per_second / options.viewers * 1e6, 1),
        "edge_percent_of_a_core": round(per_second * 100, 1),
    }
    print(measure.table(list(row), [list(row.values())]))
    measure.report(options.json, "idle", {"seconds": options.seconds}, [row])
    return 0


if __name__ == "__main__":
    sys.exit(main())
