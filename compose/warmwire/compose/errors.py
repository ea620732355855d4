"""What can go wrong in the `warmwire` command.

ComposeError            one clear line on stderr, exit code 1, no traceback
├── UsageError          the command line or the environment is wrong: exit code 2
├── Unreachable         nobody answers where a chat is to go: exit code 3
├── MissingProgram      a program that is not on this machine
├── DataFolderError     the data folder cannot be used
├── PortError           the HTTP port cannot be had
└── StartError          a part did not come up

The message is what the user reads: it names the thing, its value and what to do.
"""


class ComposeError(Exception):
    """The user reads its text after `warmwire: `, on one line."""

    exit_code = 1


class UsageError(ComposeError):
    """A flag or a `WARMWIRE_*` variable has a value that cannot work."""

    exit_code = 2


class Unreachable(ComposeError):
    """Nobody answers there, or none that speaks as one of ours does."""

    exit_code = 3


class MissingProgram(ComposeError):
    """A program that the command needs is not on this machine."""

    def __init__(self, program: str, remedy: str) -> None:
        super().__init__(f"{program} not found: {remedy}")
        self.program = program


class DataFolderError(ComposeError):
    """The data folder cannot be written, or another `warmwire up` has it."""


class PortError(ComposeError):
    """The HTTP address cannot be bound: taken, not ours, or not an address of this machine."""


class StartError(ComposeError):
    """A part of `warmwire up` ended or stayed silent before everything was ready."""
