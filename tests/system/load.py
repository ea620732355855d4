"""A load that knows what every answer must be, and keeps the history of what was sent and what came back.

Each session sends turn after turn until it is told to stop: some alone, some quickly after each other, some
`recall`, whose answer tells whether the memory of the session is whole. Two viewers watch on connections of
their own: one follows each turn from its submission, one the session.
"""

import asyncio
from random import Random
from time import monotonic, time
from typing import Self

import msgspec

from warmwire.broker.errors import QueueFull, StoreFull, Unavailable
from warmwire.broker.nats import bus as nats
from warmwire.broker.nats.bus import Bus
from warmwire.broker.nats.login import NOBODY, Login
from warmwire.broker.nats.store import Store
from warmwire.broker.reading.feed import Feeds, Listener
from warmwire.broker.reading.follower import Follower
from warmwire.broker.reading.reader import Item, Lost, Shown
from warmwire.broker.wire import envelope as codec
from warmwire.broker.wire.envelope import Envelope
from warmwire.broker.wire.events import TERMINAL
from warmwire.broker.wire.messages import Finished, TurnOptions, UserMessage
from warmwire.broker.wire.names import SessionKey, Subjects, new_turn_id
from warmwire.worker.emulation.turn import answer

from tests.conftest import SECONDS
from tests.system import history as h
from tests.system.cluster import NotInTime, until

ACCEPT_WITHIN = 30.0
"""Seconds in which an acceptance is tried again, with the same turn id."""
TURN_WITHIN = 60.0
"""Seconds that a turn may take from acceptance to its end, faults included; then it is held lost."""
QUICK = 0.3
"""Part of the times in which several messages are sent at once."""
RECALL = 0.25
"""Part of the times in which the memory is asked for."""


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""


class _Event(msgspec.Struct, gc=False):
    """What of an event goes into a history."""

    index: int = 0
    message: object = 0
    worker: str | None = None
    delta: _Delta | None = None
    begins: str = msgspec.field(name="from", default="")  # the cursor of the first of several deltas in one


class _Block(msgspec.Struct, gc=False):
    message: int
    index: int
    kind: str
    text: str


class _Snapshot(msgspec.Struct, gc=False):
    blocks: tuple[_Block, ...] = ()


_event = msgspec.json.Decoder(_Event)
_snapshot = msgspec.json.Decoder(_Snapshot)


def seen(viewer: str, place: h.Place, turn: str, type_: str, event: bytes) -> h.Seen:
    """The record of an event as it was given to a viewer."""
    fields = _event.decode(event)
    added = fields.delta if type_ == "content_block_delta" else None
    return h.Seen(
        at=monotonic(),
        viewer=viewer,
        epoch=place[0],
        seq=place[1],
        turn=turn,
        type=type_,
        first=int(fields.begins.rpartition(".")[2]) if fields.begins else None,
        message=fields.message if isinstance(fields.message, int) else 0,
        index=fields.index,
        text=added.text if added is not None and added.type == "text_delta" else "",
        worker=fields.worker,
    )


def shown(viewer: str, place: h.Place, turn: str, event: bytes) -> h.Snapshot:
    """The record of a snapshot as it was given to a viewer."""
    blocks = tuple((b.message, b.index, b.text) for b in _snapshot.decode(event).blocks if b.kind == "text")
    return h.Snapshot(at=monotonic(), viewer=viewer, epoch=place[0], seq=place[1], turn=turn, blocks=blocks)


class Notes:
    """The history, and what is going on at this moment."""

    def __init__(self) -> None:
        self.history: list[h.Any] = []
        self.flowing: dict[str, str | None] = {}
        self._workers: dict[str, str | None] = {}

    def add(self, record: h.Any) -> None:
        """Write a record down."""
        self.history.append(record)
        if not isinstance(record, h.Seen):
            return
        if record.type == "turn_started":
            self._workers[record.turn] = record.worker
        elif record.type in TERMINAL:
            self.flowing.pop(record.turn, None)
        elif record.text:
            self.flowing[record.turn] = self._workers.get(record.turn)

    def of_viewer(self, viewer: str, ends: dict[str, str]) -> Listener:
        """Writes down what a viewer is given; `ends` gathers how its turns ended."""

        def take(item: Item) -> None:
            match item:
                case Envelope():
                    self.add(seen(viewer, item.position, item.turn, item.type, item.event))
                    if item.type in TERMINAL:
                        ends[item.turn] = item.type
                case Shown():
                    self.add(shown(viewer, item.at, item.turn, item.event))
                case Lost():
                    self.add(h.Gap(at=monotonic(), viewer=viewer, after=item.after, until=item.until))

        return take


class Watch:
    """A process that watches, as an edge does: one connection and the feeds on it."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.store = Store(bus, Subjects())
        self.feeds = Feeds(bus, self.store, Subjects())
        self.feeds.start()

    @classmethod
    async def connected(cls, url: str, name: str, login: Login = NOBODY) -> Self:
        """Connect."""
        return cls(await nats.connect(url, name, login))

    async def stop(self) -> None:
        """Disconnect."""
        await self.feeds.stop()
        await self.bus.close()


class Load:
    """Sessions that send until `finish`. `notes.flowing`: the turns whose text flows, and their workers."""

    def __init__(
        self,
        url: str,
        seed: int,
        *,
        deltas: int,
        loss: str = "retry",
        name: str = "s",
        login: Login = NOBODY,
    ) -> None:
        self.notes = Notes()
        self.resting = 0
        self._stopped = asyncio.Event()
        self._url = url
        self._seed = seed
        self._deltas = deltas
        self._options = TurnOptions.model_validate({"on_worker_loss": loss})
        self._name = name
        self._login = login
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def history(self) -> list[h.Any]:
        """All records so far."""
        return self.notes.history

    async def start(self, sessions: int, times: int | None = None) -> None:
        """Begin to send; with `times`, each session rests after so many times."""
        self.mine = await Watch.connected(self._url, "chaos-producer", self._login)
        self._other = await Watch.connected(self._url, "chaos-viewer", self._login)
        for number in range(sessions):
            session = Session(self, f"{self._name}{number}", Random(f"{self._seed}/{number}"))
            self._tasks.append(asyncio.create_task(session.run(times)))

    async def finish(self) -> None:
        """Send no more, but ask each session for its memory; then look up the records."""
        self._stopped.set()
        await asyncio.gather(*self._tasks)
        await self.viewers_done()
        for accepted in [record for record in self.history if isinstance(record, h.Accepted)]:
            await self._look_up(accepted)
        await self.mine.stop()
        await self._other.stop()

    @property
    def stopped(self) -> bool:
        """Whether no more is to be sent."""
        return self._stopped.is_set()

    async def rest(self) -> None:
        """A session has sent what it was to send; returns when the load is finished."""
        self.resting += 1
        await self._stopped.wait()

    def fault(self, what: str) -> float:
        """Note that a fault is injected now; returns the time."""
        self.notes.add(h.Fault(at=monotonic(), what=what))
        return self.history[-1].at

    async def viewers_done(self) -> None:
        """Wait for viewers that have tasks of their own; here none has."""

    # -- used by the sessions

    async def watch(self, key: SessionKey, ends: dict[str, str]) -> None:
        """Let the second viewer watch a session."""
        feed = await self._other.feeds.acquire(key)
        viewer = f"{key.session}@all"
        self.notes.add(h.Joined(at=monotonic(), viewer=viewer, session=key.session))
        feed.listeners.append(self.notes.of_viewer(viewer, ends))

    async def submit(self, key: SessionKey, text: str, expected: str, ends: dict[str, str]) -> str | None:
        """Send one message and follow its turn; the turn's id once it is accepted."""
        turn, session = new_turn_id(round(time() * 1000)), key.session
        viewer = f"{turn}@one"
        feed = await self.mine.feeds.acquire(key)
        self.notes.add(h.Joined(at=monotonic(), viewer=viewer, session=session, turn=turn))
        follower = Follower(feed, self.mine.store, turn, self.notes.of_viewer(viewer, ends))
        follower.begin()
        message = UserMessage(turn=turn, content=text, options=self._options, sent_ms=round(time() * 1000))
        try:
            order = await self._accepted(key, message)
        except (QueueFull, StoreFull) as error:
            self.notes.add(h.Refused(at=monotonic(), session=session, turn=turn, why=str(error)))
        except Unavailable as error:
            self.notes.add(h.Doubtful(at=monotonic(), session=session, turn=turn, why=str(error)))
        else:
            accepted = h.Accepted(at=monotonic(), session=session, turn=turn, order=order, expected=expected)
            self.notes.add(accepted)
            return turn
        follower.stop()
        self.notes.add(h.Left(at=monotonic(), viewer=viewer))
        return None

    def answer(self, text: str, earlier: list[str]) -> str:
        """What the emulator answers."""
        return "".join(answer(text, earlier, self._deltas))

    async def _accepted(self, key: SessionKey, message: UserMessage) -> int:
        end = monotonic() + ACCEPT_WITHIN * SECONDS
        while True:
            try:
                return (await self.mine.store.submit(key, message, {})).sequence
            except Unavailable:
                if monotonic() > end:
                    raise
            await asyncio.sleep(0.2)  # the pause of a client that tries again

    async def _look_up(self, accepted: h.Accepted) -> None:
        record = await self.mine.store.turn(SessionKey("default", accepted.session), accepted.turn)
        if isinstance(record, Finished):
            found = h.Recorded(
                at=monotonic(),
                session=accepted.session,
                turn=accepted.turn,
                ending=codec.decode(record.envelope.encode()).type,
                text=record.text,
                truncated=record.truncated,
            )
            self.notes.add(found)


class Session:
    """One session's messages, chosen by its own random numbers."""

    def __init__(self, load: Load, name: str, random: Random) -> None:
        self._load = load
        self._key = SessionKey("default", name)
        self._random = random
        self._said: list[str] = []
        self._count = 0
        self._one: dict[str, str] = {}
        self._all: dict[str, str] = {}

    async def run(self, times: int | None) -> None:
        """Send until the load stops, then ask for the memory."""
        await self._load.watch(self._key, self._all)
        done = 0
        while not self._load.stopped:
            if done == times:
                await self._load.rest()
                break
            done += 1
            if not await self._send(self._texts()):
                return  # the checker says what has not ended, and for whom
        await self._send(["recall"])

    def _texts(self) -> list[str]:
        if self._said and self._random.random() < RECALL:
            return ["recall"]
        count = self._random.choice((2, 3)) if self._random.random() < QUICK else 1
        self._count += count
        numbers = range(self._count - count + 1, self._count + 1)
        return [f"message {number} of {self._key.session}" for number in numbers]

    async def _send(self, texts: list[str]) -> bool:
        """Send messages one right after the other and wait for their ends; whether all of them ended."""
        sent: dict[str, str] = {}
        for text in texts:
            turn = await self._load.submit(self._key, text, self._load.answer(text, self._said), self._one)
            if turn is not None:
                sent[turn] = text
        try:
            await until(lambda: self._one.keys() >= sent.keys() <= self._all.keys(), "the ends", TURN_WITHIN)
        except NotInTime:
            return False
        self._said += [text for turn, text in sent.items() if self._one[turn] == "turn_completed"]
        return len(sent) == len(texts)


def pauses(history: list[h.Any], since: float, turns: set[str]) -> dict[str, float]:
    """For each turn its viewer's longest wait for text, in seconds, of those that ended after a moment."""
    last: dict[str, float] = {}
    longest: dict[str, float] = {}
    for record in history:
        if not (isinstance(record, h.Seen) and record.text and record.viewer == f"{record.turn}@one"):
            continue
        if record.turn in turns and record.turn in last and record.at > since:
            wait = record.at - max(last[record.turn], since)
            longest[record.turn] = max(longest.get(record.turn, 0.0), wait)
        last[record.turn] = record.at
    return longest
