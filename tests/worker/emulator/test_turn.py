from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from warmwire.worker.cli import claude, said

from tests.conftest import SECONDS
from tests.worker.emulator.cli import (
    DEADLINE,
    Json,
    Start,
    entries,
    every,
    kind,
    kinds,
    only,
    recorded,
    texts,
    user,
)


@pytest.fixture
def emulated(cli: Start) -> Callable[[str], list[Json]]:
    """A turn of the emulator that goes like one that the real CLI was recorded with."""

    def interrupted() -> list[Json]:
        running = cli(TTFT_MS=0, FAULT="hang:1")
        running.ask("Hello")
        heard = running.until("content_block_delta")
        running.send({"type": "control_request", "request_id": "1", "request": {"subtype": "interrupt"}})
        return heard + running.until("cancelled")

    turns: dict[str, Callable[[], list[Json]]] = {
        "completed.jsonl": lambda: cli().turn(),
        "cut.jsonl": lambda: cli(FAULT="retry:2").turn(),
        "interrupted.jsonl": interrupted,
        "refused.jsonl": lambda: cli(FAULT="error:400").turn(),
        "tool.jsonl": lambda: cli(FAULT="tool").turn(),
    }
    return lambda name: turns[name]()


SCENARIOS = ("completed.jsonl", "cut.jsonl", "tool.jsonl", "interrupted.jsonl", "refused.jsonl")


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "tool.jsonl"])
def test_lines_come_in_the_order_of_the_real_cli(emulated: Callable[[str], list[Json]], name: str) -> None:
    assert kinds(recorded(name)) == kinds(emulated(name))


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_line_has_a_key_that_the_real_cli_does_not_have(
    emulated: Callable[[str], list[Json]], name: str
) -> None:
    real: dict[str, set[str]] = {}
    for line in recorded(name):
        real.setdefault(kind(line), set()).update(line)
    for line in emulated(name):
        assert set(line) <= real[kind(line)] | {"errors"}, kind(line)


@pytest.mark.parametrize("name", SCENARIOS)
def test_keys_of_a_stream_event_stand_in_the_order_of_the_real_cli(
    emulated: Callable[[str], list[Json]], name: str
) -> None:
    real = {kind(line): list(line) for line in reversed(recorded(name)) if "event" in line}
    for line in emulated(name):
        if "event" in line:
            expected = [key for key in real[kind(line)] if key in line]
            assert expected == list(line)


@pytest.mark.parametrize("name", SCENARIOS)
def test_transcript_entries_have_no_key_that_the_real_ones_do_not_have(
    emulated: Callable[[str], list[Json]], name: str
) -> None:
    real: dict[str, set[str]] = {}
    for entry in entries(recorded(name)):
        real.setdefault(entry["type"], set()).update(entry)
    for entry in entries(emulated(name)):
        assert set(entry) <= real[entry["type"]]


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        *((name, "completed") for name in SCENARIOS[:3]),
        ("interrupted.jsonl", "interrupted"),
        ("refused.jsonl", "failed"),
    ],
)
def test_the_adapter_understands_every_line(
    emulated: Callable[[str], list[Json]], name: str, ending: str
) -> None:
    read = [claude.parse(json.dumps(line).encode()) for line in emulated(name)]
    assert [] == [line for line in read if isinstance(line, said.BadLine)]
    assert [ending] == [line.ending for line in read if isinstance(line, said.Result)]


def test_a_delta_line_reads_exactly_like_the_real_one(cli: Start) -> None:
    running = cli(DELTAS=1)
    running.ask("Hello")
    start = running.until("content_block_start")[-1]
    running.until("transcript_mirror")
    line = running.raw_line() or b""
    delta = json.loads(line)
    delta_id = str(uuid.UUID(delta["uuid"]))
    text = json.dumps(delta["event"]["delta"]["text"])
    event = f'{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":{text}}}}}'
    ids = f'"session_id":"{start["session_id"]}","parent_tool_use_id":null,"uuid":"{delta_id}"'
    last = f'"api_message_id":"{start["api_message_id"]}"'
    assert f'{{"type":"stream_event","event":{event},{ids},{last}}}' == line.decode()


def test_the_answer_quotes_the_message_and_says_who_speaks(cli: Start) -> None:
    answer = cli().answer('How is the "weather", Zoë?\n')
    assert 'How is the "weather", Zoë?' in answer
    assert "emulator" in answer


def test_an_answer_is_the_same_each_time(cli: Start) -> None:
    assert cli().answer("Hello") == cli().answer("Hello")


def test_deltas_assistant_and_result_carry_the_same_text(cli: Start) -> None:
    heard = cli().turn("Grüße 🙂 \u2028")
    text = "".join(texts(heard))
    assert [{"type": "text", "text": text}] == only("assistant", heard)["message"]["content"]
    assert text == only("result", heard)["result"]


def test_every_delta_has_a_uuid_of_its_own(cli: Start) -> None:
    heard = cli(DELTAS=300).turn()
    assert 300 == len({line["uuid"] for line in every("content_block_delta", heard)})


def test_an_answer_has_about_twenty_deltas_unless_told_otherwise(cli: Start) -> None:
    assert 15 <= len(texts(cli().turn())) <= 30


@pytest.mark.parametrize("deltas", [1, 2, 7, 16, 17, 30, 1000])
def test_an_answer_has_as_many_deltas_as_are_asked_for(cli: Start, deltas: int) -> None:
    assert deltas == len(texts(cli(DELTAS=deltas).turn()))


def test_a_long_message_is_quoted_in_part(cli: Start) -> None:
    assert len(cli().answer("long " * 10_000)) < 300


def test_content_blocks_are_joined_and_what_is_no_text_is_named(cli: Start) -> None:
    running = cli()
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    running.turn([{"type": "text", "text": "one"}, image, {"type": "text", "text": "two"}])
    assert "one\n[image]\ntwo" == running.answer("recall")


def test_a_message_without_uuid_gets_no_receipts(cli: Start) -> None:
    running = cli()
    running.send(user("Hello"))
    heard = running.until("result")
    assert [] == [line for line in heard if line["type"] == "command_lifecycle"]
    assert "user_message_uuids" not in heard[-1]


def test_the_result_names_the_messages_and_counts_tokens_and_cost(cli: Start) -> None:
    running = cli(DELTAS=10)
    first, second = (only("result", running.turn("two words", name)) for name in ("m1", "m2"))
    assert ["m1"] == first["user_message_uuids"]
    assert (2, 10) == (first["usage"]["input_tokens"], first["usage"]["output_tokens"])
    assert second["total_cost_usd"] == pytest.approx(2 * first["total_cost_usd"])  # of the process so far
    assert (0, 1) == (first["result_index"], second["result_index"])


def test_init_names_session_model_and_emulator_with_each_turn(cli: Start, tmp_path: Path) -> None:
    session = str(uuid.uuid4())
    running = cli(f"--session-id={session}", "--model=some-model", "--permission-mode=plan")
    for _ in range(2):
        init = only("init", running.turn())
        assert (session, "some-model", "plan") == (init["session_id"], init["model"], init["permissionMode"])
        assert "emulator" in init["claude_code_version"]
        assert str(tmp_path / "home/work") == init["cwd"]


def test_user_messages_are_replayed_on_request(cli: Start) -> None:
    replayed = only("user", cli("--replay-user-messages").turn("Hello", "m1"))
    assert (True, "m1", "Hello") == (replayed["isReplay"], replayed["uuid"], replayed["message"]["content"])


def test_the_version_says_that_it_is_the_emulator(cli: Start) -> None:
    running = cli("--version")
    assert [b"0.1.0 (warmwire emulator)", None] == [running.raw_line(), running.raw_line()]
    assert 0 == running.process.wait(DEADLINE)


def test_unknown_flags_are_ignored(cli: Start) -> None:
    assert "completed" == kind(cli("--bogus", "--other=3", "-x", "--max-turns=1").turn()[-1])


def stamps(lines: list[Json]) -> list[tuple[int, int]]:
    words = [text.split(" ", 2) for text in texts(lines)]
    return [(int(at), int(number)) for at, number, _ in words]


def test_stamped_deltas_begin_with_their_time_and_number(cli: Start) -> None:
    before = time.time_ns()
    stamped = stamps(cli(STAMP=1, DELTAS=5).turn())
    times = [before, *(at for at, _ in stamped), time.time_ns()]
    assert [1, 2, 3, 4, 5] == [number for _, number in stamped]
    assert sorted(times) == times


def test_no_delta_is_early_and_the_rate_does_not_drift(cli: Start) -> None:
    running = cli(STAMP=1, DELTAS=200, RATE=400)
    running.control("initialize")
    sent = time.time_ns()
    late = [(at - sent) / 1e9 - n / 400 for n, (at, _) in enumerate(stamps(running.turn()))]
    assert min(late) >= 0
    assert min(late[100:]) < SECONDS / 2  # of which a machine that stands still makes some late, and not all


def test_the_first_delta_waits_for_the_time_to_first_token(cli: Start) -> None:
    result = only("result", cli(TTFT_MS=300).turn())
    assert 300 <= result["ttft_stream_ms"] < 300 + 10_000 * SECONDS


def test_stdin_is_not_read_before_the_startup_delay_is_over(cli: Start) -> None:
    began = time.monotonic()
    cli(STARTUP_MS=400).control("initialize")
    assert time.monotonic() - began >= 0.4


def test_a_script_is_the_answer_to_all_but_recall(cli: Start, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("é is CRITICAL:\n```py\nx = 1  # two  spaces\n```\n")
    running = cli(SCRIPT=script)
    assert script.read_text() == running.answer("Hello")
    assert script.read_text() == running.answer("Anything else")
    assert "Hello\nAnything else" == running.answer("recall")


def test_a_script_comes_in_as_many_deltas_as_asked_for(cli: Start, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("one two three four")
    assert ["one two ", "three four"] == texts(cli(SCRIPT=script, DELTAS=2).turn())
