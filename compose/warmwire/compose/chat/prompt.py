"""The line on which a person types: editing, several lines, what was typed before, questions."""

from __future__ import annotations

import sys
import termios
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from prompt_toolkit import PromptSession
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.output.vt100 import Vt100_Output

IFLAG, LFLAG = 0, 3
"""Where termios keeps the modes of input, and the local ones."""
AGAIN = "Ctrl-C again leaves"


class Typed(History):
    """What was typed, kept by somebody else."""

    def __init__(self, before: Iterable[str], keep: Callable[[str], None]) -> None:
        super().__init__()
        self._before = tuple(before)
        self._keep = keep

    def load_history_strings(self) -> Iterable[str]:
        return reversed(self._before)

    def store_string(self, string: str) -> None:
        self._keep(string)


class Prompt:
    """One terminal. ``message`` and ``question`` ask; ``quiet`` while nobody is asked."""

    def __init__(self, history: History) -> None:
        self._output = _output()
        self._armed = False
        self._messages: PromptSession[str] = PromptSession(
            "› ",
            multiline=True,
            prompt_continuation="  ",
            key_bindings=self._keys(),
            history=history,
            output=self._output,
            placeholder=lambda: [("class:hint", AGAIN if self._armed else "")],
            reserve_space_for_menu=0,
        )
        self._messages.default_buffer.on_text_changed += self._disarm
        self._questions: PromptSession[str] = PromptSession(
            history=InMemoryHistory(), output=self._output, reserve_space_for_menu=0
        )

    async def message(self) -> str:
        """What a person says. Raises EOFError when they leave."""
        self._armed = False
        return await self._messages.prompt_async(handle_sigint=False)

    async def question(self, text: str) -> str:
        """The answer to a question, on one line. Raises EOFError, KeyboardInterrupt."""
        try:
            return await self._questions.prompt_async(text, handle_sigint=False)
        finally:
            self._paste_in_brackets()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Show nothing of what is typed, keep it for the next prompt; Ctrl-C is still a signal.

        A paste stays in its brackets, so that of its lines no single one becomes a message.
        """
        before = termios.tcgetattr(sys.stdin)
        modes = termios.tcgetattr(sys.stdin)
        modes[IFLAG] &= ~termios.ICRNL
        modes[LFLAG] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(sys.stdin, termios.TCSANOW, modes)
        self._paste_in_brackets()
        try:
            yield
        finally:
            self._output.disable_bracketed_paste()
            self._output.flush()
            termios.tcsetattr(sys.stdin, termios.TCSANOW, before)

    def _paste_in_brackets(self) -> None:
        self._output.enable_bracketed_paste()
        self._output.flush()

    def _disarm(self, _buffer: Buffer) -> None:
        self._armed = False

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter")
        def _(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.document.text_before_cursor.endswith("\\"):
                buffer.delete_before_cursor()
                buffer.insert_text("\n")
            else:
                buffer.validate_and_handle()

        @keys.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("c-c")
        def _(event: KeyPressEvent) -> None:
            if self._armed:
                event.app.exit(exception=EOFError())
            event.current_buffer.reset()
            self._armed = True

        return keys


def _output() -> Output:
    """The terminal, wherever stdout goes. It is not asked where its cursor is: the answer might come late."""
    output = create_output(always_prefer_tty=True)
    if isinstance(output, Vt100_Output):
        output.enable_cpr = False
    return output
