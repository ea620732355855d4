from pathlib import Path
from typing import Literal

import click
import pytest
from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from warmwire.compose.errors import UsageError
from warmwire.compose.options import load, settings_of
from warmwire.compose.settings import UpSettings
from warmwire.edge.settings import EdgeSettings
from warmwire.worker.settings import WorkerSettings


class Example(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="WARMWIRE_", extra="ignore")

    port: int = Field(8080, ge=0, le=65535, description="Where it listens.")
    max_turns_at_once: int = Field(300, gt=0, validation_alias="WARMWIRE_MAX_TURNS", description="At most.")
    quiet_after: float = Field(
        1.5, validation_alias=AliasChoices("WARMWIRE_QUIET", "quiet_after"), description="How long it waits."
    )
    data: Path | None = Field(None, description="Where it keeps things.")
    colour: Literal["red", "blue"] = Field("red", description="What it looks like.")
    brief: bool = Field(default=False, description="Says less.")


def test_a_field_gives_its_flag_variable_and_default() -> None:
    told = [(s.flag, s.variable, s.metavar, s.default) for s in settings_of(Example)]
    assert [
        ("--port", "WARMWIRE_PORT", "N", "8080"),
        ("--max-turns-at-once", "WARMWIRE_MAX_TURNS", "N", "300"),
        ("--quiet-after", "WARMWIRE_QUIET", "N", "1.5"),
        ("--data", "WARMWIRE_DATA", "PATH", ""),
        ("--colour", "WARMWIRE_COLOUR", "red|blue", "red"),
        ("--brief", "WARMWIRE_BRIEF", "VALUE", "False"),
    ] == told


def test_a_flag_wins_over_the_variable_and_the_variable_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WARMWIRE_PORT", "1000")
    monkeypatch.setenv("WARMWIRE_MAX_TURNS", "7")
    settings = load(Example, {"port": "2000", "max_turns_at_once": None})
    assert (2000, 7, "red") == (settings.port, settings.max_turns_at_once, settings.colour)


def test_a_flag_reaches_a_field_with_an_alias() -> None:
    settings = load(Example, {"max_turns_at_once": "9", "quiet_after": "2"})
    assert (9, 2.0) == (settings.max_turns_at_once, settings.quiet_after)


def test_a_switch_has_a_yes_and_a_no() -> None:
    switch = next(s for s in settings_of(Example) if s.name == "brief").option()
    assert (["--brief"], ["--no-brief"]) == (switch.opts, switch.secondary_opts)
    assert isinstance(switch.type, click.types.BoolParamType)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"port": "http"}, r"--port \(WARMWIRE_PORT\) 'http': input should be a valid integer"),
        ({"port": "70000"}, r"--port \(WARMWIRE_PORT\) '70000': .*65535"),
        ({"max_turns_at_once": "0"}, r"--max-turns-at-once \(WARMWIRE_MAX_TURNS\) '0'"),
        ({"quiet_after": "soon"}, r"--quiet-after \(WARMWIRE_QUIET\) 'soon'"),
        ({"colour": "green"}, r"--colour \(WARMWIRE_COLOUR\) 'green': .*'red' or 'blue'"),
    ],
)
def test_a_bad_value_is_named_with_its_flag_and_variable(given: dict[str, str], named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        load(Example, given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "given"),
    [
        (UpSettings, {"nats": "http://user:hunter2@host:4222"}),
        (WorkerSettings, {"cli_traces": "https://user:hunter2@host"}),
        (EdgeSettings, {"jwks_url": "ftp://user:hunter2@host"}),
        (EdgeSettings, {"pool_public_key": "wwkey_hunter2"}),
    ],
)
def test_a_secret_in_a_bad_value_is_not_repeated(settings: type[BaseSettings], given: dict[str, str]) -> None:
    with pytest.raises(UsageError) as raised:
        load(settings, given)
    assert "--" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_variable_that_is_to_be_json_and_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Listed(BaseSettings):
        names: list[str] = []

    monkeypatch.setenv("NAMES", "{")
    with pytest.raises(UsageError, match='parsing value for field "names"'):
        load(Listed, {})


def test_a_bad_variable_is_named_like_a_bad_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMWIRE_MAX_TURNS", "many")
    with pytest.raises(UsageError, match=r"--max-turns-at-once \(WARMWIRE_MAX_TURNS\) 'many'"):
        load(Example, {})
