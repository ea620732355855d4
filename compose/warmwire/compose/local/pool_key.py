"""The pool's key pair: made where it is missing; workers read the file, edges are told the public half."""

import os
from contextlib import suppress
from pathlib import Path

import click

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.sealed import PoolKey, SealingKey
from warmwire.compose.errors import DataFolderError

HELP = """Make a key pair for users' own tokens, and print its public half.

The file is for the workers (WARMWIRE_POOL_KEY_FILE), what is printed for the edges
(WARMWIRE_POOL_PUBLIC_KEY). A file that is there is kept. `warmwire up` does all this by itself.

\b
  warmwire keygen --out pool.key
"""


@click.command(help=HELP)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="pool.key",
    show_default=True,
    help="The file of the private key.",
)
def keygen(out: Path) -> None:
    """The command."""
    click.echo(str(public_half(out)))


def public_half(path: Path) -> SealingKey:
    """Of the first key in the file, which is made if it is not there. Raises DataFolderError."""
    try:
        with suppress(FileExistsError):
            _make(path)
        return PoolKey.parse(path.read_text().split()[0]).sealing
    except (BadInput, IndexError, UnicodeDecodeError):
        raise DataFolderError(f"{path} holds no key of a pool; a line of one begins with wwkey_") from None
    except OSError as error:
        raise DataFolderError(f"the key file {path} cannot be used: {error.strerror}") from error


def _make(path: Path) -> None:
    """For the owner only from the first moment, and whole or not at all."""
    if path.exists():
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(PoolKey.new().secret_text() + "\n")
    try:
        path.hardlink_to(draft)  # not a rename: that would replace one made at the same moment
    finally:
        draft.unlink()
