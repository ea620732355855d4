"""``python -m warmwire.edge``: an edge with settings from the environment."""

from __future__ import annotations

import sys

from warmwire.edge.app import main
from warmwire.edge.settings import EdgeSettings

sys.exit(main(EdgeSettings()))
