"""``python -m warmwire.edge``: an edge with settings from the environment."""

from __future__ import annotations

import sys

from pydantic import ValidationError

from warmwire.edge.app import main
from warmwire.edge.settings import EdgeSettings


def run() -> int:
    """The exit code; 2 when the settings cannot work."""
    try:
        settings = EdgeSettings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        variable = "WARMWIRE_" + "_".join(str(part) for part in first["loc"]).upper()
        print(f"warmwire edge: {variable}: {first['msg'][0].lower()}{first['msg'][1:]}", file=sys.stderr)
        return 2
    return main(settings)


sys.exit(run())
