"""Loggers, with a type: structlog's own function has none."""

from __future__ import annotations

import structlog
from structlog.typing import FilteringBoundLogger


def logger(name: str) -> FilteringBoundLogger:
    """A module's logger; ``role.run`` says where lines go."""
    made: FilteringBoundLogger = structlog.get_logger(name)
    return made
