"""A CLI in a sandbox, by bubblewrap (`bwrap`): what it sees of the machine. Pure but for `check`.

Its own folder and its working directory are there and can be written; the rest can only be read. What
belongs to others is not there: the data folder with all other sessions, `/tmp`, `/run`, other processes, the
files that the operator hides. docs/profiles.md has the whole policy.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from warmwire.broker.errors import BadInput
from warmwire.worker.cli.launch import Launch

CHECK_WITHIN = 10.0
"""Seconds that a trial may take."""
TRIES = 3
"""Times that a sandbox is set up, if mounts of the machine's go away meanwhile."""
RESOLVER = "/run/systemd/resolve"
"""Where /etc/resolv.conf may point to."""
HIDDEN = (Path("/tmp"), Path("/run"))  # noqa: S108 - in the sandbox
"""What is empty in a sandbox, but for the CLI itself where it is installed there."""
NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What is the same for all sessions of a worker. ``data`` holds their folders."""

    program: Path
    data: Path
    secrets: tuple[Path, ...] = ()
    """Files of the worker's that no CLI may read."""

    def enclosed(
        self, launch: Launch, *, network: bool, kept: Path | None = None, hide: Sequence[Path] = ()
    ) -> Launch:
        """The same start, in the sandbox. ``kept``: where all sessions keep their working directories."""
        own = launch.folders[0]
        empty = [path for path in (self.data, kept, *hide) if path is not None and path.is_dir()]
        unread = [path for path in (*self.secrets, *hide) if path.is_file()]
        argv = (
            *_outer(self.program, network=network),
            *(word for path in _named(launch.argv) for word in ("--ro-bind", str(path), str(path))),
            *(word for path in empty for word in ("--tmpfs", str(path))),
            *(word for path in unread for word in ("--ro-bind", "/dev/null", str(path))),
            *("--bind", str(own), str(own)),
            *("--bind", str(launch.cwd), str(launch.cwd)),
            *("--chdir", str(launch.cwd)),
            "--",
        )
        return replace(launch, argv=(*argv, *launch.argv), enclosed=True)


def _outer(program: Path, *, network: bool) -> tuple[str, ...]:
    """Everything but what belongs to a session. Without capabilities, even for root."""
    return (
        str(program),
        *NAMESPACES,
        *(() if network else ("--unshare-net",)),
        *("--die-with-parent", "--cap-drop", "ALL"),
        *("--ro-bind", "/", "/"),
        *("--dev", "/dev", "--proc", "/proc"),
        *(word for path in HIDDEN for word in ("--tmpfs", str(path))),
        *("--ro-bind-try", RESOLVER, RESOLVER),
    )


def _named(argv: Sequence[str]) -> Iterator[Path]:
    """The folders of the files that the command names, where they would be hidden."""
    for path in map(Path, argv):
        for hidden in HIDDEN:
            if path.is_relative_to(hidden) and path.exists():
                yield path if path.parent == hidden else path.parent


def found(data: Path, secrets: Sequence[Path | None] = ()) -> Sandbox:
    """The sandbox of this machine, tried out.

    Raises:
        BadInput: there is no bubblewrap, or the kernel does not let it work; the text says what to do.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise BadInput("sandbox", "there is no program 'bwrap': install bubblewrap, or set it to 'none'")
    why = check(Path(program))
    if why is not None:
        raise BadInput(
            "sandbox",
            f"bwrap cannot work here ({why}): allow unprivileged user namespaces, and in a container mounts "
            "of /proc in them, or set it to 'none'",
        )
    return Sandbox(Path(program), data.absolute(), tuple(path.absolute() for path in secrets if path))


def lost_a_mount(stderr: str) -> bool:
    """Whether bwrap failed only because a mount of the machine's went away while it copied them all.

    As a container's do when it ends: https://github.com/containers/bubblewrap/issues/650
    """
    return stderr.startswith("bwrap: ") and "Unable to apply mount flags" in stderr


def check(program: Path, tries: int = TRIES) -> str | None:
    """Why a sandbox cannot be had here; None if it can."""
    why = _why_not((*_outer(program, network=False), "--", "true"))
    again = why is not None and tries > 1 and lost_a_mount(why)
    return check(program, tries - 1) if again else why


def _why_not(argv: Sequence[str]) -> str | None:
    try:
        tried = subprocess.run(argv, capture_output=True, text=True, timeout=CHECK_WITHIN, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if tried.returncode == 0 else tried.stderr.strip() or f"exit code {tried.returncode}"
