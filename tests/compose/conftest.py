"""An edge and the fake worker behind it, for the chat."""

from tests.edge.conftest import start, wire, worker

__all__ = ["start", "wire", "worker"]
