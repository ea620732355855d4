"""What the sources say, for peers whose own process must cost as little as it can."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod

from bench.floor import CHUNK, Source

BEGIN, END = b'"event":', b',"session_id":'


class Lines(Source, ABC):
    """A source of which each read gives the events of whole lines; what to do with them is said by `show`."""

    rest = b""

    def copy(self) -> None:
        """From the pipe on."""
        *lines, self.rest = (self.rest + os.read(self.output, CHUNK)).split(b"\n")
        events = [line[line.index(BEGIN) + len(BEGIN) : line.rindex(END)] for line in lines if BEGIN in line]
        if events:
            self.show(events)
        if any(b'"type":"result"' in line for line in lines):
            self.finish()

    @abstractmethod
    def show(self, events: list[bytes]) -> None:
        """Some events, as JSON."""

    @abstractmethod
    def finish(self) -> None:
        """The turn is over."""
