"""An answer as Markdown in a terminal: what is finished is printed once, the last block is drawn anew."""

from __future__ import annotations

import asyncio
from time import monotonic

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text

from warmwire.compose.chat.blocks import clean, finished, one_line
from warmwire.compose.chat.view import AGAIN, RECONNECTING, View
from warmwire.producer import Event, Growing, PastTurn, TextVoid

FRAME = 0.04
"""Seconds between two pictures, at least."""
SHARE = 4
"""A picture is followed by a pause so many times as long as it took: signals and the stream come first."""
SPARE_LINES = 3
"""Lines of the screen that the picture leaves free: it must never scroll, or it could not be drawn over."""

Drawn = list[list[Segment]]


def drawn(text: str, console: Console, options: ConsoleOptions) -> Drawn:
    """Markdown as lines, without empty ones before and behind. What a link leads to is shown."""
    lines = console.render_lines(Markdown(text, hyperlinks=False), options, pad=False)
    shown = [number for number, line in enumerate(lines) if _has_text(line)]
    return lines[shown[0] : shown[-1] + 1] if shown else []


def _has_text(line: list[Segment]) -> bool:
    return any(segment.text.strip() or (segment.style and segment.style.bgcolor) for segment in line)


class Block:
    """A piece of Markdown: all of it, or while it grows its last lines and below them what is going on."""

    def __init__(self, text: str, status: str | None = None) -> None:
        self._text = text
        self._status = status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = drawn(self._text, console, options)
        if self._status is not None:
            lines = lines[-max(1, console.height - SPARE_LINES) :]
        for line in lines:
            yield from line
            yield Segment.line()
        if self._status:
            yield Text(self._status, style="dim", no_wrap=True, overflow="ellipsis", end="")
        elif self._status is None and lines:
            yield Segment.line()


class Rendered(View):
    """See the module. Needs a running loop."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._growing = Growing()
        self._open = ""  # text of which nothing is printed yet
        self._status = "…"
        self._lost = False
        self._later: list[Block | Text] | None = None  # what is held back
        self._next_at = 0.0
        self._coming: asyncio.TimerHandle | None = None

    def add(self, event: Event, cursor: str) -> None:  # noqa: ARG002 - people need no cursor
        try:
            new = self._growing.add(event)
        except TextVoid:
            self.notice(AGAIN)
            new = self._growing.begin_again()
        self._between(event)
        if new:
            self._open += clean(new)
            self._status = "…"
        self._soon()

    def notice(self, text: str) -> None:
        self._say(f"({one_line(text)})", "yellow")

    def reconnecting(self) -> None:
        self._lost = True
        self._draw()

    def connected(self) -> None:
        if self._lost:
            self._lost = False
            self._draw()

    def past(self, turn: PastTurn) -> None:
        self.asked(turn.message or "")
        self._console.print(Block(clean(turn.text)), end="")
        if turn.ending != "completed":
            self.notice(turn.ending)

    def asked(self, message: str) -> None:
        self._say(f"› {clean(message)}", "bold")

    def hold(self) -> None:
        self._stop()
        self._later = self._later or []

    def go_on(self) -> None:
        later, self._later = self._later or [], None
        for what in later:
            self._print(what)
        self._soon()

    def close(self) -> None:
        self.go_on()
        self._stop()
        self._print_open()

    # -- what is finished

    def _between(self, event: Event) -> None:
        """What ends a piece of text: another one, a tool, unless it is said only once more."""
        if self._growing.behind:
            return
        if event.type in ("message_start", "content_block_start"):
            self._print_open()
        elif event.type == "tool_started":
            self._print_open()
            self._status = one_line(event.data["name"]) + "…"
            self._say(f"• {one_line(event.data['name'])} {one_line(event.data['summary'])}", "cyan")
        elif event.type == "tool_finished" and event.data["is_error"]:
            self._say(f"• failed: {one_line(event.data['summary'])}", "red")

    def _print_open(self) -> None:
        text, self._open = self._open, ""
        if text.strip():
            self._print(Block(text))

    def _say(self, text: str, style: str) -> None:
        self._print(Text(text + "\n", style=style, overflow="fold"))

    def _print(self, what: Block | Text) -> None:
        """Above the picture, in one write with the new one."""
        if self._later is not None:
            self._later.append(what)
            return
        if self._live is not None:
            self._live.update(self._picture())
        self._console.print(what, end="")

    # -- what still grows

    def _picture(self) -> Block:
        return Block(self._open, RECONNECTING if self._lost else self._status)

    def _soon(self) -> None:
        if self._coming is None and self._later is None:
            loop = asyncio.get_running_loop()
            self._coming = loop.call_later(max(0.0, self._next_at - monotonic()), self._draw)

    def _draw(self) -> None:
        if self._coming is not None:
            self._coming.cancel()
            self._coming = None
        if self._later is not None:
            return
        began = monotonic()
        done = finished(self._open)
        text, self._open = self._open[:done], self._open[done:]
        if text.strip():
            self._print(Block(text))
        self._show()
        took = monotonic() - began
        self._next_at = monotonic() + max(FRAME, SHARE * took)

    def _show(self) -> None:
        if self._live is None:  # one that was stopped would take what is above for its own
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(self._picture(), refresh=True)

    def _stop(self) -> None:
        if self._coming is not None:
            self._coming.cancel()
            self._coming = None
        live, self._live = self._live, None
        if live is not None:
            live.update(Text(""))
            live.stop()
