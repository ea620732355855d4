from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from warmwire.broker.errors import BadInput
from warmwire.broker.nats.login import SECRET_BYTES, Login, secret

CONTENT = "SUnobody-may-see-this"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that holds something else than what is wanted."""
    path = tmp_path / "file"
    path.write_text(CONTENT)
    return path


def test_who_shows_nothing_is_told_to_nats_as_nothing() -> None:
    assert {"inbox_prefix": "_INBOX"} == Login().options()
    assert {"inbox_prefix": "_INBOX"} == Login(user="edge").options()  # a name alone proves nothing


def test_a_password_that_is_rotated_counts_from_the_next_connection_on(file: Path) -> None:
    password = Login(user="edge", password_file=file).options().get("password")
    assert password is not None
    assert CONTENT == password()
    file.write_text("another\n")
    assert "another" == password()
    file.unlink()
    with pytest.raises(BadInput, match="nats_password_file"):
        password()


@pytest.mark.parametrize(
    ("setting", "field", "said"),
    [
        ("nkey_seed_file", "nats_nkey_seed_file", "holds no seed of an NKEY"),
        ("tls_ca", "nats_tls_ca", "holds no certificates"),
        ("tls_cert", "nats_tls_cert", "cannot be used with its key"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_a_file_of_something_else_is_named_and_not_shown(
    file: Path, setting: str, field: str, said: str, there: bool
) -> None:
    if not there:
        file.unlink()
        said = "cannot be read" if setting == "nkey_seed_file" else "No such file"
    login = Login(**{setting: file})  # type: ignore[arg-type]  # each of them is a path
    with pytest.raises(BadInput, match=said) as refused:
        login.options()
    assert field == refused.value.field
    assert CONTENT not in str(refused.value)


def test_without_an_authority_of_its_own_the_systems_are_trusted(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted: list[object] = []
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", lambda _, *paths: trusted.append(paths))
    context = Login(tls_cert=file, tls_key=file).options().get("tls")
    assert context is not None
    assert [(file, file)] == trusted
    assert ssl.CERT_REQUIRED == context.verify_mode


@pytest.mark.parametrize("content", ["", " \n", "x" * (SECRET_BYTES + 1)])
def test_a_secret_is_one_of_a_limited_length(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(BadInput, match=f"one secret, of {SECRET_BYTES} bytes at most") as refused:
        secret("field", file)
    assert "field" == refused.value.field
    file.write_text(" " + "x" * (SECRET_BYTES - 2) + "\n")
    assert SECRET_BYTES - 2 == len(secret("field", file))
