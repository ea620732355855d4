"""What has to be on the disk before a CLI starts: files of its profile, a copy of its template."""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from pathlib import Path

from warmwire.worker.cli.launch import Launch
from warmwire.worker.errors import CliStartFailed


async def prepare(plan: Launch) -> None:
    """See to it. Raises CliStartFailed."""
    if plan.files or plan.template is not None or plan.cwd.parent != plan.folders[0]:
        try:
            await asyncio.to_thread(_prepare, plan)
        except OSError as error:  # shutil.Error is one
            raise CliStartFailed(f"the working directory could not be made: {error}") from error


def _prepare(plan: Launch) -> None:
    plan.folders[0].mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, content in plan.files:
        write_private(path, content)
    if not plan.cwd.exists():
        _make(plan.cwd, plan.template)


def _make(folder: Path, template: Path | None) -> None:
    """Whole or not at all: who dies in the middle leaves no half of it under its name."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    making = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    if template is None:
        making.mkdir(mode=0o700)
    else:
        shutil.copytree(template, making, symlinks=True)
        making.chmod(0o700)
    try:
        making.rename(folder)
    except OSError:  # another one was faster
        shutil.rmtree(making, ignore_errors=True)
        if not folder.is_dir():
            raise


def write_private(path: Path, content: bytes) -> None:
    """A file that only its owner can read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
