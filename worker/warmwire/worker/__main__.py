"""``python -m warmwire.worker``: a worker with settings from the environment."""

from __future__ import annotations

import sys

from warmwire.broker import role
from warmwire.worker.app import main
from warmwire.worker.settings import WorkerSettings

sys.exit(role.run_from_environment("worker", WorkerSettings, main))
