"""A session as an iteration of events: every turn of it, whoever has begun it."""

from __future__ import annotations

from typing import Self

from warmwire.broker.reading.reader import Item
from warmwire.broker.wire.envelope import Cursor
from warmwire.broker.wire.names import SessionKey
from warmwire.producer.answer import Event, event_of
from warmwire.producer.following import Watched
from warmwire.producer.inbox import Inbox
from warmwire.producer.iteration import Events
from warmwire.producer.resume import NOWHERE
from warmwire.producer.submit import Sessions


class Watch(Events):
    """A session that is being watched. The iteration ends with ``close``, or when the producer is closed.

    Unread events are kept up to a number of bytes, past which it ends with ``Lagging``, whose cursor resumes.
    """

    def __init__(self, key: SessionKey, cursor: Cursor | None, buffer: int) -> None:
        super().__init__(str(cursor) if cursor else None)
        self.session_id = key.session
        self._inbox = Inbox(buffer, str(cursor or NOWHERE))
        self._turn = (cursor or NOWHERE).turn
        self._watched: Watched | None = None

    @classmethod
    async def begun(cls, sessions: Sessions, key: SessionKey, cursor: Cursor | None, buffer: int) -> Self:
        """Watch from a cursor, or from now on; ``buffer`` is in bytes. Raises Unavailable."""
        watch = cls(key, cursor, buffer)
        watch._watched = await sessions.watch(key, cursor, watch._take)
        watch._cursor = watch._cursor or str(watch._watched.cursor)
        if watch._inbox.done:  # more than it keeps has come already
            watch._watched.stop()
        return watch

    async def _next(self) -> Event | None:
        return await self._inbox.take()

    def close(self) -> None:
        """Watch no longer. The iteration ends after what has already come."""
        self._inbox.finish()
        if self._watched is not None:
            self._watched.stop()

    def _take(self, item: Item) -> None:
        event = event_of(item, self._turn)
        self._turn = event.turn or self._turn
        if not self._inbox.put(event):
            self.close()
