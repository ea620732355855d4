"""Runs the contract; if the installed CLI keeps it, its version is one of those that were tested.

python -m tests.worker.contract
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from warmwire.worker.cli import abilities
from warmwire.worker.cli.program import cli_command, probe


def adding(source: str, version: str) -> str:
    """The source of `abilities` with this version among the tested ones."""
    if version in abilities.TESTED:
        return source
    known = ", ".join(f'"{each}"' for each in (*abilities.TESTED, version))
    head, _, rest = source.partition("\nTESTED = (")
    return f"{head}\nTESTED = ({known})\n{rest.partition(chr(10))[2]}"


def main() -> int:
    code = pytest.main(["-q", str(Path(__file__).parent)])
    if code:
        return code
    version = asyncio.run(probe(cli_command("claude"))).split()[0]
    path = Path(abilities.__file__)
    path.write_text(adding(path.read_text(), version))
    print(f"Claude Code {version} keeps the contract")
    return 0


if __name__ == "__main__":
    sys.exit(main())
