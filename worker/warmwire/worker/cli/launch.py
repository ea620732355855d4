"""How a CLI is started: argv, environment, folders. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from warmwire.worker.profiles import BUILT_IN, Profile

DEFAULT_SYSTEM_PROMPT = "You are a helpful assistant."

# A chat without tools: request bodies of 2 KB instead of 49 KB, and nothing of the machine's settings.
FLAGS = (
    "--print",
    "--input-format=stream-json",
    "--output-format=stream-json",
    "--include-partial-messages",
    "--verbose",
    "--session-mirror",
    "--setting-sources=",
    "--strict-mcp-config",
    "--disable-slash-commands",
    "--permission-prompt-tool=stdio",  # what a tool needs leave for is asked of us
)

CREDENTIAL = "ANTHROPIC_API_KEY"
"""The pool's credential."""

# All that a CLI sees of the worker's environment. Its credential and address pass, other secrets do not.
PASSED = ("PATH", "LANG", "ANTHROPIC_BASE_URL", CREDENTIAL)
PASSED_PREFIX = "WARMWIRE_EMULATOR_"

# Spans of its own, and nothing of what is said: the CLI writes content only where other variables ask for it.
TRACES = {
    "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
    "CLAUDE_CODE_ENHANCED_TELEMETRY_BETA": "1",
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_TRACES_EXPORT_INTERVAL": "1000",  # ms; a CLI may be ended at any time
}

# The CLI's default of 10 keeps a viewer waiting for over a minute before it hears of an error; 2 rides out a
# dropped connection and answers within about two seconds. Longer patience is the queue's business.
MAX_RETRIES = 2


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything a process shell needs to start one CLI."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    folders: tuple[Path, ...]  # to be there, for the owner only, before the start
    files: tuple[tuple[Path, bytes], ...] = ()  # the same
    template: Path | None = None  # what ``cwd`` is a copy of, if it is not there yet
    enclosed: bool = False  # the command runs in another one, which must not get the signals for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawning:
    """What is fixed when a process starts.

    It has ``folder`` to itself and works in ``cwd``, else in a folder within its own; ``environment`` is the
    worker's. It is for a new conversation with the CLI's own id ``session`` (a UUID); with ``resume``, the
    absolute path of a transcript, for that one, whose id is not said again; with neither, for one that is not
    known yet: it is told its system prompt and its model when it is adopted, and chooses its id itself.
    """

    folder: Path
    environment: Mapping[str, str]
    session: str | None = None
    model: str | None = None
    system_prompt: str | None = None
    resume: Path | None = None
    token: str | None = None  # its user's; it then lacks the pool's credential, which would win over that
    profile: Profile = BUILT_IN
    cwd: Path | None = None

    def launch(
        self, argv: tuple[str, ...], ours: Mapping[str, str], files: tuple[tuple[Path, bytes], ...] = ()
    ) -> Launch:
        """With this command; ``ours`` is what the environment has besides what is passed on."""
        environment = _environment(
            self.folder, self.environment, pooled=self.token is None, more=self.profile.environment
        )
        return Launch(
            argv=argv,
            env={**environment, **ours},
            cwd=self.cwd or self.folder / "work",
            folders=_folders(self.folder),
            files=files,
            template=self.profile.workdir,
        )


def launch(command: Sequence[str], spawn: Spawning) -> Launch:
    """Start `command` as Claude Code is started; a user's token it is told later, over stdin."""
    bound: list[str] = []
    if spawn.session is not None or spawn.resume is not None:
        bound.append(f"--system-prompt={prompt_or_default(spawn.system_prompt)}")
        bound.append(f"--session-id={spawn.session}" if spawn.resume is None else f"--resume={spawn.resume}")
    if spawn.model is not None:
        bound.append(f"--model={spawn.model}")
    servers = spawn.folder / "mcp.json"
    argv = (*command, *FLAGS, *_flags(spawn.profile, servers), *bound)
    return spawn.launch(argv, {}, _mcp_file(spawn.profile, servers))


def traced(plan: Launch, collector: str, traceparent: str) -> Launch:
    """The same start; the CLI sends spans to ``collector``, those of its turns below ``traceparent``.

    No header goes along: the tools of a CLI can read its environment, and a collector's headers are often
    secret.
    """
    more = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "TRACEPARENT": traceparent}
    return replace(plan, env={**plan.env, **TRACES, **more})


def _flags(profile: Profile, servers: Path) -> tuple[str, ...]:
    """What a profile fixes at the spawn. Its MCP servers stand in a file: they may hold secrets."""
    lists = {
        "--allowedTools": profile.allowed_tools,
        "--disallowedTools": profile.disallowed_tools,
        "--mcp-config": (str(servers),) if profile.mcp_servers else (),
        "--max-turns": (str(profile.limits.turn_steps),) if profile.limits.turn_steps else (),
    }
    bypass = "bypassPermissions" in profile.permission_modes
    return (
        f"--tools={','.join(profile.tools)}",
        *(f"{flag}={','.join(values)}" for flag, values in lists.items() if values),
        *(("--allow-dangerously-skip-permissions",) if bypass else ()),
    )


def _mcp_file(profile: Profile, path: Path) -> tuple[tuple[Path, bytes], ...]:
    servers = profile.mcp_servers
    return ((path, msgspec.json.encode({"mcpServers": servers})),) if servers else ()


def _environment(
    folder: Path, environment: Mapping[str, str], *, pooled: bool, more: Sequence[str] = ()
) -> dict[str, str]:
    """All that a CLI in this folder sees of the worker's environment, and where it may write.

    ``more`` are names that are let through.
    """
    return {
        **{name: environment[name] for name in more if name in environment},
        **_passed(environment if pooled else _without_credential(environment)),
        "HOME": str(folder / "home"),
        "CLAUDE_CONFIG_DIR": str(folder / "home" / ".claude"),
        "TMPDIR": str(folder / "tmp"),
    }


def _folders(folder: Path) -> tuple[Path, ...]:
    """What has to be there before the start."""
    return (folder, folder / "home", folder / "home" / ".claude", folder / "work", folder / "tmp")


def prompt_or_default(system_prompt: str | None) -> str:
    """The system prompt of a session that asks for this one; an empty one is one."""
    return DEFAULT_SYSTEM_PROMPT if system_prompt is None else system_prompt


def transcript_path(folder: Path, session: str) -> Path:
    """Where to put a transcript to resume from; `session` is the id that its entries hold.

    The CLI goes on in a file of that name beside it. Under any other name it would first copy the whole past
    into that file and mirror all of it once more, and what is stored would double with each resume.
    """
    return folder / "resume" / f"{session}.jsonl"


def _without_credential(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the pool's credential."""
    return {name: value for name, value in environment.items() if name != CREDENTIAL}


def _passed(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        "LANG": "C.UTF-8",
        **{k: v for k, v in environment.items() if k in PASSED or k.startswith(PASSED_PREFIX)},
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": str(MAX_RETRIES),
    }
