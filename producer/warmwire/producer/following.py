"""A turn, or a session, that somebody follows here: both share their session's feed, and let it go."""

from __future__ import annotations

from warmwire.broker.reading.feed import Feeds
from warmwire.broker.reading.follower import Follower
from warmwire.broker.wire.envelope import Cursor
from warmwire.broker.wire.names import SessionKey
from warmwire.producer.session_follower import SessionFollower


class Following:
    """``stop`` it, also after its end."""

    def __init__(self, feeds: Feeds, key: SessionKey, follower: Follower | SessionFollower) -> None:
        self.key = key
        self._feeds = feeds
        self._stop = follower.stop
        self._stopped = False

    def mute(self) -> None:
        """Give the sink nothing more; the session's feed stays for who follows next. ``stop`` it, too."""
        self._stop()

    def stop(self) -> None:
        """Give the sink nothing more and let the session's feed go."""
        if not self._stopped:
            self._stopped = True
            self._stop()
            self._feeds.release(self.key)


class Followed(Following):
    """A turn."""

    def __init__(self, feeds: Feeds, key: SessionKey, follower: Follower) -> None:
        super().__init__(feeds, key, follower)
        self.turn = follower.turn
        self._follower = follower

    @property
    def ended(self) -> bool:
        """Whether the sink has been given the terminal event, or had it already."""
        return self._follower.ended


class Watched(Following):
    """Every turn of a session."""

    def __init__(self, feeds: Feeds, key: SessionKey, follower: SessionFollower) -> None:
        super().__init__(feeds, key, follower)
        self._follower = follower

    @property
    def cursor(self) -> Cursor:
        """Resumes just after what the sink has been given."""
        return self._follower.cursor
