"""Who is given the items of a feed."""

from __future__ import annotations

from warmwire.broker.reading.feed import Feeds
from warmwire.broker.reading.reader import Item

from tests.broker.conftest import Broker
from tests.client import eventually


class Viewer:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    def __call__(self, item: Item) -> None:
        self.items.append(item)

    async def has(self, *expected: Item) -> None:
        await eventually(lambda: self.items == [*expected], f"{expected}\nnot {self.items}")


async def watching(feeds: Feeds, broker: Broker) -> Viewer:
    viewer = Viewer()
    (await feeds.acquire(broker.key)).listeners.append(viewer)
    return viewer
