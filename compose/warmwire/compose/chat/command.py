"""The command `warmwire chat`: its flags, its three manners (person, lines, one message), its exit codes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from functools import partial

import click

from warmwire.broker.errors import WarmwireError
from warmwire.broker.role import log_to_stderr
from warmwire.compose.chat.answering import Answering, Ask, Signals, Verdict
from warmwire.compose.chat.blocks import one_line
from warmwire.compose.chat.memory import Memory
from warmwire.compose.chat.reach import (
    AnyTurn,
    Client,
    Given,
    Place,
    Wishes,
    complaint,
    connected,
    place_of,
    send,
)
from warmwire.compose.chat.view import Lines, Plain, PlainForPeople, View
from warmwire.compose.errors import ComposeError, MissingProgram, Unreachable, UsageError
from warmwire.producer import Event

HELP = """Talk to it in this terminal; the answer appears as it is written.

Ctrl-C stops an answer, twice leaves; Ctrl-D leaves. /help shows the rest. For an edge with authentication put
a token into WARMWIRE_ACCESS_TOKEN.

\b
  warmwire chat
  warmwire chat --continue                      go on where you left
  warmwire chat --session s1                    go on with a session
  warmwire chat --print "Hello"                 one message, only the answer on stdout
  warmwire chat --print - <question.txt         the message is stdin
  warmwire chat --json --print "Hello"          an event a line

Without a terminal and without --print each line of stdin is a message.

\b
Exit codes: 0 answered, 1 the turn failed or was refused, 2 a mistake in the command or the message,
3 nobody can be reached, 130 interrupted, 141 nobody reads stdout.
"""

MESSAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of stdin that are read as one message; how large it may be says who gets it."""
PIECE = 64 * 1024
"""Bytes that are read from stdin at once."""
NOT_READ = 128 + signal.SIGPIPE
INTERRUPTED = 128 + signal.SIGINT
NOBODY = "nobody is there to be asked"


@click.command(help=HELP)
@click.option(
    "--url", help="Where an edge listens.  [WARMWIRE_URL; default: http://127.0.0.1:8080]", metavar="URL"
)
@click.option(
    "--nats", help="NATS instead of an edge.  [WARMWIRE_NATS, where there is no WARMWIRE_URL]", metavar="URL"
)
@click.option("--session", metavar="ID", help="Session to go on with; a new one without it.")
@click.option(
    "--continue", "again", is_flag=True, help="Go on with the session that was used last from here."
)
@click.option(
    "--print",
    "message",
    metavar="[MESSAGE]",
    is_flag=False,
    flag_value="-",
    help="Send this, print the answer, end; without MESSAGE, or with -, stdin is the message.",
)
@click.option("--json", "as_json", is_flag=True, help="Print events, one a line, in place of text.")
@click.option("--plain", is_flag=True, help="No Markdown and no colours, as with NO_COLOR or TERM=dumb.")
@click.option("--model", metavar="NAME", help="The model.")
@click.option("--profile", metavar="NAME", help="What the session may do, for its life.")
@click.option("--system-prompt", metavar="TEXT", help="For the session's life.")
@click.option(
    "--history/--no-history",
    default=True,
    envvar="WARMWIRE_CHAT_HISTORY",
    show_envvar=True,
    help="Keep what is typed, and which session was used.",
)
def chat(  # noqa: PLR0913, PLR0917 - click gives each flag as an argument
    url: str | None,
    nats: str | None,
    session: str | None,
    again: bool,
    message: str | None,
    as_json: bool,
    plain: bool,
    model: str | None,
    profile: str | None,
    system_prompt: str | None,
    history: bool,
) -> int:
    """The command; returns the exit code."""
    log_to_stderr(logging.ERROR)  # what passes by itself is said in other words
    place, memory = place_of(url, nats), Memory(complain, kept=history)
    if again:
        session = _last(memory, place, session)
    if as_json and message is None and sys.stdin.isatty():
        raise UsageError("--json: goes with --print, or with messages on stdin")
    given = Given(place, session, Wishes(model, profile, system_prompt), memory, as_json, plain)
    return _quietly(partial(_run, given, _stdin() if message == "-" else message))


def complain(text: str) -> None:
    """One line to whoever reads stderr."""
    click.echo(f"warmwire: {one_line(text, 1000)}", err=True)


def _last(memory: Memory, place: Place, session: str | None) -> str:
    if session is not None:
        raise UsageError("--continue and --session: one of the two")
    found = memory.last_session(place.name)
    if found is None:
        raise UsageError(f"--continue: no session of {place.name} is known here")
    return found


def _stdin() -> str:
    data = sys.stdin.buffer.read(MESSAGE_LIMIT + 1)
    if len(data) > MESSAGE_LIMIT:
        raise UsageError(f"stdin: more than {MESSAGE_LIMIT} bytes are no message")
    return _text(data)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"stdin: is no UTF-8: {error.reason} at byte {error.start}") from None


def _quietly(work: Callable[[], int]) -> int:
    """Without a word where nobody reads stdout any more, or Ctrl-C came before there was an answer."""
    try:
        return work()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered has to go somewhere
        return NOT_READ
    except KeyboardInterrupt:
        return INTERRUPTED
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        needed = f"Python package {package}, which `warmwire chat` needs here,"
        raise MissingProgram(needed, 'pip install "warmwire[compose]"') from error


def _run(given: Given, message: str | None) -> int:
    return asyncio.run(_chat(given, message))


async def _chat(given: Given, message: str | None) -> int:
    by_hand = message is None and sys.stdin.isatty()
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - we are in one
    signals = Signals(task, *(() if by_hand else (signal.SIGTERM, signal.SIGHUP)))
    try:
        async with connected(given.place) as client:
            if by_hand:
                return await _talk(given, client, signals)
            script = Script(given, client, signals)
            return await (script.lines() if message is None else script.once(message))
    except WarmwireError as error:
        raise complaint(error) from error
    except asyncio.CancelledError:
        if not signals.code:
            raise
        return signals.code


async def _talk(given: Given, client: Client, signals: Signals) -> int:
    from warmwire.compose.chat.talk import Talk  # noqa: PLC0415 - scripts begin sooner without it

    return await Talk(given, client, _views(given), signals).run()


def _views(given: Given) -> Callable[[], View]:
    """For a person."""
    dumb = os.environ.get("TERM") in ("dumb", "unknown")
    if given.plain or dumb or os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return PlainForPeople if sys.stdout.isatty() else Plain
    from rich.console import Console  # noqa: PLC0415 - scripts begin sooner without it

    from warmwire.compose.chat.markdown import Rendered  # noqa: PLC0415 - the same

    return partial(Rendered, Console())


class Script:
    """Messages that nobody types."""

    def __init__(self, given: Given, client: Client, signals: Signals) -> None:
        self._given = given
        self._client = client
        self._signals = signals
        self._session = given.session or str(uuid.uuid4())
        # Who reads events may answer a question over HTTP; who reads text does not even hear of it.
        self._ask: Ask | None = None if given.as_json else nobody

    async def once(self, message: str) -> int:
        """One message; returns the exit code. Raises as ``Answering.run``."""
        view = Lines() if self._given.as_json else Plain()
        answering = Answering(self._client, view, self._signals, self._ask, once=True)
        return _code_of(await answering.run(self._send(message)))

    async def lines(self) -> int:
        """Each line of stdin, one after the other. The first failure is the exit code."""
        code = 0
        async for line in lines_of_stdin():
            if line.strip():
                told = await self._tried(line)
                code = code or told
        return code

    async def _tried(self, line: str) -> int:
        """A failure is no reason not to go on, unless nobody is there."""
        try:
            return await self.once(line)
        except (WarmwireError, ComposeError) as error:
            told = complaint(error) if isinstance(error, WarmwireError) else error
            if isinstance(told, Unreachable):
                raise
            complain(str(told))
            return told.exit_code

    async def _send(self, message: str) -> AnyTurn:
        turn = await send(self._client, message, self._session, self._given.wishes)
        self._given.memory.used(self._given.place.name, self._session)
        return turn


async def nobody(event: Event) -> Verdict:
    """Who asks a script."""
    complain(f"{event.data['tool']} is not allowed: {NOBODY}")
    return False, NOBODY


def _code_of(end: Event) -> int:
    if end.type == "turn_failed":
        complain(f"{end.data['message']} ({end.data['code']})")
    return {"turn_completed": 0, "turn_interrupted": INTERRUPTED}.get(end.type, 1)


async def lines_of_stdin() -> AsyncIterator[str]:
    """Lines, as they come. Raises UsageError."""
    rest = b""
    while piece := await _beside(partial(os.read, sys.stdin.fileno(), PIECE)):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield _text(line)
        if len(rest) > MESSAGE_LIMIT:
            raise UsageError(f"stdin: a line of more than {MESSAGE_LIMIT} bytes is no message")
    if rest:
        yield _text(rest)


async def _beside(read: Callable[[], bytes]) -> bytes:
    """Read in a thread that nobody waits for at the end: stdin may be anything, and silent for ever."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bytes] = loop.create_future()

    def set_result(data: bytes) -> None:
        if not future.cancelled():
            future.set_result(data)

    def work() -> None:
        data = read()
        if not loop.is_closed():
            loop.call_soon_threadsafe(set_result, data)

    threading.Thread(target=work, daemon=True).start()
    return await future
