"""What outlives a chat, and how much of it."""

from __future__ import annotations

import stat
from pathlib import Path

from warmwire.compose.chat import memory
from warmwire.compose.chat.memory import HISTORY_LIMIT, SESSIONS_LIMIT, Memory


def none(text: str) -> None:
    raise AssertionError(text)


def test_what_was_typed_is_kept_in_order_and_word_for_word(tmp_path: Path) -> None:
    for text in ("one", "two\nlines", "three \u2028 🙂"):
        Memory(none, folder=tmp_path / "chat").type(text)
    assert ["one", "two\nlines", "three \u2028 🙂"] == Memory(none, folder=tmp_path / "chat").typed()
    (file,) = (tmp_path / "chat").iterdir()
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)


def test_past_its_bound_the_older_half_goes(tmp_path: Path) -> None:
    kept = Memory(none, folder=tmp_path)
    texts = [f"{number} " + "x" * (HISTORY_LIMIT // 10) for number in range(12)]
    for text in texts:
        kept.type(text)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size <= HISTORY_LIMIT
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert texts[-len(kept.typed()) :] == kept.typed()
    assert 4 <= len(kept.typed()) < 10
    kept.type("x" * (HISTORY_LIMIT + 1))
    assert [] == kept.typed()


def test_the_last_session_of_each_place_is_known_up_to_a_number_of_places(tmp_path: Path) -> None:
    kept = Memory(none, folder=tmp_path)
    for number in range(SESSIONS_LIMIT + 1):
        kept.used(f"http://{number}", f"s{number}")
    kept.used("http://1", "s1b")
    kept.used("http://new", "s")
    assert (None, "s1b", None, "s3") == tuple(
        kept.last_session(f"http://{place}") for place in ("0", "1", "2", "3")
    )


def test_where_nothing_is_to_be_kept_nothing_is_written_or_read(tmp_path: Path) -> None:
    Memory(none, folder=tmp_path).type("before")
    off = Memory(none, kept=False, folder=tmp_path)
    off.type("secret")
    off.used("place", "s1")
    assert ([], None) == (off.typed(), off.last_session("place"))
    assert ["before"] == Memory(none, folder=tmp_path).typed()


def test_what_cannot_be_used_is_said_once(tmp_path: Path) -> None:
    said = list[str]()
    (tmp_path / "history.jsonl").write_text("no JSON\n")
    kept = memory.Memory(said.append, folder=tmp_path)
    assert [] == kept.typed()
    kept.type("Hello")
    (told,) = said
    assert told.startswith(f"nothing of this chat is kept: {tmp_path}: ")
    assert "no JSON\n" == (tmp_path / "history.jsonl").read_text()
