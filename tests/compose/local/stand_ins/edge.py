"""An edge that is ready at once, or, with `STAND_IN_EDGE=never ready`, says why it is not."""

import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ready = os.environ.get("STAND_IN_EDGE") != "never ready"
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(b"ok" if ready else b'{"detail": "no worker has a free slot"}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """Nothing: the tests read stderr."""


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = HTTPServer(
    (os.environ["WARMWIRE_HOST"], int(os.environ["WARMWIRE_PORT"])), Handler, bind_and_activate=False
)
server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
server.server_bind()
server.server_activate()
server.serve_forever()
