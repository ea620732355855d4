from __future__ import annotations

import json
import signal
import uuid
from pathlib import Path

import pytest

from tests.worker.emulator.cli import (
    DEADLINE,
    Start,
    entries,
    every,
    kind,
    kinds,
    only,
    transcripts,
)


def test_recall_lists_each_earlier_message_once_and_verbatim(cli: Start) -> None:
    running = cli()
    messages = ["Hello", "  two  spaces ", "three\nlines\n", "Hello", "ünï 🙂"]
    for message in messages:
        running.turn(message)
    assert "\n".join(messages) == running.answer(" recall\n")
    assert "\n".join([*messages, " recall\n"]) == running.answer("recall")


def test_recall_says_so_when_there_is_nothing_yet(cli: Start) -> None:
    assert "(no earlier messages)" == cli().answer("recall")


def test_recall_lists_messages_that_were_interrupted_or_failed(cli: Start) -> None:
    running = cli(FAULT="error:529", FAULT_ON="fail")
    running.turn("please fail")
    running.turn("fine")
    assert "please fail\nfine" == running.answer("recall")


def test_the_transcript_lies_where_the_real_one_lies(cli: Start, tmp_path: Path) -> None:
    session = str(uuid.uuid4())
    cli(f"--session-id={session}").turn()
    folder = "".join(c if c.isascii() and c.isalnum() else "-" for c in str(tmp_path / "home/work"))
    assert [tmp_path / "home/.claude/projects" / folder / f"{session}.jsonl"] == transcripts(
        tmp_path / "home"
    )


def test_the_mirror_is_the_transcript_and_comes_before_the_result(cli: Start, tmp_path: Path) -> None:
    running = cli()
    heard = running.turn() + running.turn()
    (path,) = transcripts(tmp_path / "home")
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert written == entries(heard)
    assert ["user", "assistant"] * 2 == [entry["type"] for entry in written]
    assert [None, *(entry["uuid"] for entry in written[:-1])] == [e["parentUuid"] for e in written]
    names = [kind(line) for line in heard]
    assert "transcript_mirror" in names[: names.index("result")]
    assert {str(path)} == {line["filePath"] for line in every("transcript_mirror", heard)}


def test_a_user_message_is_on_disk_as_soon_as_its_turn_begins(cli: Start, tmp_path: Path) -> None:
    running = cli(TTFT_MS=3_000_000)
    running.ask("Hello", "m1")
    running.until("init")
    (path,) = transcripts(tmp_path / "home")
    assert ["m1"] == [json.loads(line)["uuid"] for line in path.read_text().splitlines()]


def test_without_persistence_there_is_neither_file_nor_mirror(cli: Start, tmp_path: Path) -> None:
    running = cli("--no-session-persistence")
    assert [] == every("transcript_mirror", running.turn("Hello"))
    assert "Hello" == running.answer("recall")
    assert [] == transcripts(tmp_path / "home")


def test_a_session_id_in_use_is_refused(cli: Start) -> None:
    session = str(uuid.uuid4())
    cli(f"--session-id={session}").turn()
    refused = f"Error: Session ID {session} is already in use.\n"
    assert (1, refused) == cli(f"--session-id={session}").refusal()


@pytest.mark.parametrize("flags", [("--session-id=s1",), ("--session-id=" + "0" * 36, "--resume=s1")])
def test_a_bad_session_id_is_refused(cli: Start, flags: tuple[str, ...]) -> None:
    code, complaint = cli(*flags).refusal()
    assert (1, True) == (code, complaint.startswith("Error: "))


def test_a_resumed_session_remembers(cli: Start) -> None:
    first = cli()
    session = only("result", first.turn("first"))["session_id"]
    assert 0 == first.end()
    second = cli(f"--resume={session}")
    assert session == only("init", second.turn("second"))["session_id"]
    second.process.kill()
    assert "first\nsecond" == cli(f"--resume={session}").answer("recall")


def test_a_session_is_resumed_by_path_in_another_home(cli: Start, tmp_path: Path) -> None:
    first = cli()
    session = only("result", first.turn("first"))["session_id"]
    moved = tmp_path / "moved" / f"{session}.jsonl"
    moved.parent.mkdir()
    transcripts(tmp_path / "home")[0].rename(moved)
    second = cli(f"--resume={moved}", home=tmp_path / "other")
    assert session == only("init", second.turn("second"))["session_id"]
    assert "first\nsecond" == second.answer("recall")
    assert [] == transcripts(tmp_path / "other")  # it goes on in the file that it was given
    assert "first\nsecond\nrecall" == cli(f"--resume={moved}").answer("recall")


def test_a_session_is_resumed_from_what_the_mirror_said(cli: Start, tmp_path: Path) -> None:
    first = cli()
    heard = first.turn("first") + first.turn("second")
    rebuilt = tmp_path / f"{heard[0]['session_id']}.jsonl"
    rebuilt.write_text("".join(json.dumps(entry) + "\n" for entry in entries(heard)))
    assert "first\nsecond" == cli(f"--resume={rebuilt}", home=tmp_path / "other").answer("recall")


def test_an_unknown_session_is_refused(cli: Start) -> None:
    running = cli("--resume=00000000-0000-4000-8000-000000000000")
    result = only("result", running.rest())
    assert ("error_during_execution", True) == (result["subtype"], result["is_error"])
    why = "No conversation found with session ID: 00000000-0000-4000-8000-000000000000"
    assert (1, why + "\n") == running.refusal()
    assert [why] == result["errors"]


def test_a_message_answered_in_an_earlier_process_is_completed_at_once(cli: Start) -> None:
    session = only("result", cli().turn("first", "m1"))["session_id"]
    running = cli(f"--resume={session}")
    assert ["completed"] == kinds(running.turn("first", "m1"))


def test_a_message_that_a_crash_left_unanswered_runs_again(cli: Start) -> None:
    first = cli(FAULT="crash:2", FAULT_ON="second")
    session = only("result", first.turn("first"))["session_id"]
    first.ask("second", "m2")
    assert -signal.SIGKILL == first.process.wait(DEADLINE)
    again = cli(f"--resume={session}")
    assert "completed" == kind(again.turn("second", "m2")[-1])
    assert "first\nsecond\nsecond" == again.answer("recall")  # as the real CLI: the prompt stands there twice


def conversation(cli: Start) -> tuple[str, list[str]]:
    """A session of three turns, and the uuids of its answers; its messages are m1, m2 and m3."""
    running = cli()
    heard = [running.turn(name, name) for name in ("m1", "m2", "m3")]
    running.process.kill()
    return heard[0][0]["session_id"], [only("assistant", turn)["uuid"] for turn in heard]


def test_a_session_is_resumed_at_an_earlier_point(cli: Start) -> None:
    session, answers = conversation(cli)
    running = cli(f"--resume={session}", f"--resume-session-at={answers[0]}")
    running.turn("new")
    assert "m1\nnew" == running.answer("recall")
    running.process.kill()
    assert "m1\nnew\nrecall" == cli(f"--resume={session}").answer("recall")  # the branch is the last one


def test_the_turn_that_a_resume_drops_runs_again(cli: Start) -> None:
    session, answers = conversation(cli)
    at = (f"--resume={session}", f"--resume-session-at={answers[1]}")
    assert ["completed"] == kinds(cli(*at).turn("m3", "m3"))
    running = cli(*at, "--resume-drops-turn=m3")
    assert 1 == len(every("result", running.turn("m3", "m3")))
    assert "m1\nm2\nm3" == running.answer("recall")


def test_a_resume_that_would_drop_another_turn_is_refused(cli: Start) -> None:
    session, answers = conversation(cli)
    running = cli(f"--resume={session}", f"--resume-session-at={answers[0]}", "--resume-drops-turn=m2")
    code, complaint = running.refusal()
    assert (1, True) == (code, complaint.startswith("Resume rejected by --resume-drops-turn"))


def test_a_resume_at_an_unknown_point_is_refused(cli: Start) -> None:
    session, _ = conversation(cli)
    running = cli(f"--resume={session}", "--resume-session-at=nowhere")
    assert (1, "No message found with message.uuid of: nowhere\n") == running.refusal()


def test_a_torn_last_line_is_no_obstacle(cli: Start, tmp_path: Path) -> None:
    session, _ = conversation(cli)
    (path,) = transcripts(tmp_path / "home")
    path.write_text(path.read_text() + '{"parentUuid":"x","ty')
    running = cli(f"--resume={session}")
    running.turn("new")
    running.process.kill()
    assert "m1\nm2\nm3\nnew" == cli(f"--resume={session}").answer("recall")
