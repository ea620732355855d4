"""Each example's one command, as a newcomer runs it; and the two that decide something, piece by piece."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from warmwire.worker.cli.program import find_claude

from examples.code_extraction.fences import Block, Fences
from examples.code_review.alerts import Alerts
from examples.microservice.app import Ticket, app
from tests.conftest import SECONDS, require, started_nats_server
from tests.standin.messages_api import Behaviour, in_thread

ROOT = Path(__file__).parents[2]
# No service runs beforehand, and what somebody has set for another one does not count.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("WARMWIRE_")}

slow = pytest.mark.slow


def run(name: str, *arguments: str, **environment: str) -> str:
    """What the example says; it ends by itself, and leaves nothing running."""
    argv = [sys.executable, "-m", f"examples.{name}", "--patience", str(60 * SECONDS), *arguments]
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        env=ENVIRONMENT | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=100 * SECONDS)
        finally:
            left = _end_group(process.pid)
    assert process.returncode == 0, said
    assert not left, "something of the example's still runs"
    return said


def _end_group(group: int) -> bool:
    """Whether there was anything left to end."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@slow
def test_the_microservice_answers_a_ticket_once() -> None:
    said = run("microservice", "--text", "My parcel is lost.")
    turns = re.search(r"posted twice, turns: (\S+) (\S+)", said)
    assert turns is not None
    assert turns[1] == turns[2]
    answer = re.search(r"^Hello! You wrote: .*My parcel is lost.*$", said, re.MULTILINE)
    assert answer is not None
    assert f"stored: turn_completed, {len(answer[0])} characters" in said
    assert "the same id with another text: 409" in said
    assert "one trace: True" in said


@slow
async def test_the_microservice_says_come_again_where_nobody_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started_nats_server(tmp_path) as (url, server):
        monkeypatch.setenv("WARMWIRE_NATS", url)
        transport = httpx2.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport) as http:
            app.state.desk.tickets["t1"] = Ticket(id="t1", turn="turn", beginning="turn.0.0")
            server.kill()
            server.wait()
            for method, path in (("GET", "answer"), ("POST", "stop")):
                answer = await http.request(method, f"http://tickets/tickets/t1/{path}", timeout=60 * SECONDS)
                assert (503, "1") == (answer.status_code, answer.headers["retry-after"])


@slow
def test_an_example_that_takes_too_long_says_so() -> None:
    argv = [sys.executable, "-m", "examples.code_review", "--patience", "0.01"]
    ended = subprocess.run(
        argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=100 * SECONDS
    )
    assert (1, "not done within 0.01 s: more with --patience\n") == (ended.returncode, ended.stderr)


def alerted_while_it_is_written(said: str) -> bool:
    """Once, with the next finding still to come; what the terminal shows by then is another matter."""
    review = (ROOT / "examples" / "code_review" / "answer.md").read_text()
    ended = re.search(r"turn_completed: the first alert after (\d+) of \d+ characters", said)
    once = 1 == said.count(">>> ALERT: CRITICAL: the query is put together from what the caller gave.")
    return once and ended is not None and int(ended[1]) < review.index("MAJOR: prices")


@slow
def test_the_review_alerts_before_it_ends() -> None:
    said = run("code_review", WARMWIRE_EMULATOR_RATE="150")
    assert alerted_while_it_is_written(said), said


@slow
def test_the_review_can_end_with_its_alert() -> None:
    said = run("code_review", "--stop", WARMWIRE_EMULATOR_RATE="30")
    assert ">>> ALERT: CRITICAL" in said
    assert "turn_interrupted: the first alert after" in said
    assert "The first method should stay as it was" not in said


@slow
def test_each_block_of_an_answer_becomes_a_file_before_the_answer_ends(tmp_path: Path) -> None:
    said = run("code_extraction", "--out", str(tmp_path / "out"), WARMWIRE_EMULATOR_RATE="150")
    names = ["01.py", "02.py", "03.mk", "04.md", "05.txt"]
    assert names == sorted(file.name for file in (tmp_path / "out").iterdir())
    for name in names[:2]:
        compile((tmp_path / "out" / name).read_text(), name, "exec")
    assert (tmp_path / "out" / "04.md").read_text().endswith("```\n\n~~~\nnot a fence of ours\n~~~\n")
    places = [int(at) for at in re.findall(r"^after +(\d+) characters", said, re.MULTILINE)]
    whole = re.search(r"5 files in .*, of an answer with (\d+) characters\n", said)
    assert whole is not None
    assert sorted(set(places)) == places
    assert places[0] < int(whole[1]) / 2


@slow
def test_all_viewers_see_the_same_whenever_they_came() -> None:
    said = run("collaborative", "Uma", "Vic", WARMWIRE_EMULATOR_RATE="30")
    assert "all 5 have seen the same" in said
    assert re.search(r"^Uma: (\d+) characters, (\w+), turn_completed", said, re.MULTILINE)
    late = re.search(r"^Dora: .* had (\d+) at first$", said, re.MULTILINE)
    assert late is not None
    assert int(late[1]) >= 50


@pytest.fixture
def claude() -> Iterator[dict[str, str]]:
    """What has Claude Code answer with the review, without an account."""
    require(find_claude(), "claude CLI (pip install 'warmwire[claude]')")
    review = (ROOT / "examples" / "code_review" / "answer.md").read_text()
    with in_thread(Behaviour(text=review, rate=150)) as api:
        yield {"ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": "made up"}


@slow
@pytest.mark.claude
def test_the_review_alerts_before_it_ends_with_the_real_cli(claude: dict[str, str]) -> None:
    said = run("code_review", "--cli", "claude", **claude)
    assert alerted_while_it_is_written(said), said


@slow
@pytest.mark.claude
def test_the_microservice_answers_a_ticket_once_with_the_real_cli(claude: dict[str, str]) -> None:
    said = run("microservice", "--cli", "claude", **claude)
    turns = re.search(r"posted twice, turns: (\S+) (\S+)", said)
    assert turns is not None
    assert turns[1] == turns[2]
    assert 1 == said.count("CRITICAL: the query is put together")
    assert "stored: turn_completed, 632 characters" in said
    assert "one trace: True" in said


def test_examples_use_what_everybody_may() -> None:
    sources = [
        file.read_text() for file in (ROOT / "examples").glob("**/*.py") if "node_modules" not in str(file)
    ]
    imported = {
        name for source in sources for name in re.findall(r"^from (warmwire[\w.]*)", source, re.MULTILINE)
    }
    assert {"warmwire.producer", "warmwire.producer.edge_client"} == imported


PIECES = [1, 3, 7, 10_000]


def blocks(text: str, size: int) -> list[Block]:
    """The blocks of a text that comes in pieces of so many characters."""
    fences, found = Fences(), list[Block]()
    for at in range(0, len(text), size):
        found += fences.add(text[at : at + size])
    return found + fences.finish()


@pytest.mark.parametrize("size", PIECES)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no code", []),
        ("```py\nx\n```", [Block("py", "x\n")]),
        ("a\n```py\nx\n```\nb\n~~~\ny\n~~~\n", [Block("py", "x\n"), Block("", "y\n")]),
        ("```py\r\nx\r\n```\r\n", [Block("py", "x\n")]),
        ("```\n```\n", [Block("", "")]),
        ("```py\nnever closed\n", []),
        ("````\n```py\nx\n```\n````\n", [Block("", "```py\nx\n```\n")]),
        ("~~~\n```\n~~~\n", [Block("", "```\n")]),
        ("```py\nx\n`````\n", [Block("py", "x\n")]),
        ("```py\nx\n``` y\n```\n", [Block("py", "x\n``` y\n")]),
        ("```code``` within a line\n", []),
        ("- a\n\n   ```Python title=x\n   if x:\n       y\n   ```\n", [Block("python", "if x:\n    y\n")]),
        ("```markdown\n```py\nx\n```\nend\n```\n", [Block("markdown", "```py\nx\n```\nend\n")]),
        ("```{.sql}\nx\n```\n", [Block("sql", "x\n")]),
    ],
)
def test_fences_are_found_whatever_the_pieces(text: str, expected: list[Block], size: int) -> None:
    assert expected == blocks(text, size)


def test_a_block_is_given_with_the_line_that_closes_it() -> None:
    fences = Fences()
    assert [] == fences.add("```py\nx\n``")
    assert fences.open
    assert [] == fences.add("`")
    assert [Block("py", "x\n")] == fences.add("\nmore")
    assert not fences.open


REVIEW = "MINOR: names.\nCRITICAL: an injection. Worse things follow.\nCRITICAL: a leak\nend"


@pytest.mark.parametrize("size", PIECES)
def test_each_finding_is_given_once_whatever_the_pieces(size: int) -> None:
    alerts, given = Alerts(), list[str]()
    for at in range(0, len(REVIEW) + size, size):
        given += alerts.new(REVIEW[:at])
    assert ["CRITICAL: an injection.", "CRITICAL: a leak"] == given


def test_a_finding_is_given_at_the_end_of_its_first_sentence_or_when_it_gets_long() -> None:
    assert [] == Alerts().new("CRITICAL: an injection")
    assert ["CRITICAL: an injection."] == Alerts().new("CRITICAL: an injection.")
    assert [f"CRITICAL: {'x' * 200}"] == Alerts().new(f"CRITICAL: {'x' * 300}")


def test_what_is_said_again_after_a_reset_is_no_new_finding() -> None:
    alerts = Alerts()
    assert 1 == len(alerts.new("CRITICAL: one.\n"))
    assert [] == alerts.new("")
    assert [] == alerts.new("CRITICAL: one.\n")
    assert ["CRITICAL: two."] == alerts.new("CRITICAL: one.\nCRITICAL: two.\n")
