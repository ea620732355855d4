"""An edge and the fake worker behind it, for the chat."""

from tests.edge.conftest import prefix, start, wire, worker

__all__ = ["prefix", "start", "wire", "worker"]
