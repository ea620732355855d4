"""The reference pages list what the code has."""

from __future__ import annotations

import inspect
import re
from math import prod
from pathlib import Path

import pytest

from warmwire.broker import telemetry
from warmwire.broker.wire import events
from warmwire.broker.wire.names import SessionKey, Subjects
from warmwire.worker.errors import ErrorCode

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("examples/*.md"),
    *ROOT.glob("examples/*/README.md"),
]


def page(name: str) -> str:
    return (REFERENCE / name).read_text()


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_error_code_is_listed_with_whether_a_retry_helps(code: ErrorCode) -> None:
    helps = "yes" if code.retryable else "no"
    assert f"| `{code.value}` | {helps} |" in page("errors.md")


def endings() -> list[tuple[str, str]]:
    """Of the table of endings: the module of tests and the test that show each."""
    rows = re.findall(r"`(test_\w+)::(test_\w+)` \|$", page("errors.md"), re.MULTILINE)
    return sorted(set(rows))


@pytest.mark.parametrize(("module", "test"), endings())
def test_each_ending_is_shown_by_a_test(module: str, test: str) -> None:
    (path,) = (Path(__file__).parent / "worker").rglob(f"{module}.py")
    assert f"def {test}(" in path.read_text()


@pytest.mark.parametrize(
    "code", [code for code in ErrorCode if code.value.startswith(("cli_c", "cli_s", "bad", "line"))]
)
def test_each_way_in_which_a_process_fails_is_among_the_endings(code: ErrorCode) -> None:
    helps = "yes" if code.retryable else "no"
    assert f"| `{code.value}` | {helps} |" in page("errors.md").partition("## How a turn ends")[2]


def subjects() -> list[str]:
    made = Subjects("ww")
    key = SessionKey("tenant", "session")
    session = [made.requests, made.owner, made.about, made.bound, made.transcript, made.events]
    session += [made.control, made.forwards, made.viewers]
    of_ticket = [made.ticket("digest")]
    of_turn = [made.turn(key, "turn"), made.interrupt(key, "turn")]
    of_worker = [made.heartbeat("worker"), made.worker_control("worker"), made.edge_heartbeat("edge")]
    return [subject(key) for subject in session] + of_ticket + of_turn + of_worker


@pytest.mark.parametrize("subject", subjects())
def test_every_subject_is_listed(subject: str) -> None:
    names = ("tenant", "session", "turn", "worker", "edge", "digest")
    placeholders = {name: f"<{name}>" for name in names}
    first, kind, *rest = subject.split(".")
    listed = ".".join([first, kind, *(placeholders.get(part, part) for part in rest)])
    assert f"| `{listed}` |" in page("subjects.md")


@pytest.mark.parametrize("stream", ["request_stream", "state_stream", "log_stream"])
def test_every_stream_is_listed(stream: str) -> None:
    assert getattr(Subjects("ww"), stream) in page("subjects.md")


def test_no_subject_is_built_that_this_test_does_not_know() -> None:
    built = {name for name, member in vars(Subjects).items() if inspect.isfunction(member) and name[0] != "_"}
    known = {"requests", "owner", "turn", "interrupt", "about", "transcript", "events", "control", "forwards"}
    # with a wildcard: what the rows of single ones say
    known |= {"bound", "ticket", "turns", "record", "records_of", "tenant_requests", "tenant_transcripts"}
    assert known | {"viewers", "heartbeat", "edge_heartbeat", "worker_control", "session_of"} == built


@pytest.mark.parametrize(
    "event",
    [made for _, made in inspect.getmembers(events, inspect.isclass) if issubclass(made, events.Event)],
)
def test_every_event_of_ours_is_listed(event: type[events.Event]) -> None:
    name = event.model_fields["type"].default if "type" in event.model_fields else None
    if isinstance(name, str):
        assert f"`{name}`" in page("events.md")
    else:
        assert event in (events.Event, events.TurnEnd)


def test_every_instrument_is_of_ours_and_has_a_bounded_number_of_series() -> None:
    for name, instrument in telemetry.INSTRUMENTS.items():
        assert name.startswith("warmwire_")
        assert not {"session", "turn", "tenant", "subject", "worker"} & instrument.labels.keys()
        series = [len(values) for values in instrument.labels.values() if not isinstance(values, str)]
        assert prod(series) <= 100, name


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(file: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", file.read_text(), flags=re.DOTALL)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose)]
    own = [target for target in targets if target and ":" not in target]
    assert [] == [target for target in own if not (file.parent / target).exists()]


def test_the_architecture_names_only_what_is_there() -> None:
    named = set(re.findall(r"`(\w+)/((?:\w+/)*\w+\.py)`", (ROOT / "ARCHITECTURE.md").read_text()))
    assert len(named) > 20
    lost = {(role, path) for role, path in named if not (ROOT / role / "warmwire" / role / path).exists()}
    assert set() == lost


def test_the_index_lists_every_page() -> None:
    docs = ROOT / "docs"
    pages = {str(file.relative_to(docs)) for file in docs.rglob("*.md")} - {"index.md"}
    assert set() == pages - set(re.findall(r"\]\(([^)#]+)\)", (docs / "index.md").read_text()))


# -- the operators' page: what it names is there, and what may fail is on it


def operations() -> str:
    return (ROOT / "docs" / "operations.md").read_text()


@pytest.mark.parametrize(
    ("file", "test"), sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", operations())))
)
def test_each_failure_is_shown_by_a_test_that_is_there(file: str, test: str) -> None:
    assert not test or f"def {test}(" in (ROOT / file).read_text()
    assert (ROOT / file).exists()


@pytest.mark.parametrize("code", list(ErrorCode))
def test_each_error_code_is_among_the_failures(code: ErrorCode) -> None:
    assert f"`{code.value}`" in operations()


def test_alerts_metrics_and_scenarios_of_the_failures_are_there_and_each_alert_is_used() -> None:
    rules = (ROOT / "compose" / "observability" / "alerts.yml").read_text()
    assert set(re.findall(r"alert: (\w+)", rules)) == set(re.findall(r"`(Warmwire\w+)`", operations()))
    assert set(re.findall(r"warmwire_[a-z_]+", operations())) <= telemetry.INSTRUMENTS.keys()
    played = set(re.findall(r"`([a-z0-9-]+)`", page("chaos.md").partition("## The scenarios")[2]))
    named = re.findall(r"chaos ((?:`[\w-]+`(?:, )?)+)", operations())
    assert {name for some in named for name in re.findall(r"`([\w-]+)`", some)} <= played
