"""The site (`make docs`) shows what its pages link to in the rest of the repository, too.

A page is written for whoever reads it in the repository: it links to `../ARCHITECTURE.md`, to a folder or to
a source file. On the site such a file is a page below `repository/`, a folder is its README.md, and what is
not Markdown is shown as it is. Only what some page links to is brought; links to what is not there stay as
they are, and mkdocs fails on them.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"(^ *```.*?^ *```$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<=\]\()(?P<target>[^)#\s:]+)(?=[)#])")
IMAGES = (".png", ".svg")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is linked to and lies elsewhere, and what that links to."""
    to_read = [_repository_path(file.src_uri) for file in files.documentation_pages()]
    while to_read:
        for path in _linked(to_read.pop()):
            uri = site_uri(path)
            if files.get_file_from_path(uri) is None:
                files.append(_file(path, uri, config))
                to_read.append(path)
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Links as they are on the site."""
    here = posixpath.dirname(page.file.src_uri)
    folder = posixpath.dirname(_repository_path(page.file.src_uri))

    def moved(link: re.Match[str]) -> str:
        path = _resolved(folder, link["target"])
        return posixpath.relpath(site_uri(path), here or ".") if path else link["target"]

    parts = CODE.split(markdown)
    return "".join(part if number % 2 else LINK.sub(moved, part) for number, part in enumerate(parts))


def site_uri(path: str) -> str:
    """Where a file of the repository lies on the site, as the source of a page."""
    uri = path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"
    return uri if _is_page(path) or uri.endswith(IMAGES) else f"{uri}.md"


def _is_page(path: str) -> bool:
    """Not what an example uses: the Markdown of an answer is shown as it is."""
    ours = "/" not in path or path.startswith("docs/") or path.endswith("README.md")
    return ours and path.endswith(".md")


def _repository_path(uri: str) -> str:
    """The other way round, of Markdown."""
    return uri.removeprefix("repository/") if uri.startswith("repository/") else f"docs/{uri}"


def _linked(path: str) -> Iterator[str]:
    """The files of the repository that a page links to."""
    if _is_page(path):
        prose = CODE.sub("", (ROOT / path).read_text())
        found = (_resolved(posixpath.dirname(path), link["target"]) for link in LINK.finditer(prose))
        yield from filter(None, found)


def _resolved(folder: str, target: str) -> str | None:
    """The file that a link means; None if there is none."""
    path = posixpath.normpath(posixpath.join(folder, target))
    if (ROOT / path).is_dir():
        path = f"{path}/README.md"
    inside = not path.startswith(("..", "/"))
    return path if inside and (ROOT / path).is_file() else None


def _file(path: str, uri: str, config: MkDocsConfig) -> File:
    if _is_page(path) or path.endswith(IMAGES):
        return File.generated(config, uri, abs_src_path=str(ROOT / path))
    kind = path.rpartition(".")[2]
    return File.generated(
        config, uri, content=f"# {path}\n\n~~~~~{kind}\n{(ROOT / path).read_text()}\n~~~~~\n"
    )
