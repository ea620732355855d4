"""Code out of an answer that is still being written: a file for each block the moment its fence closes."""

from __future__ import annotations

import argparse
from pathlib import Path

from warmwire.producer import Answer
from warmwire.producer.edge_client import EdgeClient

from examples.code_extraction.fences import Block, Fences
from examples.local import run

PROMPT = "Write a module that greets, a test for it, a Makefile and a README. A fenced block for each."
SUFFIXES = {
    "python": "py",
    "py": "py",
    "javascript": "js",
    "js": "js",
    "typescript": "ts",
    "bash": "sh",
    "sh": "sh",
}
SUFFIXES |= {"markdown": "md", "md": "md", "makefile": "mk", "json": "json", "yaml": "yaml", "html": "html"}
SUFFIXES |= {"toml": "toml", "sql": "sql", "css": "css", "go": "go", "rust": "rs", "c": "c", "diff": "diff"}


class Folder:
    """The blocks of one answer as files: `01.py`, `02.md`, … Whoever looks sees whole files only."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.files: list[Path] = []

    def write(self, block: Block) -> Path:
        """Write beside, then move to its place."""
        suffix = SUFFIXES.get(block.language, "txt")
        file = self._path / f"{len(self.files) + 1:02}.{suffix}"
        partial = file.with_name(f".{file.name}.partial")
        partial.write_text(block.code)
        partial.replace(file)
        self.files.append(file)
        return file

    def forget(self) -> None:
        """The answer begins again: none of its blocks stands any more."""
        for file in self.files:
            file.unlink(missing_ok=True)
        self.files.clear()


async def extract(given: argparse.Namespace) -> None:
    """Stream an answer; write its blocks as they come."""
    answer, fences, folder = Answer(), Fences(), Folder(given.out)
    async with EdgeClient() as edge:
        turn = await edge.send(given.prompt)
        async for event in turn:
            answer.add(event)
            new = event.text or ""
            if event.type in ("turn_reset", "snapshot"):  # what came before is void, or said once more
                folder.forget()
                fences, new = Fences(), answer.text
            blocks = fences.finish() if event.type == "turn_completed" else fences.add(new)
            for block in blocks:
                _tell(folder.write(block), block, len(answer.text))
    if event.type != "turn_completed":
        raise SystemExit(f"the answer is not whole: {event.type}")
    left = ", and one block that was never closed is left out" if fences.open else ""
    print(f"{len(folder.files)} files in {given.out}, of an answer with {len(answer.text)} characters{left}")


def _tell(file: Path, block: Block, at: int) -> None:
    what = f"{block.language or 'no language'}, {block.code.count(chr(10))} lines"
    print(f"after {at:4} characters: {file.name} ({what})", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.code_extraction", description=__doc__)
    parser.add_argument("--prompt", default=PROMPT, help="what to ask for")
    parser.add_argument("--out", type=Path, default=Path("tmp/extracted"), help="the folder for the files")
    run(extract, parser, Path(__file__).with_name("answer.md"))
