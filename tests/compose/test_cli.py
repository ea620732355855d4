import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from warmwire.compose.cli import COMMANDS, Role, run
from warmwire.compose.options import settings_of

ROOT = Path(__file__).parents[2]
ROLES = {name: entry for name, entry in COMMANDS.items() if isinstance(entry, Role)}


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == run(["--version"])
    assert f"warmwire {version('warmwire')}\n" == capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_its_help_names_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == run(arguments)
    listed = re.findall(r"^  ([\w-]+) +\S", capsys.readouterr().out.split("Commands:")[1], re.MULTILINE)
    assert list(COMMANDS) == listed


@pytest.mark.parametrize("name", ROLES)
def test_the_help_of_a_role_has_every_setting_and_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == run([name, "--help"])
    text = capsys.readouterr().out
    assert f"warmwire {name} --" in text
    for setting in settings_of(ROLES[name].settings_class()):
        assert setting.flag in text
        assert setting.variable in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["dance"], r"warmwire: No such command 'dance'. \(see `warmwire --help`\)"),
        (["up", "--hots", "x"], r"warmwire: No such option '--hots'.* \(see `warmwire up --help`\)"),
        (["up", "--port"], r"warmwire: Option '--port' requires an argument. \(see `warmwire --help`\)"),
        (["up", "now"], r"warmwire: Got unexpected extra argument \(now\) \(see `warmwire up --help`\)"),
        (["up", "--port", "http"], r"warmwire: --port \(WARMWIRE_PORT\) 'http': .*"),
        (["worker", "--replicas", "9"], r"warmwire: --replicas \(WARMWIRE_REPLICAS\) '9': .*"),
    ],
    ids=["command", "option", "no value", "argument", "value", "value of a role"],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 2 == run(arguments)
    told = capsys.readouterr()
    assert "" == told.out
    assert re.fullmatch(line + "\n", told.err), told.err


def test_help_is_quick_because_it_loads_no_role() -> None:
    script = "import sys; from warmwire.compose.cli import run; run([]); print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert not {"nats", "uvloop", "fastapi", "warmwire.worker", "warmwire.edge"} & set(loaded.stdout.split())


def test_the_reference_page_of_settings_is_what_the_code_says() -> None:
    check = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    told = subprocess.run(check, check=False, capture_output=True, text=True)
    assert (0, "") == (told.returncode, told.stderr)
