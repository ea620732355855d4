from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from warmwire.broker.wire.names import SessionKey
from warmwire.broker.wire.sealed import SealingKey, Token, seal
from warmwire.compose.errors import DataFolderError
from warmwire.compose.local.pool_key import keygen, public_half
from warmwire.worker.credentials import Keys

HERE = SessionKey("default", "s1")


def test_what_is_sealed_with_the_printed_half_opens_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "pool.key"
    printed = CliRunner().invoke(keygen, ["--out", str(path)]).stdout.strip()
    sealed = seal(SealingKey.parse(printed), Token("t"), HERE, 10)
    assert Token("t") == Keys.load(path).open(sealed, HERE, 0)


def test_it_is_for_its_owner_alone_and_nothing_else_is_left(tmp_path: Path) -> None:
    public_half(tmp_path / "pool.key")
    assert [("pool.key", 0o600)] == [(path.name, path.stat().st_mode & 0o777) for path in tmp_path.iterdir()]


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    assert str(public_half(tmp_path / "pool.key")) == str(public_half(tmp_path / "pool.key"))


@pytest.mark.parametrize("text", ["", "nonsense", "wwpub_nonsense"])
def test_a_file_that_holds_something_else_is_named_and_not_touched(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pool.key"
    path.write_text(text)
    with pytest.raises(DataFolderError, match=r"pool\.key holds no key"):
        public_half(path)
    assert text == path.read_text()


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataFolderError, match="cannot be used"):
        public_half(tmp_path / "nowhere" / "pool.key")
