"""`warmwire up` with stand-ins for its roles; settings come from the environment."""

import asyncio
import sys
from pathlib import Path

from warmwire.compose.cli import guarded
from warmwire.compose.local.up import up
from warmwire.compose.options import load
from warmwire.compose.settings import UpSettings

HERE = Path(__file__).parent
ROLES = {role: [sys.executable, str(HERE / f"{role}.py")] for role in ("worker", "edge")}

if __name__ == "__main__":
    sys.exit(guarded(lambda: asyncio.run(up(load(UpSettings, {}), ROLES))))
