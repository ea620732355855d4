"""The reference pages that come from code: `python docs/generate.py` writes, `--check` only compares."""

import sys
from pathlib import Path

from warmwire.compose.cli import COMMANDS, Role
from warmwire.compose.options import Setting, settings_of

REFERENCE = Path(__file__).parent / "reference"

SETTINGS = """\
# Settings

<!-- Made from the settings classes by `make format`; edits here are lost. -->

Each setting is a flag of its command and a `WARMWIRE_*` variable; the flag wins, an empty variable counts as
absent. What `warmwire up` does not know itself reaches its workers and edges through the environment, so
`WARMWIRE_MAX_TURNS=50 warmwire up` works. The standard `OTEL_*` variables are read by every role.
"""


def settings_page() -> str:
    roles = {name: entry for name, entry in COMMANDS.items() if isinstance(entry, Role)}
    return SETTINGS + "".join(_section(name, role) for name, role in roles.items())


def _section(name: str, role: Role) -> str:
    rows = [_row(setting) for setting in settings_of(role.settings_class())]
    head = ["| flag | variable | default | |", "|---|---|---|---|"]
    return f"\n## `warmwire {name}`\n\n" + "\n".join([*head, *rows]) + "\n"


def _row(setting: Setting) -> str:
    default = f"`{setting.default}`" if setting.default else ""
    cells = [f"`{setting.flag}`", f"`{setting.variable}`", default, setting.help]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


PAGES = {"settings.md": settings_page}


def main() -> int:
    stale = [name for name, page in PAGES.items() if not _is_current(REFERENCE / name, page())]
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"docs/reference/{name} is not what the code says: run `make format`", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (REFERENCE / name).write_text(PAGES[name]())
    return 0


def _is_current(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main())
