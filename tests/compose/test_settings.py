from pathlib import Path

import pytest

from warmwire.compose.errors import UsageError
from warmwire.compose.options import load
from warmwire.compose.settings import UpSettings


def test_the_data_folder_is_where_programs_of_a_user_keep_their_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("WARMWIRE_DATA", raising=False)
    assert Path("/home/somebody/.local/state/warmwire") == load(UpSettings, {}).data
    monkeypatch.setenv("XDG_STATE_HOME", "/var/somewhere")
    assert Path("/var/somewhere/warmwire") == load(UpSettings, {}).data


def test_a_data_folder_is_absolute_and_without_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(tmp_path)
    assert Path("/home/somebody/chats") == load(UpSettings, {"data": "~/chats"}).data
    assert tmp_path / "chats" == load(UpSettings, {"data": "chats"}).data


@pytest.mark.parametrize(
    "url",
    ["nats://a:4222", "tls://a", "a:4222", "a", "nats://u:p@a:1,nats://b", "nats://[::1]:4222", "wss://a/x"],
)
def test_nats_urls(url: str) -> None:
    assert url == load(UpSettings, {"nats": url}).nats


@pytest.mark.parametrize("url", ["http://a:4222", "nats://", "nats://a:port", "nats://a:99999", "a:1,,b:2"])
def test_what_is_not_a_nats_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"--nats \(WARMWIRE_NATS\)"):
        load(UpSettings, {"nats": url})
