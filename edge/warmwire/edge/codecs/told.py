"""What a viewer was told who can take nothing back, so that no word comes twice to it. Pure.

Shapes that others have made for answers only ever append. Where a turn says something again (its worker
died, the API was asked again, a snapshot stands for what was missed) nothing goes out until it has said all
that was told; what it says beyond that does. Where it says something else the viewer cannot be told so: what
was told is void.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Protocol

from warmwire.broker.reading.reader import Item
from warmwire.edge.errors import EdgeError

VOID = "what was shown is void, as the turn has begun again"
LOST = "a part of the answer was lost"
LONGER = "the answer is longer than what is kept of it"


class Void(EdgeError):
    """What was told does not stand, or cannot be gone on with."""


class Shape(Protocol):
    """A turn in the shape that some client reads, for one viewer.

    ``over``: it has said that it cannot go on.
    """

    over: bool

    def begin(self) -> bytes:
        """What is sent first."""
        ...

    def add(self, item: Item) -> bytes:
        """What an event becomes; often nothing."""
        ...

    def error(self, code: str, message: str) -> bytes:
        """What is sent last where the stream cannot go on; ``code`` is one word."""
        ...


class Sum:
    """Text as its length and a digest: enough to know whether other text is the same, however long it is."""

    __slots__ = ("digest", "size")

    def __init__(self, other: Sum | None = None) -> None:
        self.digest: blake2b = other.digest.copy() if other else blake2b(digest_size=16)
        self.size: int = other.size if other else 0

    def add(self, text: bytes) -> None:
        """More of it."""
        self.digest.update(text)
        self.size += len(text)

    def same(self, other: Sum) -> bool:
        """Whether both are of the same text."""
        return self.size == other.size and self.digest.digest() == other.digest.digest()


class Told:
    """Text of one kind, as far as it was told."""

    def __init__(self) -> None:
        self._told = Sum()
        self._again: Sum | None = None

    @property
    def behind(self) -> bool:
        """Whether something is said again, and not all of it yet."""
        return self._again is not None

    def mark(self) -> Sum:
        """A place to which ``repeat`` may go back."""
        return Sum(self._again or self._told)

    def repeat(self, mark: Sum) -> None:
        """From that place on it is said again."""
        self._again = Sum(mark)
        self._caught_up()

    def settle(self) -> None:
        """What was told stands, whether or not it was said again."""
        self._again = None

    def new(self, text: str) -> str:
        """What of the text was not told yet. Raises Void where it is not what was told."""
        data = text.encode()
        if self._again is not None:
            known = self._told.size - self._again.size
            self._again.add(data[:known])
            data = data[known:]
            self._caught_up()
        self._told.add(data)
        return data.decode()

    def _caught_up(self) -> None:
        if self._again is None or self._again.size < self._told.size:
            return
        if not self._again.same(self._told):
            raise Void(VOID)
        self._again = None
