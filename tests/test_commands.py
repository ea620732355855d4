"""Every command in the documentation is typed by a test, or is one that its program accepts."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest

from warmwire.compose.cli import warmwire

from tests.doc_runner import ROOT, blocks_of
from tests.test_tutorials import PAGES as TYPED

HISTORY = ROOT / "CHANGELOG.md"
PAGES = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*README.md")} - {HISTORY}
)
PAGES += sorted(ROOT.glob("examples/*/README.md"))

ELSEWHERE = {
    "docker": "needs an engine: tests/containers builds, starts, scales and rolls the stack",
    "git": "is about the reader's own clone",
    "kubectl": "needs a cluster: tests/compose/test_kubernetes.py judges the manifests",
    "nats": "no package has it: tests/system/test_wire_page.py says the same over a socket",
    "npm": "fetches packages: tests/clients and tests/examples run it",
    "pip": "fetches packages: `make release-check` installs what is released",
    "uvicorn": "tests/examples starts it",
}
"""Programs whose arguments nobody here can judge, and why that is so."""

_NAMES = """
awk base64 cat cd chmod chown cmp cp cut date diff echo export find grep head hostname jq kill ls mkdir mktemp
mv openssl printf ps pwd rm sed seq sha256sum sleep sort ssh tail tar tee test touch tr umask unset wc xargs
"""
SYSTEM = set(_NAMES.split())
"""What every system has, or gets by its package manager."""

KINDS = {"diff", "sh", "text", "json", "js", "jsx", "tsx", "python", "toml", "yaml"}
"""What a fenced block may be: commands are `sh`, and nothing without a kind hides any."""

GRAMMAR = {"!", "do", "done", "else", "fi", "if", "then", "until", "wait", "while"}
"""Words of the shell's own, before a command."""

BEGINNING = re.compile(
    r"(?:make|warmwire|python|pip|npm|curl|docker|kubectl|nats|nats-server|\.venv/\S+|compose/\S+) "
)
PLACEHOLDER = "NAME"
"""In a command within a sentence: any name."""


def simple_commands(text: str) -> Iterator[list[str]]:
    """The commands in lines of shell, those substituted first; without assignments and redirections."""
    text = re.sub(r"(?:^|(?<=\s))#.*$", "", text.replace("\\\n", " "), flags=re.MULTILINE)
    while found := re.search(r"\$\(([^()]*)\)", text):
        yield from simple_commands(found[1])
        text = text.replace(found[0], "substituted")
    lexer = shlex.shlex(re.sub(r"\d?[<>]+&?\s*\S+", "", text), posix=True, punctuation_chars=";|&\n")
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t", "", True
    words: list[str] = []
    for token in [*lexer, "\n"]:
        if set(token) <= set(";|&\n"):
            yield from filter(None, [_command(words)])
            words = []
        else:
            words.append(token)


def _command(words: list[str]) -> list[str]:
    while words and (words[0] in GRAMMAR or re.match(r"\w+=", words[0])):
        words = words[1:]
    return [] if words[:1] == ["for"] else words


# -- what is wrong with a command; empty where nothing is


def judged(words: list[str], *, whole: bool) -> str:
    """In a sentence a command may be cut short: then it is not ``whole``."""
    if words[0] == "sudo":
        words = words[1:]
    program = words[0].removeprefix(".venv/bin/")
    if program in ELSEWHERE or program in SYSTEM:
        return ""
    if "/" in program:
        return "" if os.access(ROOT / program, os.X_OK) else "there is no such program"
    judge = JUDGES.get(program)
    return judge(words[1:], whole) if judge else "nobody knows this program"


def _warmwire(words: list[str], whole: bool) -> str:
    command: click.Command = warmwire
    context, name = click.Context(command), "warmwire"
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        below = command.get_command(context, words[0])
        if below is None:
            return f"{name} has no command {words[0]}"
        command, (name, *words) = below, words
    if not whole:
        return _unknown(
            words, {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
        )
    try:
        command.make_context(name, list(words))
    except click.exceptions.Exit:  # --help
        return ""
    except click.UsageError as error:
        return error.format_message()
    return ""


def _make(words: list[str], _whole: bool) -> str:
    targets = [word for word in words if "=" not in word]
    tried = subprocess.run(
        ["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return tried.stderr if tried.returncode else ""


def _python(words: list[str], _whole: bool) -> str:
    if words[0] != "-m":
        flags = [at for at, word in enumerate(words) if not re.fullmatch(r"-[ISE]", word)]
        return "" if (ROOT / words[flags[0]]).is_file() else "there is no such file"
    module, given = words[1], words[2:]
    if PLACEHOLDER in module:
        return ""
    if importlib.util.find_spec(module) is None:
        return "there is no such module"
    wanted = [word for word in given if word.startswith("--")]
    return _unknown(wanted, _flags(sys.executable, "-m", module, "--help")) if wanted else ""


def _curl(words: list[str], _whole: bool) -> str:
    addresses = [word for word in words if word.startswith("http://127.0.0.1")]
    lost = [address for address in addresses if not _is_route(urlsplit(address).path)]
    return f"no such route: {lost}" if lost else _unknown(words, _flags("curl", "--help", "all"))


def _nats_server(words: list[str], _whole: bool) -> str:
    server = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return _unknown(words, _flags(str(server), "--help"))


JUDGES: dict[str, Callable[[list[str], bool], str]] = {
    "warmwire": _warmwire,
    "make": _make,
    "python": _python,
    "curl": _curl,
    "nats-server": _nats_server,
}


def _unknown(words: list[str], flags: set[str]) -> str:
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    return " ".join(f"no flag {flag}" for flag in given if flag not in flags)


@cache
def _flags(*argv: str) -> set[str]:
    """What a program's help names."""
    shown = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return set(re.findall(r"--[a-z][a-z-]*", shown.stdout + shown.stderr))


def _is_route(path: str) -> bool:
    """Whether the reference names it."""
    page = (ROOT / "docs" / "reference" / "http.md").read_text()
    routes = re.findall(r"`(?:GET|POST|DELETE|PATCH) (/[^\s`?]*)", page)
    return any(re.fullmatch(re.sub(r"[<{]\w+[>}]", "[^/]+", route), path) for route in routes)


# -- the claims


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_typed_or_accepted(page: Path) -> None:
    blocks = [block for block in blocks_of(page.read_text()) if block.kind == "sh"]
    there = [block for block in blocks if page not in TYPED or block.skipped]
    commands = [command for block in there for command in simple_commands(block.body)]
    wrong = {shlex.join(command): judged(command, whole=True) for command in commands}
    assert {} == {command: what for command, what in wrong.items() if what}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_sentence_is_accepted(page: Path) -> None:
    prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", prose) + re.findall(r"^    (\S.*)$", prose, re.MULTILINE)
    commands = [each for span in spans if BEGINNING.match(span) for each in simple_commands(span)]
    wrong = {shlex.join(command): judged(command, whole=False) for command in commands}
    assert {} == {command: what for command, what in wrong.items() if what}


@pytest.mark.parametrize("page", [*PAGES, HISTORY], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_of_what_kind_it_is(page: Path) -> None:
    assert set() == {block.kind for block in blocks_of(page.read_text())} - KINDS


def test_what_cannot_be_judged_is_used_somewhere() -> None:
    pages = "".join(page.read_text() for page in PAGES)
    assert [] == [name for name in ELSEWHERE if not re.search(rf"\b{name} ", pages)]


@pytest.mark.parametrize(
    "line",
    [
        "warmwire up --nope",
        "warmwire nope",
        "warmwire worker drain",
        "make nope",
        ".venv/bin/python -m nope",
        ".venv/bin/python -m bench.worker --nope",
        ".venv/bin/python nope.py",
        "curl --nope http://127.0.0.1:8080/readyz",
        "curl http://127.0.0.1:8080/v1/nope",
        "nats-server --nope",
        "compose/nope",
        "nope",
        "A=1 true && for x in 1; do nope $x; done",
        'make test --dry-run "$(nope)"',
    ],
)
def test_what_is_not_there_is_found(line: str) -> None:
    assert any(judged(command, whole=True) for command in simple_commands(line))


def test_a_line_is_cut_into_its_commands() -> None:
    text = 'A=1 b --c "d e" | f >g 2>&1 # h\nfor i in 1 2; do\n  k $(l m) \\\n n\ndone\n'
    assert [["l", "m"], ["b", "--c", "d e"], ["f"], ["k", "substituted", "n"]] == list(simple_commands(text))
