"""The site that `make docs` builds: whole, and of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TARGET = re.compile(r"""<(?:a|link|img|script)\s[^>]*?\b(?:href|src)="?([^"\s>]+)""")
LOADED = re.compile(r"""<(?:link|img|script|iframe)\s[^>]*?\b(?:href|src)="?(?:https?:)?//""")

FETCHED = re.compile(r"""url\(['"]?(?:https?:)?//""")


def build(root: Path, to: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(to)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(argv, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("site")
    built = build(ROOT, to)
    assert 0 == built.returncode, built.stderr
    return to


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = [
        page for page in site.rglob("*.html") if page.name != "404.html"
    ]  # that one is served from anywhere
    lost = {
        f"{page.relative_to(site)}: {target}"
        for page in pages
        for target in TARGET.findall(page.read_text())
        if "://" not in target and not (page.parent / target.partition("#")[0]).exists()
    }
    assert set() == lost


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    assert [] == [page for page in site.rglob("*.html") if LOADED.search(page.read_text())]
    sheets = [
        sheet for sheet in site.rglob("*.css") if re.search(r"url\(['\"]?(https?:)?//", sheet.read_text())
    ]
    assert [] == sheets


def test_what_lies_outside_of_the_docs_is_there_too(site: Path) -> None:
    assert "The way of one message" in (site / "repository" / "ARCHITECTURE.html").read_text()
    assert "upstream" in (site / "repository" / "compose" / "proxies" / "nginx.conf.html").read_text()
    assert (site / "repository" / "examples" / "react" / "index.html").exists()


@pytest.mark.parametrize("link", ["missing.md", "index.md#missing", "../missing.py"])
def test_a_link_that_leads_nowhere_fails(link: str, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# Here\n\n[there]({link})\n")
    (docs / "site.css").touch()
    (docs / "hook.py").write_text((ROOT / "docs" / "hook.py").read_text())
    settings = (ROOT / "mkdocs.yml").read_text().partition("nav:\n")[0]
    (tmp_path / "mkdocs.yml").write_text(settings)
    built = build(tmp_path, tmp_path / "site")
    assert built.returncode != 0
    assert link in built.stderr
