"""The house in figures: `make house` prints the table of docs/house.md, for a commit and for the tree now.

    python docs/house.py [--before REV] [--coverage coverage.json] [--mutation mutation.json] [--any]

A function's length is its lines of code: without docstring, comments, blank lines, and without the functions
in it. A block is ``BLOCK`` lines of code or more that stand at two places; imports do not count.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEFORE = "e13795b"
"""What was measured first: the last commit before the house was put in order."""
PARTS = {
    "product": ("broker", "worker", "producer", "edge", "compose"),
    "tests and benchmarks": ("tests", "bench", "examples", "docs"),
}
BLOCK = 6
IGNORE = re.compile(r"# (?:noqa|type: ignore|pyright: ignore)")
IMPORT = re.compile(r"(?m)^ *(?:from \S+ )?import (?:\([^)]*\)|.*)$")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Figures:
    """Of one part of the tree; the names are those of the table."""

    modules: int
    lines: int
    longest_module: str
    modules_over_500_lines: int
    functions: int
    longest_function: str
    median_function_length: float
    p90_function_length: float
    functions_over_25_lines: int
    duplicate_blocks: int
    ignores: int


def python_in(root: Path, folders: Iterable[str]) -> list[Path]:
    """The modules below these folders; what lies in a hidden one (`bench/peers/.venv`) is not ours."""
    found = (path for folder in folders for path in (root / folder).rglob("*.py"))
    return sorted(path for path in found if "/." not in str(path.relative_to(root)))


def measured(root: Path, folders: Iterable[str]) -> Figures:
    """The figures of these folders."""
    texts = {path.relative_to(root): path.read_text() for path in python_in(root, folders)}
    sizes = {path: len(text.splitlines()) for path, text in texts.items()}
    lengths = {
        f"{path}: {name}": length for path, text in texts.items() for name, length in functions_of(text)
    }
    longest, largest = max(lengths, key=lengths.__getitem__), max(sizes, key=sizes.__getitem__)
    every = sorted(lengths.values())
    return Figures(
        modules=len(texts),
        lines=sum(sizes.values()),
        longest_module=f"{sizes[largest]} ({largest.name})",
        modules_over_500_lines=sum(size > 500 for size in sizes.values()),
        functions=len(every),
        longest_function=f"{lengths[longest]} ({longest.rpartition('/')[2]})",
        median_function_length=statistics.median(every),
        p90_function_length=every[len(every) * 9 // 10],
        functions_over_25_lines=sum(length > 25 for length in every),
        duplicate_blocks=blocks(texts.values()),
        ignores=sum(len(IGNORE.findall(text)) for text in texts.values()),
    )


def functions_of(text: str) -> Iterator[tuple[str, int]]:
    """Each function with its lines of code."""
    lines = enumerate(map(str.lstrip, text.splitlines()), 1)
    code = {number for number, line in lines if line and not line.startswith("#")}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Function):
            inner = (each for each in ast.walk(node) if isinstance(each, Function) and each is not node)
            left_out = {number for each in inner for number in _lines(each)} | _docstring(node)
            yield f"{node.name}:{node.lineno}", len((_lines(node) & code) - left_out)


def _lines(node: ast.stmt) -> set[int]:
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def _docstring(node: Function) -> set[int]:
    return _lines(node.body[0]) if ast.get_docstring(node) is not None else set()


def blocks(texts: Iterable[str]) -> int:
    """How many runs of ``BLOCK`` lines or more stand twice."""
    places: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
    for number, text in enumerate(texts):
        lines = _code(text)
        for at in range(len(lines) - BLOCK + 1):
            places[tuple(lines[at : at + BLOCK])].append((number, at))
    pairs = {(first, other) for found in places.values() for first in found[:1] for other in found[1:]}
    # A run is counted at its beginning: where the lines before it differ.
    return sum(((a, m - 1), (b, n - 1)) not in pairs for (a, m), (b, n) in pairs)


def _code(text: str) -> list[str]:
    lines = (line.strip() for line in IMPORT.sub("", text).splitlines())
    return [line for line in lines if len(line) > 1 and not line.startswith("#")]


def tree_of(revision: str, folder: Path) -> Path:
    """A commit's files."""
    packed = subprocess.run(["git", "archive", revision], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def table(before: list[Figures], after: list[Figures]) -> str:
    """As Markdown: of each part, before and after."""
    heads = [f"{part}, {when}" for part in PARTS for when in ("before", "now")]
    rows = [["", *heads], ["---"] * (len(heads) + 1)]
    for each in fields(Figures):
        cells = [getattr(figures, each.name) for pair in zip(before, after, strict=True) for figures in pair]
        rows.append([each.name.replace("_", " "), *(_shown(cell) for cell in cells)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shown(cell: str | float) -> str:
    return cell if isinstance(cell, str) else f"{cell:,g}" if cell < 10**6 else f"{cell:,}"


def anys() -> dict[str, Counter[str]]:
    """Where the product holds an ``Any``, by role: what basedpyright's two rules about it report."""
    rules = {"reportAny": "information", "reportExplicitAny": "information"}
    folders = [str(ROOT / folder) for folder in PARTS["product"]]
    config = {"include": folders, "extraPaths": folders, "typeCheckingMode": "off", **rules}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(json.dumps(config))
        file.flush()
        checker = Path(sys.executable).with_name("basedpyright")
        command = [str(checker), "--project", file.name, "--pythonpath", sys.executable, "--outputjson"]
        said = subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for each in json.loads(said)["generalDiagnostics"]:
        role = Path(each["file"]).relative_to(ROOT).parts[0]
        found[role][each["rule"].removeprefix("report")] += 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", default=BEFORE, help=f"a commit to compare with; default {BEFORE}")
    parser.add_argument("--coverage", type=Path, help="what `coverage json` wrote")
    parser.add_argument("--mutation", type=Path, help="what `python -m tests.mutation --json` wrote")
    parser.add_argument("--any", action="store_true", help="count each `Any`, too; takes half a minute")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        old = tree_of(given.before, Path(folder))
        before = [measured(old, folders) for folders in PARTS.values()]
    print(table(before, [measured(ROOT, folders) for folders in PARTS.values()]))
    if given.coverage:
        totals = json.loads(given.coverage.read_text())["totals"]
        of = (totals[f"percent_{what}covered"] for what in ("", "statements_", "branches_"))
        print("coverage: {:.1f} % (statements {:.1f} %, branches {:.1f} %)".format(*of))
    if given.mutation:
        found = json.loads(given.mutation.read_text())
        print(f"mutation score: {100 * found['noticed'] / found['tried']:.1f} %, of {found['tried']} mutants")
    for role, counted in anys().items() if given.any else ():
        print(f"{role}: {counted['ExplicitAny']} written, {counted['Any']} met")
    return 0


if __name__ == "__main__":
    sys.exit(main())
