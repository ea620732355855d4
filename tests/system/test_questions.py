"""What the CLI asks leave for, from its question to the answer of whoever watches, over real HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from warmwire.broker.wire.events import PermissionRequested
from warmwire.producer import NotAsked, Producer, QuestionClosed
from warmwire.worker.cli.program import find_claude
from warmwire.worker.sessions.permissions import TOO_LATE

from tests.conftest import require
from tests.edge.wire import Answer
from tests.standin.messages_api import Behaviour, MessagesApi
from tests.system.product import Events, Product, end_of, ended, only, text_of


@pytest.fixture(autouse=True)
def asking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulators that ask for leave when a message says so."""
    monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", "ask")
    monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT_ON", "tool")
    monkeypatch.setenv("WARMWIRE_EMULATOR_RATE", "500")


async def question(stream: Answer) -> dict[str, Any]:
    """Wait for the question."""
    return (await stream.until("permission_requested"))[-1][1]


def outcome(events: Events) -> tuple[str, str]:
    """How the question was resolved and how the turn has ended."""
    return only("permission_resolved", events)["outcome"], events[-1][0]


@pytest.mark.parametrize(
    ("answer", "resolved", "summary"),
    [
        ({"allow": True}, "allowed", "emulated"),
        ({"allow": False, "reason": "Not on a Friday."}, "denied", "Not on a Friday."),
    ],
)
async def test_a_tool_waits_for_the_answer(
    product: Product, answer: dict[str, Any], resolved: str, summary: str
) -> None:
    await product.work()
    stream = await product.chat("use the tool")
    asked = await question(stream)
    assert ("Bash", {"command": "echo emulated"}) == (asked["tool"], asked["input"])
    assert (200, "") == await product.permit(asked["request"], **answer, turn=asked["turn"])
    events = await ended(stream)
    assert (resolved, "turn_completed") == outcome(events)
    assert summary in only("tool_finished", events)["summary"]


async def test_every_viewer_hears_of_the_question_and_any_may_answer(product: Product) -> None:
    await product.work()
    watching = await product.wire.watch("s1")
    stream = await product.chat("use the tool")
    name = (await question(watching))["request"]
    assert name == (await question(stream))["request"]
    await product.permit(name, allow=True)
    assert "allowed" == (await watching.until("permission_resolved"))[-1][1]["outcome"]


async def test_who_comes_late_is_shown_the_open_question(product: Product) -> None:
    await product.work()
    stream = await product.chat("use the tool")
    asked = await question(stream)
    late = await product.wire.watch("s1")
    shown = (await late.until("snapshot"))[-1][1]["questions"]
    assert [(asked["request"], asked["input"])] == [(one["request"], one["input"]) for one in shown]
    assert 0 < shown[0]["within_ms"] <= asked["within_ms"]
    await product.permit(asked["request"], allow=True)
    await ended(stream)


async def test_the_first_answer_counts(product: Product) -> None:
    await product.work()
    stream = await product.chat("use the tool")
    asked = (await question(stream))["request"]
    answers = [await product.permit(asked, allow=allow) for allow in (False, True, False)]
    assert [(200, ""), (409, "question_closed"), (409, "question_closed")] == answers
    assert "denied" == outcome(await ended(stream))[0]
    assert (409, "question_closed") == await product.permit(asked, allow=True)


async def test_without_an_answer_in_time_it_is_no(product: Product) -> None:
    await product.work(permission_timeout=0.1)
    stream = await product.chat("use the tool")
    asked = (await question(stream))["request"]
    events = await ended(stream)
    assert ("overdue", "turn_completed") == outcome(events)
    assert TOO_LATE in only("tool_finished", events)["summary"]
    assert (409, "question_closed") == await product.permit(asked, allow=True)


async def test_an_answer_for_another_turn_or_session_is_refused_and_the_question_waits_on(
    product: Product,
) -> None:
    await product.work()
    stream = await product.chat("use the tool")
    asked = (await question(stream))["request"]
    other = only("turn_started", await product.ask("Hello", "s2"))["turn"]
    assert (404, "unknown_question") == await product.permit(asked, allow=True, turn=other)
    assert (404, "unknown_question") == await product.permit(asked, "s2", allow=True)
    assert (200, "") == await product.permit(asked, allow=True)
    assert "allowed" == outcome(await ended(stream))[0]


async def test_an_interrupt_takes_the_question_back(product: Product) -> None:
    await product.work()
    stream = await product.chat("use the tool")
    asked = (await question(stream))["request"]
    assert 202 == (await product.interrupt())[0]
    assert ("withdrawn", "turn_interrupted") == outcome(await ended(stream))
    assert (409, "question_closed") == await product.permit(asked, allow=True)


async def test_after_a_takeover_the_old_question_is_refused_and_the_new_one_is_not(product: Product) -> None:
    first = await product.work(drain_timeout=0.0)
    stream = await product.chat("use the tool")
    before = (await question(stream))["request"]
    await product.work()
    await first.stop()
    asked = (await question(stream))["request"]
    assert (404, "unknown_question") == await product.permit(before, allow=True)
    assert (200, "") == await product.permit(asked, allow=True)
    events = await ended(stream)
    assert ("allowed", 2) == (outcome(events)[0], end_of(events)["attempt"])


async def test_a_service_answers_by_its_turn(product: Product, nats_server: str) -> None:
    worker = await product.work()
    async with Producer.connect(nats_server, worker._settings.prefix) as producer:
        turn = await producer.send("use the tool", session_id="s1")
        with pytest.raises(NotAsked):
            await turn.permit("1-1")
        async for event in turn:
            if event.type == "permission_requested":
                asked = PermissionRequested.model_validate(event.data).request
                await turn.deny(asked, "No.")
                with pytest.raises(QuestionClosed):
                    await turn.permit(asked, {"command": "ls"})
    assert "turn_completed" == event.type


@pytest.mark.claude
@pytest.mark.parametrize(
    ("answer", "made"),
    [
        ({"allow": True}, "asked"),
        ({"allow": True, "input": {"command": "touch {}/instead"}}, "instead"),
        ({"allow": False}, None),
    ],
)
async def test_a_tool_of_the_real_cli_runs_or_does_not(
    product: Product,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: dict[str, Any],
    made: str | None,
) -> None:
    require(find_claude(), "claude CLI (pip install 'warmwire[claude]')")
    profiles = tmp_path / "profiles.toml"
    profiles.write_text('[default]\ntools = ["Bash"]\n')
    answer = {**answer}
    if "input" in answer:
        answer["input"] = {"command": answer["input"]["command"].format(tmp_path)}
    async with MessagesApi(Behaviour(text="Done.", tool=f"touch {tmp_path}/asked")) as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "made up")
        await product.work(cli="claude", profiles=profiles)
        stream = await product.chat("Hello")
        asked = await question(stream)
        assert ("Bash", f"touch {tmp_path}/asked") == (asked["tool"], asked["input"]["command"])
        assert 200 == (await product.permit(asked["request"], **answer))[0]
        events = await ended(stream)
    assert ("turn_completed", "Done.") == (events[-1][0], text_of(events))
    assert ([made] if made else []) == made_in(tmp_path)


def made_in(folder: Path) -> list[str]:
    """What tools have made there."""
    return [path.name for path in folder.iterdir() if path.name in ("asked", "instead")]
