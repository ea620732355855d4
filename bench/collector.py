"""A collector for OTLP over HTTP in a process of its own: it takes what is sent and counts its bytes.

Started by `cost.py`; prints its port. For each line on stdin it says how much has come, by path.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

taken: Counter[str] = Counter()


class Handler(BaseHTTPRequestHandler):
    """Each export is one POST."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take it."""
        taken[self.path] += len(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """Say nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    for _ in sys.stdin:
        print(json.dumps(taken), flush=True)
