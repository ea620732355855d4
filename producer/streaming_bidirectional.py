"""Conversations by plain iteration: ``BidirectionalStreamingClient`` and its ``StreamingConfig``.

Blocking, for scripts and threads; it stands on ``warmwire.producer.EdgeClient``, which an async service uses
itself. A connection that breaks is made again, and no text comes twice. Needs ``warmwire[http]``.
"""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from warmwire.broker.errors import Unavailable, WarmwireError
from warmwire.broker.logs import logger
from warmwire.producer import EdgeClientSettings, Event, Growing
from warmwire.producer.answer import failure_of
from warmwire.producer.edge_client import EdgeClient, EdgeTurn

log = logger(__name__)

__all__ = ["BidirectionalStreamingClient", "ConnectionLost", "StreamingConfig"]

Chunk = dict[str, Any]
"""A text delta: ``chunk["delta"]["text"]`` is always there."""

PATIENCE = 10.0
"""Seconds for which a broken connection is made again, unless the config says otherwise."""

STOP_WITHIN = 2.0
"""Seconds that who stops iterating waits at most until the turn is told to stop."""

T = TypeVar("T")


class ConnectionLost(ConnectionError):
    """No edge answers. The same message, sent again by the same client, continues as the same turn."""


@dataclass
class StreamingConfig:
    """How a conversation is held. Callbacks run in the thread that iterates."""

    # Auth
    oauth_token: str | None = field(default=None, repr=False)  # the user's own; else the pool's credential

    # Session
    session_id: str | None = None  # persistent conversation; a new one without it

    # Model
    model: str = "sonnet"  # opus, sonnet, haiku

    # Callbacks
    on_chunk: Callable[[Chunk], object] | None = None  # called for each text delta
    on_complete: Callable[[str], object] | None = None  # called at the end, with the whole text
    on_error: Callable[[Exception], object] | None = None  # called before the error is raised

    # Beyond the guide
    url: str | None = None  # WARMWIRE_URL without it, else a local `warmwire up`
    access_token: str | None = field(default=None, repr=False)  # for an edge with authentication
    patience: float = PATIENCE  # seconds for which a broken connection is made again


class BidirectionalStreamingClient:
    """One conversation. Who stops iterating, stops the turn; so does a callback that raises."""

    def __init__(self, config: StreamingConfig) -> None:
        self.config = config
        self.session_id = config.session_id or str(uuid.uuid4())
        self._edge: EdgeClient | None = None
        self._unfinished: tuple[str, str] | None = None

    def stream_conversation(self, message: str) -> Iterator[Chunk]:
        """Send a message; yields the text deltas of its answer, as they come.

        Sent again after a ``ConnectionLost``, the same message is the same turn: it is not asked twice.

        Raises (once it is iterated):
            ConnectionLost: a ConnectionError; no edge has answered for ``config.patience`` seconds.
            TurnFailed: the turn ended without a complete answer.
            TextVoid: the turn was begun again, and its answer is now another one.
            WarmwireError: the message was refused; nothing was published.
        """
        try:
            yield from self._deltas(message)
        except Unavailable as error:
            lost = ConnectionLost(str(error))
            self._tell(lost)
            raise lost from error
        except Exception as error:
            self._unfinished = None
            self._tell(error)
            raise

    def send_followup(self, message: str) -> Iterator[Chunk]:
        """The same: a session remembers what was said in it."""
        return self.stream_conversation(message)

    def _deltas(self, message: str) -> Iterator[Chunk]:
        turn, text, given = self._sent(message), Growing(), list[str]()
        try:
            while (event := _run(_next(turn))) is not None:
                _check(event, given)
                new = text.add(event)
                if new:
                    given.append(new)
                    chunk = _delta(event, new)
                    if self.config.on_chunk is not None:
                        self.config.on_chunk(chunk)
                    yield chunk
        except WarmwireError:  # it has ended, or its connection has
            raise
        except BaseException:  # nobody reads it any more: `break`, Ctrl-C, a callback that has failed
            self._unfinished = None
            _stop(turn)
            raise
        finally:
            _begin(_close(turn))
        self._unfinished = None
        if self.config.on_complete is not None:
            self.config.on_complete("".join(given))

    def _sent(self, message: str) -> EdgeTurn:
        if self._unfinished is None or self._unfinished[0] != message:
            self._unfinished = message, str(uuid.uuid4())
        config = self.config
        return _run(
            self._connected().send(
                message,
                session_id=self.session_id,
                model=config.model,
                idempotency_key=self._unfinished[1],
                token=config.oauth_token,
            )
        )

    def _connected(self) -> EdgeClient:
        if self._edge is None:
            settings = EdgeClientSettings().model_copy(update={"patience": self.config.patience})
            self._edge = EdgeClient(self.config.url, access_token=self.config.access_token, settings=settings)
            weakref.finalize(self, _finished, self._edge).atexit = False
        return self._edge

    def _tell(self, error: Exception) -> None:
        if self.config.on_error is not None:
            self.config.on_error(error)


def _delta(event: Event, new: str) -> Chunk:
    """The delta as the CLI gave it, or what was missed as one."""
    if event.text == new:
        return event.data
    index = event.data.get("index", 0)
    return {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": new}}


def _check(event: Event, given: list[str]) -> None:
    if event.type == "turn_failed":
        raise failure_of(event, "".join(given))


async def _next(turn: EdgeTurn) -> Event | None:
    return await anext(turn, None)


async def _close(turn: EdgeTurn) -> None:
    turn.close()


def _finished(edge: EdgeClient) -> None:
    _begin(edge.close())


class _Loop:
    """An event loop in a thread of its own, for all clients of this process."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="streaming_bidirectional", daemon=True).start()


_loop: _Loop | None = None
_making = threading.Lock()


def _running() -> asyncio.AbstractEventLoop:
    global _loop  # noqa: PLW0603 - one thread for all clients, made when it is needed
    with _making:
        if _loop is None or _loop.process != os.getpid():  # a fork has no threads
            _loop = _Loop()
        return _loop.loop


def _run(work: Coroutine[None, None, T]) -> T:
    """Its result; who interrupts the wait (Ctrl-C) has it cancelled."""
    future = asyncio.run_coroutine_threadsafe(work, _running())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _stop(turn: EdgeTurn) -> None:
    """Interrupt it; waits for that, as the process may end next."""
    asking = asyncio.run_coroutine_threadsafe(turn.interrupt(), _running())
    try:
        asking.result(STOP_WITHIN)
    except (WarmwireError, TimeoutError) as error:  # whoever stops reading is not stopped by that
        asking.cancel()
        log.warning("a turn that nobody reads any more may go on", turn=turn.id, error=str(error))


def _begin(work: Coroutine[None, None, None]) -> None:
    """Do it beside the rest."""
    loop = _running()

    def begin() -> None:
        task = loop.create_task(work)
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    loop.call_soon_threadsafe(begin)


_tasks: set[asyncio.Task[None]] = set()
