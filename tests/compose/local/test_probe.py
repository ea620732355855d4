import pytest

from warmwire.compose.local.probe import without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("nats://me:secret@one:4222,nats://token@two:4222", "nats://…@one:4222,nats://…@two:4222"),
        ("me:secret@one", "…@one"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert shown == without_password(url)
