"""Users' tokens: opened, told to the right process, never to be seen."""

from __future__ import annotations

from pathlib import Path
from time import time

import pytest

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.names import SessionKey
from warmwire.broker.wire.sealed import PoolKey, Token, seal
from warmwire.worker.app import Worker
from warmwire.worker.credentials import HIDDEN, Keys, hidden
from warmwire.worker.errors import CredentialRefused, ErrorCode
from warmwire.worker.machine import tree

from tests.client import Asked, Client, eventually
from tests.standin.messages_api import MessagesApi, fingerprint
from tests.worker.conftest import StartWorker

KEY = PoolKey.parse("wwkey_dGhlIHNhbWUga2V5IGluIGV2ZXJ5IHRlc3QgcnVuLi4")
HERE = SessionKey("default", "s1")
OTHER = PoolKey.new()
SOON = 1 << 33


def sealed(token: str, session: str = "s1", expires: float = SOON, key: PoolKey = KEY) -> str:
    return seal(key.sealing, Token(token), SessionKey("default", session), expires)


# --- the key file ------------------------------------------------------------------------------------------


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "pool.key"
    path.write_text(KEY.secret_text() + "\n")
    path.chmod(0o600)
    return path


def test_every_line_of_the_file_is_a_key(key_file: Path) -> None:
    old = PoolKey.new()
    key_file.write_text(f"{KEY.secret_text()}\n{old.secret_text()}\n")
    keys = Keys.load(key_file)
    assert [Token("t")] * 2 == [keys.open(sealed("t", key=key), HERE, 0) for key in (KEY, old)]


@pytest.mark.parametrize("mode", [0o604, 0o622, 0o620, 0o777])
def test_a_file_that_is_open_to_others_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(BadInput, match="chmod 600"):
        Keys.load(key_file)


def test_a_group_may_read_it(key_file: Path) -> None:
    key_file.chmod(0o640)
    assert Keys.load(key_file).open(sealed("t"), HERE, 0) == Token("t")


@pytest.mark.parametrize("text", ["", "wwkey_nonsense", str(KEY.sealing)])
def test_a_file_without_keys_is_said_and_not_shown(key_file: Path, text: str) -> None:
    key_file.write_text(text)
    with pytest.raises(BadInput) as raised:
        Keys.load(key_file)
    assert str(key_file) in str(raised.value)
    assert not text or text not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.key cannot be read"):
        Keys.load(tmp_path / "nowhere.key")


def test_without_a_credential_there_is_none_to_open() -> None:
    assert None is Keys.load(None).open(None, HERE, 0)


@pytest.mark.parametrize(
    ("credential", "code"),
    [  # ids, as what is sealed is another text each time
        pytest.param(sealed("t", expires=5), ErrorCode.CREDENTIAL_EXPIRED, id="expired"),
        pytest.param(sealed("t", session="s2"), ErrorCode.CREDENTIAL_UNREADABLE, id="elsewhere"),
        pytest.param(sealed("t", key=OTHER), ErrorCode.CREDENTIAL_UNREADABLE, id="other key"),
        pytest.param("nonsense", ErrorCode.CREDENTIAL_UNREADABLE, id="nonsense"),
    ],
)
def test_what_cannot_be_used_has_a_code(key_file: Path, credential: str, code: ErrorCode) -> None:
    with pytest.raises(CredentialRefused) as raised:
        Keys.load(key_file).open(credential, HERE, 10)
    assert code is raised.value.code


def test_a_token_is_hidden_in_what_a_process_says() -> None:
    assert b"bad " + HIDDEN + b"!" == hidden(b"bad abc!", Token("abc"))
    assert b"bad abc!" == hidden(b"bad abc!", None)


# --- turns -------------------------------------------------------------------------------------------------


@pytest.fixture
async def worker(
    start_worker: StartWorker, tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Worker:
    """With emulators that take three tokens; the pool's credential is the first."""
    monkeypatch.setenv("WARMWIRE_EMULATOR_TOKENS", "of-the-pool of-ada of-ben")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "of-the-pool")
    return await start_worker(data=tmp_path / "data", pool_key_file=key_file, spares=1)


def ending(asked: Asked) -> str:
    return str(asked.events[-1].get("code") or asked.events[-1]["type"])


@pytest.mark.usefixtures("worker")
async def test_each_turn_runs_with_the_credential_that_came_with_it(client: Client) -> None:
    asked = [
        await client.ask("s1", "one"),
        await client.ask("s1", "two", credential=sealed("of-ada")),
        await client.ask("s1", "three", credential=sealed("nobody's")),
        await client.ask("s1", "four", credential=sealed("of-ben")),
        await client.ask("s1", "recall"),
    ]
    assert ["turn_completed", "turn_completed", "auth_failed", "turn_completed", "turn_completed"] == [
        ending(one) for one in asked
    ]
    assert "one\ntwo" in asked[-1].text
    assert "four" in asked[-1].text


def of_sessions(worker: Worker, folder: Path) -> set[int]:
    """The processes that work there, without spares: the next one of these comes when it comes."""
    working = tree.working_in(folder)
    return working.difference(*(tree.working_in(spare.folder) for spare in worker._supply._spares.values()))


async def test_a_fresh_token_reaches_the_process_that_is_there(
    client: Client, worker: Worker, tmp_path: Path
) -> None:
    failed = await client.ask("s1", "one", credential=sealed("too old"))
    before = of_sessions(worker, tmp_path / "data")
    repaired = await client.ask("s1", "two", credential=sealed("of-ada"))
    assert ("auth_failed", "turn_completed") == (ending(failed), ending(repaired))
    assert before == of_sessions(worker, tmp_path / "data")
    assert before


async def test_a_process_that_has_a_users_token_runs_no_turn_without_one(
    client: Client, worker: Worker, tmp_path: Path
) -> None:
    await client.ask("s1", "one", credential=sealed("of-ada"))
    before = of_sessions(worker, tmp_path / "data")
    await client.ask("s1", "two")
    assert before
    assert set() == before & of_sessions(worker, tmp_path / "data")


@pytest.mark.usefixtures("worker")
async def test_a_credential_that_cannot_be_used_ends_the_turn_in_its_code(
    client: Client,
) -> None:
    expired = await client.ask("s1", "one", credential=sealed("of-ada", expires=time() - 1))
    elsewhere = await client.ask("s1", "two", credential=sealed("of-ada", session="s2"))
    assert ["credential_expired", "credential_unreadable"] == [ending(expired), ending(elsewhere)]
    assert [True, False] == [asked.events[-1]["retryable"] for asked in (expired, elsewhere)]
    assert "turn_completed" == ending(await client.ask("s1", "three", credential=sealed("of-ada")))


async def test_a_spare_serves_a_user_where_the_pool_has_no_credential(
    client: Client, start_worker: StartWorker, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMWIRE_EMULATOR_TOKENS", "of-ada")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    worker = await start_worker(pool_key_file=key_file, spares=1)
    await eventually(lambda: [True] == [spare.ready for spare in worker._supply.spares()], "a spare")
    asked = await client.ask("s1", "one", credential=sealed("of-ada"))
    assert "turn_completed" == ending(asked)
    assert worker._supply.adopted_at > float("-inf")


@pytest.mark.claude
async def test_the_real_cli_works_with_each_users_own_token(
    client: Client,
    start_worker: StartWorker,
    key_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    claude_cli: Path,
) -> None:
    ada, ben = "sk-ant-oat01-ada", "sk-ant-oat01-ben"
    async with MessagesApi(takes={fingerprint(ada), fingerprint(ben), fingerprint("of-the-pool")}) as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "of-the-pool")
        worker = await start_worker(pool_key_file=key_file, cli=str(claude_cli))
        tokens = [sealed(ada), sealed("sk-ant-oat01-old"), sealed(ben), None]
        endings = [ending(await client.ask("s1", "Hello", credential=token)) for token in tokens]
        await worker.stop()
    assert ["turn_completed", "auth_failed", "turn_completed", "turn_completed"] == endings
    used = [request.credential for request in api.requests if request.path == "/v1/messages"]
    assert [fingerprint(ada), fingerprint(ben), fingerprint("of-the-pool")] == [
        one for one in dict.fromkeys(used) if one in api.takes
    ]
