"""How much one caller may ask for: token buckets, counts, room in the pool. Pure: time is an argument.

Every limit of 0 is none. Keys are whatever names a caller: a tenant, or a tenant and a subject.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from warmwire.broker.liveness import DEAD_AFTER, Seen

BUCKETS = 100_000
"""Buckets kept of one kind; past it the one unused for longest is forgotten: a full one takes its place."""
ADMITTED = 100_000
"""Accepted messages remembered until the pool reports them; past it the oldest counts as reported."""
ON_THE_WAY = 0.1
"""Seconds that a message may take from its acceptance to the worker that counts it."""
COUNT_IS_GOOD = 0.25
"""Seconds for which a count of a tenant's turns is not asked for again."""
SESSIONS_ARE_GOOD = 5.0
"""The same of its sessions, each of which is named in the answer."""
FILES_BESIDE = 384
"""Open files that an edge needs beside its connections: those in excess, the queue, logs, libraries."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """Token buckets. ``rate_of`` says a key's rate in tokens per second; ``burst`` is in seconds of it.

    Both are of all edges.
    """

    def __init__(self, rate_of: Callable[[Hashable], float], burst: float, most: int = BUCKETS) -> None:
        self._rate_of = rate_of
        self._burst = burst
        self._most = most
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def wait(self, key: Hashable, now: float, edges: int) -> float:
        """Seconds until there is a token in this edge's share; 0 if there is one."""
        rate = self._rate_of(key)
        if not rate:
            return 0.0
        lacking = 1 - self._filled(key, rate, now, edges).tokens
        return max(0.0, lacking * edges / rate)

    def take(self, key: Hashable, now: float, edges: int) -> None:
        """Take one, which ``wait`` has said is there."""
        if rate := self._rate_of(key):
            self._filled(key, rate, now, edges).tokens -= 1

    def _filled(self, key: Hashable, rate: float, now: float, edges: int) -> _Bucket:
        # One token fits into the smallest share, or a low limit of many edges would let nobody in.
        room = max(1.0, rate * self._burst / edges)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(room, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        bucket.tokens = min(room, bucket.tokens + (now - bucket.at) * rate / edges)
        bucket.at = now
        return bucket


class Held:
    """What callers hold at the moment, up to ``most`` each. It knows only those that hold something."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[Hashable] = Counter()

    def enter(self, key: Hashable) -> bool:
        """One more, if it may be."""
        if self._most and self._held[key] >= self._most:
            return False
        self._held[key] += 1
        return True

    def leave(self, key: Hashable) -> None:
        """One less."""
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]


class PoolRoom:
    """How many more turns the pool could begin, as far as this edge knows.

    Workers say in their heartbeats how many. A message that was admitted after the oldest of these is not in
    them yet. What other edges have sent since is not known here; what is too much waits in the queue.
    """

    def __init__(self) -> None:
        self._admitted: deque[float] = deque(maxlen=ADMITTED)

    def left(self, workers: Iterable[Seen], now: float) -> int:
        """Turns that could begin now; not positive when the pool is full."""
        able = [seen for seen in workers if not seen.beat.draining]
        while self._admitted and now - self._admitted[0] > DEAD_AFTER + ON_THE_WAY:
            self._admitted.popleft()
        reported = min((seen.at for seen in able), default=now) - ON_THE_WAY
        unreported = sum(at > reported for at in self._admitted)
        return sum(seen.beat.free for seen in able) - unreported

    def admitted(self, now: float) -> None:
        """A message is about to be published."""
        self._admitted.append(now)


@dataclass(slots=True)
class Count:
    """How many a tenant has: what was said last, and what was added since. ``good_for`` is in seconds."""

    good_for: float = COUNT_IS_GOOD
    known: int = 0
    at: float = field(default=float("-inf"))

    def is_good(self, now: float) -> bool:
        """Whether it need not be asked for again."""
        return now - self.at <= self.good_for

    def told(self, known: int, now: float) -> None:
        """It was asked for."""
        self.known, self.at = known, now


def connections_possible(wanted: int, files: int) -> int:
    """The connections that a process with so many open files may have; at least one."""
    return max(1, min(wanted, files - FILES_BESIDE))
