"""``python -m warmwire.worker``: a worker with settings from the environment."""

from __future__ import annotations

import sys

from warmwire.worker.app import main
from warmwire.worker.settings import WorkerSettings

sys.exit(main(WorkerSettings()))
