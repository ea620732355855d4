"""``python -m warmwire.edge``: an edge with settings from the environment."""

from __future__ import annotations

import sys

from warmwire.broker import role
from warmwire.edge.app import main
from warmwire.edge.settings import EdgeSettings

sys.exit(role.run_from_environment("edge", EdgeSettings, main))
