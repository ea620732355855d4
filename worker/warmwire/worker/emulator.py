"""The emulator: a stand-in for the `claude` CLI that speaks its stream-json dialect and asks no model.

Start it as `python -I -S -E emulator.py` and the flags of claude; docs/reference/emulator.md has the details.

This file only finds the rest, in `emulation/`: Python compiles the file that it is started with anew in every
process, which for all of it would cost 1.5 MB and 10 ms each, and keeps the bytecode of what is imported.
"""

from __future__ import annotations

import posix
import sys


def start() -> int:
    sys.path.append(__file__.rpartition("/warmwire/worker/")[0])
    from warmwire.worker.emulation.process import main  # noqa: PLC0415 - needs the path

    environment = {name.decode(): value.decode("utf-8", "replace") for name, value in posix.environ.items()}
    return main(sys.argv[1:], environment)


if __name__ == "__main__":
    raise SystemExit(start())
