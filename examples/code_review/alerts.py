"""What is alarming in a review that is still being written. Pure."""

from __future__ import annotations

import re

FINDING = re.compile(r"CRITICAL\W*(?:[^\n.!?]{200}|[^\n.!?]*[\n.!?])")
"""The word and the sentence behind it, or the first 200 characters of a long one."""


class Alerts:
    """Gives each finding once, however the text is cut into pieces, and when it is said again."""

    def __init__(self) -> None:
        self._given = 0

    def new(self, text: str) -> list[str]:
        """What has become alarming, given all of the review so far."""
        found = [finding.strip() for finding in FINDING.findall(text)]
        fresh = found[self._given :]
        self._given += len(fresh)
        return fresh
