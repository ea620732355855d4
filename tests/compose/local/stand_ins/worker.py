"""A worker that does nothing: `STAND_IN_WORKER` says how it fails."""

import os
import signal
import sys

match os.environ.get("STAND_IN_WORKER"):
    case "refuses its settings":
        print("warmwire: --cli: nothing that we know", file=sys.stderr)
        sys.exit(2)
    case "ignores SIGTERM":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    case _:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.pthread_sigmask(signal.SIG_SETMASK, [])
while True:
    signal.pause()
