"""`warmwire chat`: talk to the product in a terminal, over the same HTTP that browsers use."""

import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import click

from warmwire.producer import Answer, Event

from .errors import ComposeError, UsageError

HELP = """Talk to it in this terminal; the answer appears as it is written.

Ctrl-C stops an answer, Ctrl-D leaves. For an edge with authentication put a token into WARMWIRE_ACCESS_TOKEN.

\b
  warmwire chat
  warmwire chat --session s1            go on with a session
  warmwire chat --print "Hello"         one message, only the answer on stdout
"""

SILENCE = 60.0
"""Seconds without a byte after which the connection counts as broken; the edge says something each 15."""
TRIES = 5
"""Connections in a row that may break without an event."""
PAUSE = 1.0
"""Seconds between two of them."""
ACCESS_TOKEN = "WARMWIRE_ACCESS_TOKEN"  # noqa: S105 - the name of a variable
"""Where the token is for an edge that wants one; no flag, which everybody on the machine could read."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


@click.command(help=HELP)
@click.option(
    "--url",
    envvar="WARMWIRE_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    help="Where an edge listens.",
)
@click.option("--session", help="Session to go on with; a new one without it.")
@click.option("--print", "message", metavar="MESSAGE", help="Send this, print the answer, end.")
def chat(url: str, session: str | None, message: str | None) -> int:
    """The command; returns the exit code."""
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--url (WARMWIRE_URL) {url!r}: must begin with http:// or https://")
    conversation = Conversation(url.rstrip("/"), session or str(uuid.uuid4()))
    if message is not None:
        return _once(conversation, message)
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401, PLC0415 - gives `input` editing and history, where the system has it
        click.echo(f"session {conversation.session} at {conversation.url}; Ctrl-D leaves", err=True)
    return _talk(conversation)


def _once(conversation: "Conversation", message: str) -> int:
    try:
        _print_answer(conversation, message)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _talk(conversation: "Conversation") -> int:
    while True:
        try:
            message = input("› " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            return 0
        if not message.strip():
            continue
        try:
            _print_answer(conversation, message)
        except KeyboardInterrupt:
            click.echo("\n(stopped)", err=True)
        except ComposeError as error:
            click.echo(f"warmwire: {error}", err=True)


def _print_answer(conversation: "Conversation", message: str) -> None:
    """Write the answer as it comes. Raises ComposeError."""
    answer = Answer()
    for event in conversation.events(message):
        answer.add(event)
        if event.type in ("snapshot", "turn_reset"):  # a terminal cannot take back what it has shown
            click.echo(f"\n(again)\n{answer.text}", nl=False)
        elif event.text:
            click.echo(event.text, nl=False)
        elif event.type == "turn_failed":
            click.echo()
            raise ComposeError(f"{event.data['message']} ({event.data['code']})")
    click.echo()


@dataclass
class Conversation:
    """One session at one edge."""

    url: str
    session: str
    _last_id: str = field(default="", init=False)

    def events(self, message: str) -> Iterator[Event]:
        """The events of the message's turn; a broken connection is made again. Raises ComposeError."""
        self._last_id, broken = "", 0
        request = self._submission(message)
        while broken < TRIES:
            try:
                with self._opened(request) as response:
                    for event in self._read(response):
                        broken = 0
                        yield event
                        if event.terminal:
                            return
                    if response.status == 204:
                        raise ComposeError("the end of the answer is no longer known")
            except (OSError, HTTPException) as error:
                if not self._last_id:  # nothing has come yet: is this an edge at all?
                    raise ComposeError(f"no answer from {self.url}: {_cause(error)}") from error
            broken += 1
            time.sleep(PAUSE)
            request = self._resumption()
        raise ComposeError(f"the connection to {self.url} breaks again and again")

    def _submission(self, message: str) -> Request:
        body = {"session_id": self.session, "message": message, "on_disconnect": "cancel"}
        headers = {"content-type": "application/json"}
        return Request(f"{self.url}/v1/chat/stream", json.dumps(body).encode(), headers)  # noqa: S310 - the user's own

    def _resumption(self) -> Request:
        query = urlencode({"session_id": self.session})
        headers = {"last-event-id": self._last_id}
        return Request(f"{self.url}/v1/chat/stream?{query}", headers=headers)  # noqa: S310 - the user's own

    def _opened(self, request: Request) -> HTTPResponse:
        token = os.environ.get(ACCESS_TOKEN)
        if token:
            request.add_unredirected_header("authorization", f"Bearer {token}")
        try:
            response: HTTPResponse = urlopen(request, timeout=SILENCE)  # noqa: S310 - the user's own
        except HTTPError as error:
            with error:
                raise ComposeError(_problem(error)) from None
        return response

    def _read(self, response: HTTPResponse) -> Iterator[Event]:
        kind, data = "message", ""
        for raw in response:
            name, _, value = raw.decode().rstrip("\r\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                data = value
            elif name == "id":
                self._last_id = value
            elif not name:
                if data.startswith("{"):
                    yield Event(kind, data.encode(), self._last_id)
                kind, data = "message", ""


def _problem(error: HTTPError) -> str:
    """The `detail` of a problem document, else the status."""
    try:
        return str(json.loads(error.read())["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {error.code} {error.reason}"


def _cause(error: Exception) -> object:
    return error.reason if isinstance(error, URLError) else str(error) or type(error).__name__
