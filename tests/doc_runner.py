"""Runs what a page of documentation tells its reader to type, and compares what it says will be shown.

The page is read from top to bottom, each fenced block in its turn:

- `sh`: typed into a terminal, a bash that begins in a fresh clone (what git knows of the working tree, with
  the environment of the tests as its `.venv`). All its commands must succeed, and end within two minutes.
- `sh` with a comment `# leave it running`: not waited for. The terminal is taken from then on.
- `text`: what the block before shows on stdout, from its beginning: all of it, or of what is left running as
  far as it goes. `…` stands for anything, line breaks too; spaces at the ends of lines do not count.
- any other, behind a paragraph that ends with a name in backticks and a colon: the contents of a new file of
  that name, in the folder in which the terminal is.
- below a line `<!-- not run: REASON -->`: skipped.

"another terminal" in the text before a block opens one, in the fresh clone; it is the one that is used from
then on. A block that is none of these is an error: nothing stands there that nobody runs.

Two things are not as the reader's. `127.0.0.1:8080` and ports 4222 and 4318 become ports that are free here
(in commands, files and outputs), with `WARMWIRE_PORT` and `WARMWIRE_URL` set to the first; and the emulator
takes two seconds for an answer where the page does not say otherwise, so that a slow machine, too, can stop
one in its middle. What is kept is kept in the test's folder.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import wait_for
from tests.system.cluster import free_ports

ROOT = Path(__file__).parents[1]
DEADLINE = 400
"""Seconds for one block; some fetch and build what they need, beside other tests."""
BLOCK = re.compile(r"^(?P<indent> *)```(?P<kind>\w*)[^\n]*\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->\s*\Z")
NAMED = re.compile(r"`([\w./-]+)`:\s*\Z")
LEFT = "# leave it running"
ANYTHING = "…"


@dataclass(frozen=True)
class Block:
    """A fenced block. ``before`` is the text between it and the one before it."""

    kind: str
    body: str
    before: str

    @property
    def skipped(self) -> bool:
        return NOT_RUN.search(self.before) is not None

    @property
    def file(self) -> str | None:
        """The name of the file that it is."""
        named = NAMED.search(self.before)
        return named[1] if named else None

    @property
    def elsewhere(self) -> bool:
        return "another terminal" in self.before.lower()

    @property
    def left_running(self) -> bool:
        return LEFT in self.body


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    blocks, end = [], 0
    for found in BLOCK.finditer(page):
        body = re.sub(rf"^{found['indent']}", "", found["body"], flags=re.MULTILINE)
        blocks.append(Block(found["kind"], body, page[end : found.start()]))
        end = found.end()
    return blocks


def shows(expected: str, shown: str, *, whole: bool) -> bool:
    """Whether that was shown; as the beginning, if not as the whole."""
    pattern = re.escape(_trimmed(expected)).replace(re.escape(ANYTHING), ".*?")
    matches = re.fullmatch if whole else re.match
    return matches(pattern, _trimmed(shown), re.DOTALL) is not None


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


class Terminal:
    """A bash, and what its last block has shown."""

    def __init__(self, folder: Path, clone: Path, environment: dict[str, str]) -> None:
        folder.mkdir()
        self._folder = folder
        self._typed = 0
        self._taken = False
        with (folder / "stderr").open("wb") as errors:
            self._bash = subprocess.Popen(
                ["bash", "--noprofile", "--norc", "-euo", "pipefail"],
                cwd=clone,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )

    @property
    def shown(self) -> str:
        file = self._part("stdout")
        return file.read_text() if file.exists() else ""

    @property
    def cwd(self) -> Path:
        """Where it is now."""
        return Path(f"/proc/{self._bash.pid}/cwd").readlink()

    def type(self, body: str, *, left_running: bool) -> None:
        assert not self._taken, f"what was left running has the terminal: {body}"
        assert self._bash.stdin is not None
        self._taken = left_running
        self._typed += 1
        self._part("sh").write_text(body)
        block, out, done = (self._part(name) for name in ("sh", "stdout", "done"))
        self._bash.stdin.write(f". {block} </dev/null >{out}\ntouch {done}\n".encode())
        self._bash.stdin.flush()
        if not left_running:
            wait_for(lambda: done.exists() or self._ended, f"the end of\n{body}", DEADLINE)
            assert done.exists(), f"it failed:\n{body}\n{self.shown}\n{self._complaints}"

    def compare(self, expected: str) -> None:
        """Fail unless that is shown, or is about to be."""
        if self._taken:
            wait_for(lambda: shows(expected, self.shown, whole=False) or self._ended, expected, DEADLINE)
        fits = shows(expected, self.shown, whole=not self._taken)
        assert fits, f"expected:\n{expected}\nshown:\n{self.shown}\n{self._complaints}"

    def close(self) -> None:
        """Ctrl-C, as it were, then the end of the session; what does not end is killed."""
        with suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGTERM)
            wait_for(lambda: self._ended and not self._group_lives(), "the terminal's end", 30)
        with suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()

    @property
    def _ended(self) -> bool:
        return self._bash.poll() is not None

    @property
    def _complaints(self) -> str:
        return (self._folder / "stderr").read_text()

    def _group_lives(self) -> bool:
        with suppress(ProcessLookupError):
            os.killpg(self._bash.pid, 0)
            return True
        return False

    def _part(self, name: str) -> Path:
        return self._folder / f"{self._typed}.{name}"


def follow(page: Path, folder: Path) -> int:
    """Do what the page says, in a folder; the number of blocks that were run or compared."""
    clone = folder / "warmwire"
    _clone(clone)
    http, nats, otlp = map(str, free_ports(3))
    text = page.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{http}").replace("4222", nats)
    text = text.replace("4318", otlp)
    own = {"WARMWIRE_PORT": http, "WARMWIRE_URL": f"http://127.0.0.1:{http}", "NO_COLOR": "1"}
    own |= {"XDG_STATE_HOME": str(folder / "state"), "WARMWIRE_EMULATOR_RATE": "10"}
    ours = ("WARMWIRE_", "MAKE", "MFLAGS")  # a `make` that knows of another above it says more
    others = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    with ExitStack() as stack:

        def opened(number: int) -> Terminal:
            terminal = Terminal(folder / f"terminal-{number}", clone, others | own)
            stack.callback(terminal.close)
            return terminal

        terminal, number, done = opened(1), 1, 0
        for block in blocks_of(text):
            if block.elsewhere:
                number += 1
                terminal = opened(number)
            done += not block.skipped and _do(block, terminal)
    return done


def _do(block: Block, terminal: Terminal) -> bool:
    if block.kind == "sh":
        terminal.type(block.body, left_running=block.left_running)
    elif block.kind == "text":
        terminal.compare(block.body)
    else:
        assert block.file is not None, f"nobody runs this block:\n{block.body}"
        (terminal.cwd / block.file).write_text(block.body)
    return True


def _clone(to: Path) -> None:
    """What git knows, and what it would: a test is to see what is not committed yet."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    subprocess.run(["git", "init", "--quiet", to], check=True)
    venv = to / ".venv"
    venv.mkdir()
    for part in Path(sys.prefix).iterdir():
        if not part.name.startswith(".installed"):
            (venv / part.name).symlink_to(part)
    for stamp in (".installed", ".installed-dev"):  # newer than what they are made from: nothing is installed
        (venv / stamp).touch()
