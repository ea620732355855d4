"""A conversation with a person at a terminal."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace

from warmwire.broker.errors import WarmwireError
from warmwire.broker.wire.messages import REASON_LIMIT
from warmwire.broker.wire.names import check_name
from warmwire.compose.chat.answering import Answering, Signals, Verdict
from warmwire.compose.chat.blocks import clean, one_line
from warmwire.compose.chat.prompt import Prompt, Typed
from warmwire.compose.chat.reach import AnyTurn, Client, Given, send
from warmwire.compose.chat.view import View
from warmwire.compose.errors import ComposeError
from warmwire.producer import Event

SHOWN = 10
"""Turns of before that are shown of a session."""
HELP = """\
Enter sends; a line that ends in \\, or Alt-Enter, goes on below. What is pasted stays one message.
Ctrl-C stops an answer, twice leaves; Ctrl-D leaves, and an answer goes on without you.

/help             this
/new              begin a new session
/session [ID]     which session this is; with an id: go on with that one
/model [NAME]     the model for what follows; without a name the default one
/quit             leave
//…               a message that begins with a slash"""


class Talk:
    """Use ``run``."""

    def __init__(self, given: Given, client: Client, views: Callable[[], View], signals: Signals) -> None:
        self._client = client
        self._place = given.place
        self._given = given.session
        self._session = given.session or str(uuid.uuid4())
        self._wishes = given.wishes
        self._views = views
        self._memory = given.memory
        self._signals = signals
        self._prompt = Prompt(Typed(self._memory.typed(), self._memory.type))
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "/help": self._help,
            "/new": self._new,
            "/session": self._go_on,
            "/model": self._model,
            "/quit": self._quit,
        }

    async def run(self) -> int:
        """Until the person leaves; returns the exit code. Raises WarmwireError: nobody answers."""
        say(f"session {self._session}\nat {one_line(self._place.name)}; /help helps, Ctrl-D leaves")
        if self._given is not None:
            await self._show()
        try:
            while True:
                await self._heard(await self._prompt.message())
        except EOFError:
            return 0

    async def _heard(self, text: str) -> None:
        """A message, or a command."""
        if not text.strip():
            return
        command, _, rest = text.strip().partition(" ")
        try:
            if not text.startswith("/") or text.startswith("//"):
                await self._send(text.removeprefix("/") if text.startswith("//") else text)
            elif command in self._commands:
                await self._commands[command](rest.strip())
            else:
                say(f"there is no {one_line(command)}; /help shows what there is, // sends a slash")
        except (WarmwireError, ComposeError) as error:
            say(f"warmwire: {one_line(str(error), 1000)}")

    async def _send(self, message: str) -> None:
        async def beginning() -> AnyTurn:
            turn = await send(self._client, message, self._session, self._wishes)
            self._memory.used(self._place.name, self._session)
            return turn

        await self._follow(self._views(), beginning())

    async def _follow(self, view: View, beginning: Coroutine[None, None, AnyTurn]) -> None:
        with self._prompt.quiet():
            end = await Answering(self._client, view, self._signals, self._ask).run(beginning)
        if end.type == "turn_failed":
            raise ComposeError(f"{end.data['message']} ({end.data['code']})")
        if end.type == "turn_interrupted":
            say("(interrupted)")

    async def _show(self) -> None:
        """The session's last turns, and what runs."""
        waiting = await self._client.waiting(self._session)  # first: what ends meanwhile is among the past
        past = await self._client.past(self._session, SHOWN)
        for turn in past:
            self._views().past(turn)
        self._memory.used(self._place.name, self._session)
        for each in waiting:
            if each.turn not in {turn.turn for turn in past}:
                view = self._views()
                view.asked(each.message)
                await self._follow(view, self._client.resume(self._session, each.beginning))

    async def _ask(self, event: Event) -> Verdict:
        asked = event.data
        say(f"{one_line(asked['tool'])} wants: {clean(asked['summary'])}")
        if asked.get("input"):
            say(one_line(json.dumps(asked["input"], ensure_ascii=False), 2000))
        answer = (await self._prompt.question("Allow it? y, or n and why: ")).strip()
        word, _, why = answer.partition(" ")
        if word.lower() in ("y", "yes"):
            return True, None
        reason = why if word.lower() in ("n", "no") else answer
        return False, reason.strip()[:REASON_LIMIT] or None

    # -- commands

    async def _help(self, _: str) -> None:
        say(HELP)

    async def _new(self, _: str) -> None:
        self._session = str(uuid.uuid4())
        say(f"session {self._session}")

    async def _go_on(self, session: str) -> None:
        if session:
            self._session = check_name("session", session)
        say(f"session {self._session}")
        if session:
            await self._show()

    async def _model(self, model: str) -> None:
        self._wishes = replace(self._wishes, model=model or None)
        say(f"model {one_line(model) or 'by default'}")

    async def _quit(self, _: str) -> None:
        raise EOFError


def say(text: str) -> None:
    """To the person, beside the answers."""
    print(text, file=sys.stderr, flush=True)
