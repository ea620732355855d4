"""What the tests of the whole share."""

from tests.system.product import product

__all__ = ["product"]  # a fixture
