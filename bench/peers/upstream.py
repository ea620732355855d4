"""A model's API for LiteLLM: OpenAI's chunks, made of what the sources say. Prints its port.

    python -m bench.peers.upstream SOURCE

It belongs to the load, not to what is measured, so it is as lean as the floor. A message begins with the
source's name: "s1: go 10 20".
"""

from __future__ import annotations

import json
import sys

import uvloop

from bench.floor import HEADERS, Viewer, main
from bench.peers.lines import Lines

TEXT = b'"text":"@'
CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"source",'
    b'"choices":[{"index":0,"delta":%s,"finish_reason":%s}]}\n\n'
)
DONE = CHUNK % (b"{}", b'"stop"') + b"data: [DONE]\n\n"


class Chunks(Lines):
    """A source that speaks as OpenAI does."""

    def show(self, events: list[bytes]) -> None:
        texts = [event[event.index(TEXT) + 7 : event.rindex(b"}}")] for event in events if TEXT in event]
        if self.viewer is not None and texts:
            self.viewer.write(b"".join(CHUNK % (b'{"content":%s}' % text, b"null") for text in texts))

    def finish(self) -> None:
        if self.viewer is not None:
            self.viewer.write(DONE)
            self.viewer.close()
            self.viewer = None


class Asked(Viewer):
    """One request, in however many pieces."""

    held = b""

    def data_received(self, data: bytes) -> None:
        self.held += data
        head, _, body = self.held.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if not lengths or len(body) < int(lengths[0].partition(b":")[2]):
            return
        session, _, message = json.loads(body)["messages"][-1]["content"].partition(": ")
        source = self.sources.get(session)
        if source is None:
            source = self.sources[session] = Chunks(sys.argv[1])
        self.transport.write(HEADERS)
        source.ask(message, self.transport)


if __name__ == "__main__":
    uvloop.run(main(Asked))
