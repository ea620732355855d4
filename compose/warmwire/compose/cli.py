"""The `warmwire` command. What a role needs is imported only when its command runs, so that help is quick."""

import asyncio
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import click
from pydantic_settings import BaseSettings

from warmwire.compose.errors import ComposeError, MissingProgram
from warmwire.compose.options import load, settings_of
from warmwire.compose.settings import UpSettings

SUMMARY = """Chat with warm LLM processes behind NATS: every delta reaches the browser as it is made.

\b
  warmwire up                  everything on this machine, then open http://127.0.0.1:8080
  warmwire chat                talk to it in this terminal
  warmwire COMMAND --help      all settings of a command

Each setting is a flag and a WARMWIRE_* variable; the flag wins.
"""

UP = """Run everything on this machine: NATS, workers and edges.

Prints `ready http://HOST:PORT` once a message would be answered; logs go to stderr. Ctrl-C stops in order,
a second one at once.

\b
  warmwire up                                   the stand-in CLI answers: nothing to install, nothing to pay
  warmwire up --cli claude --port 9000          Claude Code answers
  warmwire up --nats nats://nats.example:4222   with a NATS server of your own

\b
  curl -N http://127.0.0.1:8080/v1/chat/stream \\
    -H 'content-type: application/json' -d '{"session_id": "s1", "message": "Hello"}'
"""

WORKER = """Run one worker: it takes messages from NATS and has CLI processes answer them.

`warmwire up` starts workers by itself; this command is for a machine of its own. SIGTERM drains.

\b
  warmwire worker --nats nats://nats.example:4222 --cli claude
  warmwire worker list
  warmwire worker drain w-0123456789abcdef
"""

EDGE = """Run one edge: HTTP in front of NATS, with server-sent events and the chat page.

`warmwire up` starts edges by itself; this command is for a machine of its own. SIGTERM drains.

\b
  warmwire edge --nats nats://nats.example:4222 --host 0.0.0.0 --auth jwt --jwks-url https://id.example/keys
"""


@dataclass(frozen=True)
class Role:
    """A command made from a settings class and the function that runs with it."""

    summary: str
    help: str
    settings: str  # "module:class"
    run: str  # "module:function"; it takes the settings and returns the exit code
    commands: tuple[tuple[str, str], ...] = ()  # below it: name, "module:click command"

    def settings_class(self) -> type[BaseSettings]:
        cls: type[BaseSettings] = _load(self.settings)
        return cls

    def command(self, name: str) -> click.Command:
        cls = self.settings_class()
        options: list[click.Parameter] = [setting.option() for setting in settings_of(cls)]

        def callback(**given: object) -> int:
            if click.get_current_context().invoked_subcommand is not None:
                return 0
            settings = load(cls, given)
            code: int = _load(self.run)(settings)
            return code

        kind: Any = click.Group if self.commands else click.Command
        how = {"invoke_without_command": True} if self.commands else {}
        made: click.Command = kind(
            name, params=options, callback=callback, help=self.help, short_help=self.summary, **how
        )
        for below, place in self.commands:
            assert isinstance(made, click.Group)  # noqa: S101 - by the line above
            made.add_command(_load(place), below)
        return made


@dataclass(frozen=True)
class Other:
    """A command that a module brings as it is."""

    summary: str
    command_at: str  # "module:click command"

    def command(self, _name: str) -> click.Command:
        command: click.Command = _load(self.command_at)
        return command


COMMANDS: dict[str, Role | Other] = {
    "up": Role(
        "Run everything on this machine.",
        UP,
        "warmwire.compose.settings:UpSettings",
        "warmwire.compose.cli:run_up",
    ),
    "chat": Other("Talk to it in this terminal.", "warmwire.compose.chat.command:chat"),
    "nats-config": Other(
        "Write the configuration of a NATS server with a user per role.",
        "warmwire.compose.nats.config:nats_config",
    ),
    "keygen": Other("Make a key pair for users' own tokens.", "warmwire.compose.local.pool_key:keygen"),
    "worker": Role(
        "Run one worker; list or drain those that run.",
        WORKER,
        "warmwire.worker.settings:WorkerSettings",
        "warmwire.worker.app:main",
        (
            ("list", "warmwire.compose.operating.workers:list_workers"),
            ("drain", "warmwire.compose.operating.workers:drain"),
        ),
    ),
    "top": Other("Show the workers live.", "warmwire.compose.operating.top:top"),
    "traces": Other("Show where the time of slow turns went.", "warmwire.compose.operating.traces:traces"),
    "doctor": Other("Say what is wrong, and what to do.", "warmwire.compose.operating.doctor:doctor"),
    "streams": Other(
        "Make the streams, or bring them up to date.", "warmwire.compose.operating.streams:streams"
    ),
    "session": Other(
        "Look at a session, or stop what it does.", "warmwire.compose.operating.session:session"
    ),
    "edge": Role("Run one edge.", EDGE, "warmwire.edge.settings:EdgeSettings", "warmwire.edge.app:main"),
}


class Commands(click.Group):
    """The table above as a click group."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        entry = COMMANDS.get(cmd_name)
        return entry.command(cmd_name) if entry else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.command(
    cls=Commands,
    help=SUMMARY,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(version("warmwire"), prog_name="warmwire", message="%(prog)s %(version)s")
@click.pass_context
def warmwire(ctx: click.Context) -> None:
    """Without a command it shows its help."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: whatever goes wrong on purpose is one line and an exit code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    return guarded(lambda: warmwire.main(arguments, prog_name="warmwire", standalone_mode=False))


def guarded(work: Callable[[], object]) -> int:
    """The exit code of `work`: what it returns, or what its error means."""
    try:
        code = work()
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "warmwire"
        return _fail(f"{error.format_message()} (see `{where} --help`)", 2)
    except click.exceptions.Abort:
        return 130
    except ComposeError as error:
        return _fail(str(error), error.exit_code)
    return code if isinstance(code, int) else 0


def run_up(settings: UpSettings) -> int:
    from warmwire.compose.local.up import up  # noqa: PLC0415 - see the docstring of this module

    return asyncio.run(up(settings))


def _fail(text: str, code: int) -> int:
    click.echo(f"warmwire: {text}", err=True)
    return code


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        remedy = 'pip install "warmwire[all]"'
        raise MissingProgram(f"Python package {error.name}, which {module} needs,", remedy) from error
