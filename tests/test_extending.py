"""docs/extending.md as it stands: each thing is added with its file and its line, and works."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from warmwire.broker import telemetry
from warmwire.broker.errors import Conflict
from warmwire.broker.wire import names
from warmwire.broker.wire.names import SessionKey, Subjects
from warmwire.compose.nats import roles as nats_roles
from warmwire.compose.options import load, settings_of
from warmwire.edge import app
from warmwire.worker.cli.dialects import DIALECTS
from warmwire.worker.settings import WorkerSettings

from tests.system.product import end_of, producing, text_of

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
ECHO = """\
import json, sys
for line in sys.stdin:
    for said in ("You said: ", json.loads(line), None):
        print(json.dumps(said), flush=True)
"""
KEY = SessionKey("default", "s1")


def code(title: str, kind: str) -> str:
    """The one block of a kind in a section of the page."""
    section = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert section, title
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```$", section[1], re.DOTALL | re.MULTILINE)
    return str(found)


def line(title: str) -> str:
    """The line that makes it known."""
    (found,) = re.findall(r"^\+(.*)$", code(title, "diff"), re.MULTILINE)
    return str(found)


def added(title: str, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The file as a module."""
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)  # annotations are looked up there
    exec(compile(code(title, "python"), f"{PAGE.name}: {title}", "exec"), vars(module))  # noqa: S102 - our own
    return module


def known(module: ModuleType, title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its routes stand among the others."""
    more = eval(f"[{line(title)}]", {module.__name__: module})  # noqa: S307 - as above
    monkeypatch.setattr(app, "ROUTERS", [*app.ROUTERS, *more])


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The adapter of the page, and a program that speaks its dialect."""
    module = added("A CLI adapter", "json_lines", monkeypatch)
    for name, adapter in eval(f"{{{line('A CLI adapter')}}}", vars(module)).items():  # noqa: S307
        monkeypatch.setitem(DIALECTS, name, adapter)
    (tmp_path / "echo.py").write_text(ECHO)
    return {"dialect": "json-lines", "cli": f"{sys.executable} {tmp_path / 'echo.py'}"}


async def test_a_cli_adapter(nats_server: str, tmp_path: Path, cli: dict[str, Any]) -> None:
    async with producing(nats_server, tmp_path) as product:
        await product.work(**cli)
        events = await product.ask("Hello")
        assert ("You said: Hello", "turn_completed") == (text_of(events), end_of(events)["type"])
        assert "You said: again" == text_of(await product.ask("again"))


def test_a_dialect_that_nobody_has_added_is_refused(cli: dict[str, Any]) -> None:
    assert "json-lines" == WorkerSettings(**cli).dialect
    with pytest.raises(ValueError, match="must be claude or stream-json or json-lines"):
        WorkerSettings(dialect="other")


async def test_an_output_codec(
    nats_server: str, tmp_path: Path, cli: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = added("An output codec", "bare_text", monkeypatch)
    known(module, "An output codec", monkeypatch)
    async with producing(nats_server, tmp_path) as product:
        await product.work(**cli)
        answer = await product.wire.send("POST", "/v1/text", {"session_id": "s1", "message": "Hello"})
        told = (await answer.body()).decode()
        assert 'data: "You said: "\n\n' in told
        assert 'data: "Hello"\n\n' in told
        assert told.endswith("data: [DONE]\n\n")
        document = await (await product.wire.send("GET", "/openapi.json")).json()
        assert {"POST"} == {method.upper() for method in document["paths"]["/v1/text"]}


async def test_a_route(nats_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = added("A route", "viewers", monkeypatch)
    known(module, "A route", monkeypatch)
    async with producing(nats_server, tmp_path) as product:
        assert {"viewers": 0} == await (await product.wire.send("GET", "/v1/viewers/s1")).json()
        assert 422 == (await product.wire.send("GET", "/v1/viewers/no*name")).status
        document = await (await product.wire.send("GET", "/openapi.json")).json()
        assert "/v1/viewers/{session_id}" in document["paths"]


async def test_a_record(nats_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = added("A record", "notes", monkeypatch)
    more = eval(f"[{line('A record')}]", dict(vars(names)))  # noqa: S307
    monkeypatch.setattr(names, "RECORDS", (*names.RECORDS, *more))
    note: Any = module
    async with producing(nats_server, tmp_path) as product:
        subjects, store = Subjects(product.given["prefix"]), product.edge.sessions._store
        assert (None, 0) == await note.note_on(store, subjects, KEY)
        await note.put_note(store, subjects, KEY, note.Note(text="Call back."), 0)
        found, sequence = await note.note_on(store, subjects, KEY)
        assert "Call back." == found.text
        with pytest.raises(Conflict):
            await note.put_note(store, subjects, KEY, found, sequence + 1)
        await store.purge(KEY)
        assert (None, 0) == await note.note_on(store, subjects, KEY)
    assert "ww.note.*.*" in nats_roles.edge(nats_roles.Scope(Subjects("ww"))).publish
    assert "ww.note.*.*" not in nats_roles.worker(nats_roles.Scope(Subjects("ww"))).publish


def test_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "INSTRUMENTS", dict(telemetry.INSTRUMENTS))
    monkeypatch.setattr(telemetry, "_counters", list(telemetry._counters))
    exec(line("A metric"), vars(telemetry).copy())  # noqa: S102
    assert ("edge", "service") == telemetry.INSTRUMENTS["warmwire_notes_total"].labels["by"]
    assert [{"by": "edge"}, {"by": "service"}] == [labels for _, labels in telemetry._counters[-2:]]


def test_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {"WorkerSettings": WorkerSettings}
    source = f"from pydantic import Field\nclass Settings(WorkerSettings):\n{line('A setting')}"
    exec(source, made)  # noqa: S102
    setting = settings_of(made["Settings"])[-1]
    assert ("--note-limit", "WARMWIRE_NOTE_LIMIT", "1000") == (
        setting.flag,
        setting.variable,
        setting.default,
    )
    monkeypatch.setenv("WARMWIRE_NOTE_LIMIT", "20")
    assert 20 == made["Settings"]().note_limit
    with pytest.raises(Exception, match="--note-limit"):
        load(made["Settings"], {"note_limit": "0"})


def test_what_stands_beside_each_line_on_the_page_stands_there() -> None:
    root, page = PAGE.parents[1], PAGE.read_text()
    places = re.findall(r"in `\w+` of `([\w/.]+)`[^`]*```diff\n (.*)\n\+.*\n (.*)\n```", page)
    assert 4 == len(places)
    for file, before, after in places:
        assert f"{before}\n{after}\n" in (root / file).read_text()
