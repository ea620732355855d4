"""Do the tests notice? Changes the modules without I/O in small ways, and runs their tests on each change.

    python -m tests.mutation [--sample 900] [--seed 1] [--json FILE]

`make mutation` runs it. The modules are those of the import rule "Decisions hold no I/O and no clock".
mutmut wants one source tree, so one is made in a temporary folder from the roles' folders. Of all mutants so
many are tried, chosen by the seed; those that no test noticed are shown.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RULE = "Decisions hold no I/O and no clock"
SAMPLE = 900
"""Mutants: about ten minutes on two cores."""
THROUGH_A_SERVER = frozenset(
    f"warmwire.{name}"
    for name in (
        "compose.operating.waterfall",
        "edge.errors",
        "edge.access.caller",
        *(f"edge.codecs.{each}" for each in ("appending", "told")),
        *(f"edge.delivery.{each}" for each in ("guide", "merge", "sse")),
        *(f"producer.{each}" for each in ("credentials", "errors", "refusals", "request")),
    )
)
"""Modules that are tested through a running edge or a real server alone: too long for each mutant."""
NEEDS_A_SERVER = ("tests/edge/delivery/test_guide.py", "tests/edge/delivery/test_guide_server.py")
"""Tests that bear such a name and start more than the module."""
MORE = ("tests/compose/chat/test_blocks.py",)
"""Tests of these modules that do not bear their names."""
STARTERS = ("nats_server", "start", "bwrap", "claude_cli")
"""Fixtures of tests that start processes, which would take longer than all the rest: these are left out."""
NOTICED = (1, 3, 24, 36, 152, 255, -24)
"""mutmut's exit codes; tests that do not end any more have noticed, too."""
CONFIG = """
[tool.mutmut]
source_paths = ["src"]
also_copy = ["docs"]
only_mutate = {modules}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:xdist", "-p", "no:cacheprovider"]
"""
CHOSEN = f"""

def pytest_make_parametrize_id(val):
    shown = ascii(val)
    return shown.replace("\\\\", "/") if "\\\\" in shown and isinstance(val, str | bytes) else None


def pytest_collection_modifyitems(items):
    items[:] = [
        item
        for item in items
        if "\\\\" not in item.nodeid and not {{*{STARTERS}}} & {{*getattr(item, "fixturenames", ())}}
    ]
"""
"""For the tests' conftest.py. mutmut asks for tests by name, and finds none whose name holds a backslash."""


def pure_modules() -> list[str]:
    """Their dotted names, as the import rule lists them, without those tested through a server."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (found,) = [each["source_modules"] for each in contracts if each["name"].startswith(RULE)]
    refuse_gone("THROUGH_A_SERVER", THROUGH_A_SERVER - set(found))
    return [each for each in found if each not in THROUGH_A_SERVER]


def refuse_gone(where: str, gone: Iterable[str]) -> None:
    """A name that is left behind when something moves would change silently what is measured."""
    if names := ", ".join(sorted(gone)):
        raise SystemExit(f"mutation: {where} in tests/mutation.py names what does not exist: {names}")


def tests_of(modules: Iterable[str]) -> list[str]:
    """The test files that bear the modules' names, or names that begin with them, and some more."""
    for where, paths in (("NEEDS_A_SERVER", NEEDS_A_SERVER), ("MORE", MORE)):
        refuse_gone(where, (path for path in paths if not ROOT.joinpath(path).is_file()))
    parts = [module.split(".")[1:] for module in modules]
    found = {
        path
        for *folders, name in parts
        for pattern in (f"test_{name}.py", f"test_{name}_*.py")
        for path in ROOT.joinpath("tests", *folders).glob(pattern)
    }
    return sorted({str(path.relative_to(ROOT)) for path in found} - set(NEEDS_A_SERVER) | set(MORE))


def plant(tree: Path, modules: Sequence[str]) -> None:
    """One source tree of all roles, with the tests and mutmut's settings."""
    for role in ("broker", "worker", "producer", "edge", "compose"):
        shutil.copytree(ROOT / role / "warmwire" / role, tree / "src" / "warmwire" / role)
    shutil.copytree(ROOT / "tests", tree / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "docs", tree / "docs")
    with (tree / "tests" / "conftest.py").open("a") as conftest:
        conftest.write(CHOSEN)
    files = [f"src/{module.replace('.', '/')}.py" for module in modules]
    ours = CONFIG.format(modules=json.dumps(files), tests=json.dumps(tests_of(modules)))
    (tree / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + ours)


def mutmut(tree: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Make the mutants, unless they are there, learn which tests run through which, and try those named."""
    argv = [sys.executable, "-m", "mutmut", "run", "--max-children", str(os.cpu_count() or 1), *names]
    environment = os.environ | {"PYTHONHASHSEED": "0"}  # each run knows the tests by the same names
    return subprocess.run(argv, cwd=tree, env=environment, text=True, capture_output=True, check=False)


def planted(tree: Path) -> list[str]:
    """The names of all mutants. Asked for one that there is not, mutmut makes them all and then ends."""
    ended = mutmut(tree, "none")
    names = sorted(results(tree))
    if not names or "nothing matches" not in ended.stderr:
        raise SystemExit(f"mutation: mutmut made nothing of it:\n{_end_of(ended)}")
    return names


def tried(tree: Path, names: Sequence[str]) -> dict[str, int]:
    """The exit code of the tests on each of these."""
    ended = mutmut(tree, *names)
    codes = results(tree)
    if ended.returncode or any(codes[name] is None for name in names):
        raise SystemExit(f"mutation: mutmut failed:\n{_end_of(ended)}")
    return {name: code for name in names if (code := codes[name]) is not None}


def _end_of(ended: subprocess.CompletedProcess[str]) -> str:
    lines = (ended.stdout + ended.stderr).splitlines()
    return "\n".join(line[:300] for line in lines[-60:])


def results(tree: Path) -> dict[str, int | None]:
    """The exit code of the tests by mutant; None: not tried."""
    found: dict[str, int | None] = {}
    for path in sorted((tree / "mutants").rglob("*.meta")):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return found


def change(tree: Path, name: str) -> str:
    """What a mutant changes."""
    module, _, function = name.rpartition(".")
    path = tree / "mutants" / "src" / f"{module.replace('.', '/')}.py"
    functions = {
        each.name: ast.unparse(ast.Module(each.body, [])).splitlines()
        for each in ast.walk(ast.parse(path.read_text()))
        if isinstance(each, ast.FunctionDef) and each.name.startswith(function.partition("__mutmut_")[0])
    }
    original = functions[f"{function.partition('__mutmut_')[0]}__mutmut_orig"]
    lines = difflib.unified_diff(original, functions[function], n=0, lineterm="")
    return "\n".join([name, *(line for line in lines if not line.startswith(("---", "+++", "@@")))])


def rows(codes: Mapping[str, int]) -> list[dict[str, Any]]:
    """By module: how many were noticed, how many survived, and how many no test runs through."""
    by_module: dict[str, Counter[str]] = {}
    for name, code in codes.items():
        outcome = "noticed" if code in NOTICED else "survived" if code == 0 else "untested"
        module = name.rpartition(".")[0].removeprefix("warmwire.")
        by_module.setdefault(module, Counter())[outcome] += 1
    return [{"module": module, **counted} for module, counted in sorted(by_module.items())]


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=SAMPLE, help=f"mutants to try; default {SAMPLE}")
    parser.add_argument("--seed", type=int, default=1, help="chooses them; default 1")
    parser.add_argument("--only", default="", help="part of the names of the modules to change")
    parser.add_argument("--json", type=Path, help="file to write the figures to, too")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="warmwire-mutation-") as temporary:
        tree = Path(temporary)
        plant(tree, [module for module in pure_modules() if given.only in module])
        names = planted(tree)
        chosen = random.Random(given.seed).sample(names, min(given.sample, len(names)))
        codes = tried(tree, chosen)
        missed = sorted(name for name, code in codes.items() if code not in NOTICED)
        for name in missed:
            print(change(tree, name), end="\n\n")
    found = rows(codes)
    noticed = len(codes) - len(missed)
    for row in found:
        print(row)
    print(f"{noticed} of {len(codes)} noticed ({100 * noticed / len(codes):.1f} %), of {len(names)} mutants")
    if given.json:
        report = {"mutants": len(names), "tried": len(codes), "noticed": noticed, "rows": found}
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
