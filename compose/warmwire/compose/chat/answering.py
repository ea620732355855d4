"""One turn on its way to a view: Ctrl-C, questions, a connection that is lost."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Coroutine

from warmwire.broker.errors import WarmwireError
from warmwire.compose.chat.reach import AnyTurn, Client
from warmwire.compose.chat.view import View
from warmwire.compose.errors import ComposeError
from warmwire.producer import Event, Lagging

STOP_WITHIN = 5.0
"""Seconds that stopping a turn may take before we leave all the same."""
LOOK_EVERY = 0.2
"""Seconds between two looks at the connection."""
PATIENT_LOOKS = 2
"""Looks in a row that find it lost before that is said: most are back at once."""

Ask = Callable[[Event], Awaitable["Verdict"]]
Verdict = tuple[bool, str | None]
"""Whether the tool may be used, and why not."""


class Signals:
    """SIGINT and its like: the first one during an answer is the answer's, others end the chat."""

    def __init__(self, task: asyncio.Task[int], *also: signal.Signals) -> None:
        self.code = 0
        self.stop: Callable[[], None] | None = None
        self._task = task
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, *also):
            loop.add_signal_handler(number, self._come, number)

    def leave(self) -> None:
        """End the chat."""
        self._task.cancel()

    def interrupt(self) -> None:
        """As Ctrl-C does where it is no signal."""
        self._come(signal.SIGINT)

    def _come(self, number: signal.Signals) -> None:
        self.code = 128 + number
        stop, self.stop = self.stop, None
        (stop or self.leave)()


class Answering:
    """Follows one turn. ``once``: when it was told to stop, the chat ends."""

    def __init__(
        self, client: Client, view: View, signals: Signals, ask: Ask | None = None, *, once: bool = False
    ) -> None:
        self._client = client
        self._view = view
        self._signals = signals
        self._ask = ask
        self._once = once
        self._turn: asyncio.Future[AnyTurn] = asyncio.get_running_loop().create_future()
        self._beside: set[asyncio.Task[None]] = set()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def run(self, beginning: Coroutine[None, None, AnyTurn]) -> Event:
        """Show the turn; returns its terminal event.

        Raises:
            WarmwireError: of the client's.
            ComposeError: the rest of it cannot be had, or not be shown.
            BrokenPipeError: nobody reads stdout any more; the turn is stopped.
        """
        self._signals.stop = self._stop
        looking = asyncio.create_task(self._look())
        try:
            self._turn.set_result(await beginning)
            return await self._followed()
        except BrokenPipeError:
            await self._interrupt()
            raise
        finally:
            self._signals.stop = None
            looking.cancel()
            await self._end()

    async def _end(self) -> None:
        """Nothing goes on; what failed on its own is told."""
        beside = [*self._asking.values(), *self._beside]
        for task in beside:
            task.cancel()
        found = await asyncio.gather(*beside, return_exceptions=True)
        self._view.close()
        for error in found:
            if isinstance(error, Exception):
                raise error

    async def _followed(self) -> Event:
        turn = self._turn.result()
        while True:
            try:
                return await self._shown(turn)
            except Lagging as lagging:
                turn = await turn.resume(lagging.cursor)

    async def _shown(self, turn: AnyTurn) -> Event:
        async with turn:
            async for event in turn:
                self._view.add(event, turn.cursor)
                self._mind(event, turn)
                if event.terminal:
                    return event
        raise ComposeError("the end of the answer is no longer known")

    # -- Ctrl-C

    def _stop(self) -> None:
        self._view.notice("interrupting" if self._once else "interrupting; Ctrl-C again leaves")
        self._begin(self._interrupt_and_leave() if self._once else self._interrupt())

    async def _interrupt_and_leave(self) -> None:
        try:
            await self._interrupt()
        finally:
            self._signals.leave()

    async def _interrupt(self) -> None:
        try:
            async with asyncio.timeout(STOP_WITHIN):
                turn = await asyncio.shield(self._turn)
                await turn.interrupt()
        except TimeoutError:
            self._view.notice(f"not known to be interrupted within {STOP_WITHIN:.0f} seconds")
        except WarmwireError as error:
            self._view.notice(str(error))

    # -- questions

    def _mind(self, event: Event, turn: AnyTurn) -> None:
        if event.type == "permission_requested":
            self._asked(event, turn)
        elif event.type == "snapshot":
            for question in event.data.get("questions") or ():
                self._asked(Event("permission_requested", json.dumps(question).encode(), event.cursor), turn)
        elif event.type == "permission_resolved" and event.data["request"] in self._asking:
            self._asking[event.data["request"]].cancel()

    def _asked(self, event: Event, turn: AnyTurn) -> None:
        request = event.data["request"]
        if self._ask is not None and request not in self._asking:
            self._asking[request] = asyncio.create_task(self._answer(self._ask, event, turn))

    async def _answer(self, ask: Ask, event: Event, turn: AnyTurn) -> None:
        async with self._one_at_a_time:
            self._view.hold()
            try:
                allow, reason = await ask(event)
            except (EOFError, KeyboardInterrupt):
                self._signals.interrupt()
                return
            finally:
                self._view.go_on()
        request = event.data["request"]
        try:
            await (turn.permit(request) if allow else turn.deny(request, reason))
        except WarmwireError as error:
            self._view.notice(str(error))

    # -- beside it

    async def _look(self) -> None:
        lost = 0
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._client.connected:
                lost = 0
                self._view.connected()
            else:
                lost += 1
                if lost == PATIENT_LOOKS:
                    self._view.reconnecting()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._beside.add(asyncio.create_task(work))
