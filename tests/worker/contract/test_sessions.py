"""What a session leaves behind, and how it is taken up again: after an end, a crash, elsewhere, twice."""

from __future__ import annotations

import asyncio
import json

from warmwire.worker.cli.claude_stdin import interrupt_line, user_line
from warmwire.worker.cli.said import Lifecycle, Result, StreamEvent
from warmwire.worker.errors import ErrorCode
from warmwire.worker.machine.process import Exit

from tests.conftest import wait_for
from tests.standin.messages_api import Behaviour, user_texts
from tests.worker.conftest import Running
from tests.worker.contract.chat import (
    STUMBLE,
    Chat,
    ask,
    entries,
    is_delta,
    left_out,
    new_id,
    on_one_loop,
    real_only,
    relied_on,
    typed,
    written,
)

pytestmark = on_one_loop


# --- resuming --------------------------------------------------------------------------------------------


@relied_on
async def test_mirrored_entries_alone_bring_a_session_back(chat: Chat) -> None:
    cli = await chat(session=(session := new_id()))
    heard = [*(await ask(cli, "one"))[0], *(await ask(cli, 'two "\nlines"'))[0]]
    cli.process.kill()  # all that counts has been mirrored when the result comes
    past = await written(chat.folder / "elsewhere", entries(heard))
    _, result = await ask(await chat("elsewhere", resume=past), "recall")
    assert ('one\ntwo "\nlines"', session) == (result.text, result.session_id)


@relied_on
async def test_a_resumed_session_knows_and_mirrors_nothing_else(chat: Chat) -> None:
    cli = await chat()
    first, _ = await ask(cli, "one")
    await ask(cli, "lost with its worker")
    cli.process.kill()
    past = await written(chat.folder / "s1", entries(first))
    cli = await chat(resume=past)  # in the same folder, where files of the CLI say more
    second, _ = await ask(cli, "two")
    await ask(cli, "lost as well")
    cli.process.kill()
    assert ["two"] == typed(entries(second))
    past = await written(chat.folder / "s1", entries([*first, *second]))
    assert "one\ntwo" == (await ask(await chat(resume=past), "recall"))[1].text


@left_out("a transcript under another name")
async def test_a_transcript_of_another_name_is_mirrored_all_over_again(chat: Chat) -> None:
    first, _ = await ask(await chat(), "one")
    past = await written(chat.folder / "s2", entries(first))
    other = await asyncio.to_thread(past.rename, past.with_name("other.jsonl"))
    second, _ = await ask(await chat("s2", resume=other), "two")
    assert ["one", "two"] == typed(entries(second))


@relied_on
async def test_messages_and_answers_are_all_that_is_needed_and_a_torn_end_is_passed_over(chat: Chat) -> None:
    first, _ = await ask(await chat(), "one")
    said = [line for line in entries(first) if json.loads(line)["type"] in ("user", "assistant")]
    past = await written(chat.folder / "s2", said)
    await asyncio.to_thread(past.write_bytes, past.read_bytes() + b'{"type":"user","mess')
    assert "one" == (await ask(await chat("s2", resume=past), "recall"))[1].text


@relied_on
async def test_without_persistence_nothing_is_mirrored(chat: Chat) -> None:
    heard, result = await ask(await chat(flags=["--no-session-persistence"]), "one")
    assert ([], "completed") == (entries(heard), result.ending)


@relied_on
async def test_a_transcript_that_is_not_there_ends_the_process(chat: Chat) -> None:
    cli = await chat(resume=chat.folder / "nowhere.jsonl")
    _, result = await cli.until(Result)
    assert ("failed", ErrorCode.CLI_FAILED) == (result.ending, result.error)
    assert "No conversation found" in result.detail
    _, ended = await cli.until(Exit)
    assert 1 == ended.returncode


@relied_on
async def test_a_session_id_is_good_for_one_start(chat: Chat) -> None:
    session = new_id()
    cli = await chat(session=session)
    await ask(cli, "Hi")
    await cli.process.stop()
    _, ended = await (await chat(session=session)).until(Exit)
    assert 1 == ended.returncode
    assert "already in use" in ended.stderr


# --- when the answer is safe -----------------------------------------------------------------------------


@relied_on
async def test_with_the_result_the_answer_is_on_disk(chat: Chat) -> None:
    cli = await chat()
    _, result = await ask(cli, "one")
    cli.process.kill()
    await cli.process.wait()
    (answer,) = [line for line in map(json.loads, chat.on_disk()) if line["type"] == "assistant"]
    assert result.text == answer["message"]["content"][0]["text"]


@relied_on
async def test_a_process_killed_in_mid_turn_leaves_the_message_and_no_answer(chat: Chat) -> None:
    past = await _killed_in_mid_turn(chat, new_id())
    assert [STUMBLE] == typed(past)
    assert [] == [line for line in past if json.loads(line)["type"] == "assistant"]


async def _killed_in_mid_turn(chat: Chat, message: str, *before: str) -> list[bytes]:
    """What is on disk then."""
    cli = await chat(plays=Behaviour(hang_after=1))
    for text in before:
        await ask(cli, text)
    cli.process.write(user_line(STUMBLE, message))
    await cli.until(StreamEvent, is_delta)
    await asyncio.to_thread(wait_for, lambda: STUMBLE in typed(chat.on_disk()), "the message is on disk")
    cli.process.kill()
    await cli.process.wait()
    chat.play(Behaviour())
    return await asyncio.to_thread(chat.on_disk)


# --- the same message again ------------------------------------------------------------------------------


async def lifecycle(cli: Running, message: str) -> list[str]:
    """What becomes of a message that it is told once more; nothing, if the next one overtakes it."""
    later = new_id()
    cli.process.write(user_line(STUMBLE, message))
    cli.process.write(user_line("later", later))
    heard, _ = await cli.until(Lifecycle, lambda line: line == Lifecycle(later, "completed"))
    assert later in [line for line in heard if isinstance(line, Result)][-1].message_uuids
    return [line.state for line in heard if isinstance(line, Lifecycle) and line.message_uuid == message]


@relied_on
async def test_a_message_that_was_answered_is_dropped_without_a_word(chat: Chat) -> None:
    cli, message = await chat.shared(), new_id()
    await ask(cli, "one", message)
    await cli.until(Lifecycle)
    assert [] == await lifecycle(cli, message)


@relied_on
async def test_so_is_one_that_failed(chat: Chat) -> None:
    cli, message = await chat(plays=Behaviour(error=400)), new_id()
    await ask(cli, STUMBLE, message)
    await cli.until(Lifecycle)
    chat.play(Behaviour())
    assert [] == await lifecycle(cli, message)


@relied_on
async def test_so_is_one_that_was_interrupted(chat: Chat) -> None:
    cli, message = await chat(plays=Behaviour(hang_after=1)), new_id()
    cli.process.write(user_line(STUMBLE, message))
    await cli.until(StreamEvent, is_delta)
    cli.process.write(interrupt_line("r1"))
    await cli.until(Lifecycle, lambda line: line.state == "cancelled")
    chat.play(Behaviour())
    assert [] == await lifecycle(cli, message)


@relied_on
async def test_after_a_resume_what_was_answered_is_completed_without_a_result(chat: Chat) -> None:
    message = new_id()
    heard, _ = await ask(await chat(), "one", message)
    past = await written(chat.folder / "s2", entries(heard))
    assert ["completed"] == await lifecycle(await chat("s2", resume=past), message)


@relied_on
async def test_after_a_resume_even_what_failed_is_completed(chat: Chat) -> None:
    message = new_id()
    heard, _ = await ask(await chat(plays=Behaviour(error=400)), STUMBLE, message)
    chat.play(Behaviour())
    past = await written(chat.folder / "s2", entries(heard))
    assert ["completed"] == await lifecycle(await chat("s2", resume=past), message)


@relied_on
async def test_after_a_crash_the_message_runs_again_and_stands_twice(chat: Chat) -> None:
    message = new_id()
    past = await written(chat.folder / "s2", await _killed_in_mid_turn(chat, message))
    cli = await chat("s2", resume=past)
    _, result = await ask(cli, STUMBLE, message)
    assert ("completed", (message,)) == (result.ending, result.message_uuids)
    assert [STUMBLE, STUMBLE] == (await ask(cli, "recall"))[1].text.splitlines()


@relied_on
async def test_a_resume_may_forget_what_a_crash_left(chat: Chat) -> None:
    message = new_id()
    left = await _killed_in_mid_turn(chat, message, "one")
    (answer,) = [entry for entry in map(json.loads, left) if entry["type"] == "assistant"]
    flags = [f"--resume-session-at={answer['uuid']}", f"--resume-drops-turn={message}"]
    cli = await chat("s2", resume=await written(chat.folder / "s2", left), flags=flags)
    await ask(cli, STUMBLE, message)
    assert ["one", STUMBLE] == (await ask(cli, "recall"))[1].text.splitlines()


@real_only("a message that a crash left unanswered, sent again")
async def test_between_the_two_stands_an_answer_that_was_made_up(chat: Chat) -> None:
    message = new_id()
    past = await written(chat.folder / "s2", await _killed_in_mid_turn(chat, message))
    await ask(await chat("s2", resume=past), STUMBLE, message)
    assert ["user", "assistant", "user"] == [said["role"] for said in chat.api.asked[-1]["messages"]]
    assert [STUMBLE, STUMBLE] == user_texts(chat.api.asked[-1])
