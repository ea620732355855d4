"""Profiles as a client meets them: over HTTP, with real workers."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from warmwire.broker.wire.sealed import PoolKey
from warmwire.worker.cli.program import find_claude
from warmwire.worker.machine import tree

from tests.client import eventually
from tests.conftest import require
from tests.standin.messages_api import Behaviour, MessagesApi
from tests.system.product import Events, Product, end_of, ended, only, text_of

PLAIN = Path(__file__).parents[1] / "standin" / "plain_cli.py"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the profiles' file."""

    def write_profiles(text: str) -> Path:
        path = tmp_path / "profiles.toml"
        path.write_text(text)
        return path

    return write_profiles


@pytest.fixture(autouse=True)
def quick_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMWIRE_EMULATOR_RATE", "500")


def code(events: Events) -> str:
    return str(end_of(events).get("code") or events[-1][0])


def model(events: Events) -> str:
    return str(only("message_start", events)["message"]["model"])


async def test_what_a_profile_does_not_allow_fails_with_the_field_and_the_limits(
    product: Product, write: Write
) -> None:
    await product.work(profiles=write('[coding]\nmodels = ["big", "small"]\nmax_thinking_tokens = 10\n'))
    asked: list[dict[str, Any]] = [
        {"model": "huge"},
        {"permission_mode": "plan"},
        {"thinking_tokens": 11},
    ]
    for given in asked:
        end = end_of(await product.ask("Hello", profile="coding", **given))
        assert ("not_allowed", False) == (end["code"], end["retryable"])
        assert next(iter(given)) in end["message"]
    assert (
        "profile 'coding' allows big, small."
        in end_of(await product.ask("Hello", profile="coding", model="huge"))["message"]
    )
    assert "turn_completed" == code(await product.ask("Hello", profile="coding", model="small"))


async def test_an_unknown_profile_fails_and_the_session_is_free_for_another(product: Product) -> None:
    await product.work()
    end = end_of(await product.ask("Hello", profile="painting"))
    assert ("unknown_profile", False) == (end["code"], end["retryable"])
    assert "turn_completed" == code(await product.ask("Hello"))


@pytest.mark.parametrize(
    "given",
    [
        {"permission_mode": "yolo"},
        {"thinking_tokens": -1},
        {"thinking_tokens": 10**9},
        {"model": "x" * 201},
        {"profile": "x" * 201},
    ],
)
async def test_what_no_profile_can_allow_is_refused_at_once(product: Product, given: dict[str, Any]) -> None:
    answer = await product.wire.post({"session_id": "s1", "message": "Hello", **given})
    assert (422, next(iter(given))) == (answer.status, (await answer.problem())["field"])


async def test_a_session_keeps_its_profile_and_its_prompt_wherever_it_goes(
    product: Product, write: Write
) -> None:
    profiles = write('[small]\nmodels = ["small"]\n')
    first = await product.work(profiles=profiles)
    assert "small" == model(await product.ask("Hello", profile="small", system_prompt="Be brief."))
    await first.stop()
    await product.work(profiles=profiles)
    assert "small" == model(await product.ask("Hello"))
    assert "small" == model(await product.ask("Hello", profile="small", system_prompt="Be brief."))
    for given in ({"profile": "default"}, {"system_prompt": "Be long."}):
        end = end_of(await product.ask("Hello", **given))
        assert ("session_fixed", False) == (end["code"], end["retryable"])
        assert next(iter(given)) in end["message"]


async def test_a_session_that_began_without_a_profile_stays_so(product: Product, write: Write) -> None:
    await product.work(profiles=write("[other]\n"))
    await product.ask("Hello")
    assert "session_fixed" == code(await product.ask("Hello", profile="other"))
    assert "turn_completed" == code(await product.ask("Hello", profile="default"))


async def test_a_deleted_session_is_free_again(product: Product, write: Write) -> None:
    await product.work(profiles=write("[other]\n"))
    await product.ask("Hello", profile="other")
    assert 204 == (await product.wire.send("DELETE", "/v1/sessions/s1")).status
    assert "turn_completed" == code(await product.ask("Hello", profile="default"))


async def test_a_session_adopts_a_spare_of_its_own_profile_only(product: Product, write: Write) -> None:
    worker = await product.work(
        profiles=write("[default]\nspares = 1\n[other]\nspares = 2\n[none]\nspares = 0\n")
    )
    supply = worker._supply

    def ready() -> list[str]:
        return sorted(spare.profile for spare in supply.spares() if spare.ready)

    await eventually(lambda: ["default", "other", "other"] == ready(), "the spares")
    before = {spare.id: spare.profile for spare in supply.spares()}
    await product.ask("Hello", "s1", profile="other")
    gone = [profile for number, profile in before.items() if number not in {s.id for s in supply.spares()}]
    assert ["other"] == gone
    await product.ask("Hello", "s2", profile="none")
    await eventually(lambda: ["default", "other", "other"] == ready(), "the spares, again")


async def test_a_turn_budget_ends_the_turn_and_not_the_session(
    product: Product, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMWIRE_EMULATOR_DELTAS", "1000")
    await product.work(profiles=write("[default.limits]\nturn_tokens = 50\n"))
    for _ in range(2):
        events = await product.ask("Hello")
        assert ("budget_exceeded", False) == (code(events), end_of(events)["retryable"])
        assert "turn_tokens: 51 of 50" in end_of(events)["message"]
        assert text_of(events)  # what there was of it stands


async def test_a_session_budget_is_kept_over_a_takeover(product: Product, write: Write) -> None:
    first = await product.work(profiles=write("[default.limits]\nsession_tokens = 1000\n"))
    usage = end_of(await product.ask("one"))["usage"]
    used = usage["input_tokens"] + usage["output_tokens"]
    await first.stop()
    await product.work(profiles=write(f"[default.limits]\nsession_tokens = {2 * used}\n"))
    assert "turn_completed" == code(await product.ask("two"))
    refused = await product.ask("six")
    assert "budget_exceeded" == code(refused)
    assert "session_tokens" in end_of(refused)["message"]
    assert "turn_completed" == code(await product.ask("one", "s2"))


async def test_dollars_are_limited_where_the_cli_says_what_it_costs(
    product: Product, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", "ask")  # a second step that would come
    await product.work(profiles=write("[default.limits]\nturn_usd = 0.00001\n"))
    events = await product.ask("a b c d e f g h i j k l m n o p q r s t u v w x y z")
    assert "budget_exceeded" == code(events)
    assert "turn_usd" in end_of(events)["message"]


async def test_a_turn_may_take_only_so_long(
    product: Product, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMWIRE_EMULATOR_FAULT", "hang:2")
    await product.work(profiles=write("[default.limits]\nturn_seconds = 0.2\n"))
    assert "time_limit" == code(await product.ask("Hello"))


async def test_a_working_directory_is_a_copy_of_the_template(
    product: Product, write: Write, tmp_path: Path
) -> None:
    template = tmp_path / "template"
    template.mkdir()
    (template / "README").write_text("Hello")
    await product.work(profiles=write(f'[default]\nworkdir = "{template}"\n'))
    for session in ("s1", "s2"):
        await product.ask("Hello", session)
    copies = sorted((tmp_path / "data").rglob("README"))
    assert ["Hello", "Hello"] == [copy.read_text() for copy in copies]


async def test_a_kept_working_directory_outlives_process_and_worker(
    product: Product, write: Write, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    profiles = write(f'[default]\nkeep_in = "{kept}"\n')
    first = await product.work(profiles=profiles)
    await product.ask("Hello")
    (kept / "default" / "s1" / "made").write_text("by a tool")
    await first.stop()
    await product.work(profiles=profiles)
    await product.ask("Hello")
    assert "by a tool" == (kept / "default" / "s1" / "made").read_text()


async def test_a_refused_token_is_repaired_by_a_fresh_one(
    product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = PoolKey.new()
    path = tmp_path / "pool.key"
    path.write_text(key.secret_text())
    path.chmod(0o600)
    monkeypatch.setenv("WARMWIRE_EMULATOR_TOKENS", "fresh")
    product.edge.settings = product.edge.settings.model_copy(update={"pool_public_key": str(key.sealing)})
    await product.work(pool_key_file=path)
    ends = []
    for token in ("stale", "fresh"):
        stream = await product.wire.post(
            {"session_id": "s1", "message": f"with a {token} one"}, {"x-warmwire-token": token}
        )
        ends.append(code(await ended(stream)))
    assert ["auth_failed", "turn_completed"] == ends


async def test_the_plain_dialect_has_profiles_as_far_as_it_can_be_told(
    product: Product, write: Write, tmp_path: Path
) -> None:
    template = tmp_path / "template"
    template.mkdir()
    text = f"""
[default]
models = ["plain", "other"]
system_prompt = "You are a heron."
workdir = "{template}"
[quick.limits]
turn_seconds = 0.2
"""
    cli = shlex.join((sys.executable, str(PLAIN), "--polite"))
    await product.work(cli=cli, dialect="stream-json", profiles=write(text))
    assert "turn_completed" == code(await product.ask("Hello", model="other"))
    assert {"--model=other", "--system-prompt=You are a heron."} <= set(arguments_in(tmp_path / "data"))
    assert "not_allowed" == code(await product.ask("Hello", thinking_tokens=1))
    assert "not_allowed" == code(await product.ask("Hello", permission_mode="plan"))
    assert "not_allowed" == code(await product.ask("Hello", model="a third"))
    assert "time_limit" == code(await product.ask("long", "s2", profile="quick"))


def arguments_in(folder: Path) -> list[str]:
    """The arguments of the one process that works there."""
    (pid,) = tree.working_in(folder)
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


HERON = """
[default]
models = ["claude-sonnet-4-5", "claude-haiku-4-5"]
system_prompt = "You are a heron."
tools = ["Read"]
permission_modes = ["default", "plan"]
"""


@pytest.mark.claude
async def test_the_real_cli_is_set_up_as_profile_and_turn_say(
    product: Product, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(find_claude(), "claude CLI (pip install 'warmwire[claude]')")
    async with MessagesApi() as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "made up")
        worker = await product.work(cli="claude", profiles=write(HERON), spares=1)
        await eventually(lambda: any(s.ready for s in worker._supply.spares()), "the spare", 30)
        turns: list[dict[str, Any]] = [
            {"thinking_tokens": 2000},
            {"model": "claude-haiku-4-5", "permission_mode": "plan"},
        ]
        for given in turns:
            assert "turn_completed" == code(await product.ask("Hello", **given))
        first, second = api.asked[-2:]
    assert ("claude-sonnet-4-5", "claude-haiku-4-5") == (first["model"], second["model"])
    assert (2000, ["Read"]) == (first["thinking"]["budget_tokens"], [tool["name"] for tool in first["tools"]])
    assert 2000 != second.get("thinking", {}).get("budget_tokens")
    assert "You are a heron." in str(first["system"])
    assert "plan mode" in str(second["messages"]).lower()


@pytest.mark.claude
@pytest.mark.parametrize(
    ("limits", "expected", "named"),
    [
        ("turn_steps = 1", "max_turns", ""),
        ("turn_usd = 0.00001", "budget_exceeded", "turn_usd"),
        ("turn_tokens = 10", "budget_exceeded", "turn_tokens"),
        ("session_usd = 0.00001", "budget_exceeded", "session_usd"),
    ],
)
async def test_the_real_cli_is_stopped_at_its_limits(
    product: Product, write: Write, monkeypatch: pytest.MonkeyPatch, limits: str, expected: str, named: str
) -> None:
    require(find_claude(), "claude CLI (pip install 'warmwire[claude]')")
    text = f'[default]\ntools = ["Bash"]\nallowed_tools = ["Bash"]\n[default.limits]\n{limits}\n'
    async with MessagesApi(Behaviour(tool="sleep 1")) as api:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "made up")
        await product.work(cli="claude", profiles=write(text))
        events = await product.ask("Hello", model="claude-sonnet-4-5")
        assert (1, expected) == (len(api.asked), code(events))
    assert named in end_of(events)["message"]
