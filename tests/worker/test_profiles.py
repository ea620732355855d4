"""Profiles: what the operator's file may say, and what it lets a turn choose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from warmwire.broker.errors import BadInput
from warmwire.broker.wire.messages import BoundRecord, TurnOptions
from warmwire.worker.cli.launch import Spawning, launch
from warmwire.worker.errors import ErrorCode
from warmwire.worker.profiles import (
    ANY,
    BUILT_IN,
    FILE_LIMIT,
    LISTED,
    PROFILES_LIMIT,
    Profile,
    Profiles,
    Refused,
    Setup,
    load,
)

CODING = """
[coding]
models = ["big", "small"]
default_model = "small"
system_prompt = "You write code."
permission_modes = ["default", "plan"]
max_thinking_tokens = 2000
tools = ["Bash", "Read"]
allowed_tools = ["Read", "Bash(git log *)"]
disallowed_tools = ["WebFetch"]
environment = ["HTTPS_PROXY"]
network = false
spares = 3

[coding.mcp_servers.docs]
command = "docs-server"
env = { TOKEN = "secret" }

[coding.limits]
turn_steps = 10
session_usd = 2.5
"""
BOUND = BoundRecord(profile="coding")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "profiles.toml"
    path.write_text(CODING)
    return path


def options(**given: Any) -> TurnOptions:
    return TurnOptions(**given)


# --- the file ----------------------------------------------------------------------------------------------


def test_the_built_in_profile_is_a_chat_without_tools_on_any_model() -> None:
    profiles = load(None)
    assert {"default": BUILT_IN} == profiles.named
    bound = profiles.bind(options(), None)
    assert isinstance(bound, BoundRecord)
    assert Setup(model="whatever") == profiles.setup(options(model="whatever"), bound)
    assert "--tools=" in argv(BUILT_IN)


def test_a_file_adds_its_profiles_to_the_built_in_one(file: Path) -> None:
    assert ["default", "coding"] == list(load(file).named)
    assert 2.5 == load(file)["coding"].limits.session_usd


def test_a_file_may_replace_the_built_in_one(file: Path) -> None:
    file.write_text('[default]\nmodels = ["small"]\n')
    assert ("small",) == load(file)["default"].models


def test_the_example_of_the_documentation_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "profiles.toml").read_text()
    assert "coding" in text
    example = Path(__file__).parents[2] / "docs" / "profiles.toml"
    assert {"default", "coding", "untrusted"} <= load(example).named.keys()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[coding\n", "is not TOML"),
        ("coding = 1\n", "coding must be a table"),
        ('["a b"]\n', "a b: a name has"),
        ("[coding]\nmodel = 'x'\n", "coding.model: is not known"),
        ("[coding]\nmodels = 'x'\n", "coding.models: "),
        ("[coding]\nmodels = ['']\n", "coding.models.0: "),
        ("[coding]\nmodels = ['a']\ndefault_model = 'b'\n", "default_model is not one of models"),
        ("[coding]\npermission_modes = ['yolo']\n", "coding.permission_modes.0: "),
        ("[coding]\npermission_modes = []\n", "coding.permission_modes: "),
        ("[coding]\nmax_thinking_tokens = -1\n", "coding.max_thinking_tokens: "),
        ("[coding]\ntools = ['Bash --x']\n", "coding.tools.0: "),
        ("[coding]\nallowed_tools = ['Bash(']\n", "coding.allowed_tools.0: "),
        ("[coding]\nenvironment = ['A=B']\n", "coding.environment.0: "),
        ("[coding]\nenvironment = ['HOME']\n", "environment may not have HOME"),
        ("[coding]\nenvironment = ['WARMWIRE_POOL_KEY_FILE']\n", "environment may not have WARMWIRE_POOL"),
        ("[coding]\nworkdir = 'here'\n", "workdir must be an absolute path"),
        ("[coding]\nworkdir = '/nowhere/at/all'\n", "coding.workdir: there is no folder /nowhere"),
        ("[coding]\nkeep_in = '/tmp'\nspares = 1\n", "spares must be 0 with keep_in"),
        ("[coding]\nsandbox = 'jail'\n", "coding.sandbox: "),
        ("[coding]\nspares = 1000\n", "coding.spares: "),
        ("[coding.limits]\nturn_steps = 0\n", "coding.limits.turn_steps: "),
        ("[coding.limits]\nturn_cents = 5\n", "coding.limits.turn_cents: is not known"),
        ("\n".join(f"[p{n}]" for n in range(PROFILES_LIMIT + 1)), f"{PROFILES_LIMIT} are allowed"),
        ("# " + "x" * FILE_LIMIT, f"is larger than {FILE_LIMIT}"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(file: Path, text: str, problem: str) -> None:
    file.write_text(text)
    with pytest.raises(BadInput) as raised:
        load(file)
    assert str(raised.value).startswith(f"profiles: {file}")
    assert problem in str(raised.value)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"profiles: .*nowhere\.toml cannot be read"):
        load(tmp_path / "nowhere.toml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match=r"^profiles: .* is not UTF-8"):
        load(tmp_path / "binary")


@pytest.mark.parametrize(
    "line", ["tools = []", "max_thinking_tokens = 1", "spares = 1", "permission_modes = ['default']"]
)
def test_what_another_dialect_cannot_be_told_is_refused_there(file: Path, line: str) -> None:
    file.write_text(f"[coding]\n{line}\n")
    with pytest.raises(
        BadInput,
        match=f"^profiles: .*coding.{line.split(maxsplit=1)[0]}: is not in the dialect 'stream-json'",
    ):
        load(file, "stream-json", told=())


def test_in_another_dialect_nobody_may_ask_for_thinking() -> None:
    refused = load(None, "stream-json", told=()).setup(
        options(thinking_tokens=1), BoundRecord(profile="default")
    )
    assert isinstance(refused, Refused)


# --- what a session is bound to ----------------------------------------------------------------------------


def test_a_session_is_bound_by_its_first_turn(file: Path) -> None:
    profiles = load(file)
    first = profiles.bind(options(profile="coding", system_prompt="Be brief."), None)
    assert BoundRecord(profile="coding", system_prompt="Be brief.") == first
    assert isinstance(first, BoundRecord)
    assert first == profiles.bind(options(), first)
    assert first == profiles.bind(options(profile="coding", system_prompt="Be brief."), first)


@pytest.mark.parametrize(
    ("given", "name"),
    [({"profile": "default"}, "profile"), ({"system_prompt": "Be long."}, "system_prompt")],
)
def test_what_it_is_bound_to_does_not_change(file: Path, given: dict[str, str], name: str) -> None:
    refused = load(file).bind(options(**given), BOUND)
    assert isinstance(refused, Refused)
    assert ErrorCode.SESSION_FIXED is refused.code
    assert refused.detail.startswith(f"{name}: ")


@pytest.mark.parametrize("bound", [None, BoundRecord(profile="painting")])
def test_an_unknown_profile_is_refused_with_those_there_are(file: Path, bound: BoundRecord | None) -> None:
    refused = load(file).bind(options(profile="painting"), bound)
    assert Refused(ErrorCode.UNKNOWN_PROFILE, "profile 'painting'; there are: default, coding.") == refused


# --- what a turn may choose --------------------------------------------------------------------------------


def test_without_a_choice_the_profile_says(file: Path) -> None:
    assert Setup("coding", "small", "You write code.", "default", None) == load(file).setup(options(), BOUND)


def test_a_turn_chooses_within_its_profile(file: Path) -> None:
    bound = BoundRecord(profile="coding", system_prompt="Be brief.")
    chosen = options(model="big", permission_mode="plan", thinking_tokens=2000)
    assert Setup("coding", "big", "Be brief.", "plan", 2000) == load(file).setup(chosen, bound)


@pytest.mark.parametrize(
    ("given", "detail"),
    [
        ({"model": "huge"}, "model 'huge'; profile 'coding' allows big, small."),
        (
            {"permission_mode": "bypassPermissions"},
            "permission_mode 'bypassPermissions'; profile 'coding' allows default, plan.",
        ),
        ({"thinking_tokens": 2001}, "thinking_tokens 2001; profile 'coding' allows up to 2000."),
    ],
)
def test_what_it_may_not_choose_is_named_with_the_limit(
    file: Path, given: dict[str, Any], detail: str
) -> None:
    assert Refused(ErrorCode.NOT_ALLOWED, detail) == load(file).setup(options(**given), BOUND)


@pytest.mark.parametrize(("models", "model"), [(("big", "small"), "big"), ((ANY,), None)])
def test_where_models_are_named_the_clis_own_default_is_not_taken(
    models: tuple[str, ...], model: str | None
) -> None:
    profiles = Profiles({"default": Profile(models=models)})
    setup = profiles.setup(options(), BoundRecord(profile="default"))
    assert isinstance(setup, Setup)
    assert model == setup.model


def test_of_many_that_are_allowed_some_are_named() -> None:
    models = tuple(f"m{number}" for number in range(LISTED + 5))
    refused = Profiles({"default": Profile(models=models)}).setup(
        options(model="huge"), BoundRecord(profile="default")
    )
    assert isinstance(refused, Refused)
    assert refused.detail.endswith(f" m{LISTED - 1} and 5 more.")


def test_spares_are_as_many_as_the_profile_says_and_none_where_folders_are_kept(tmp_path: Path) -> None:
    profiles = Profiles({"a": Profile(), "b": Profile(spares=3), "c": Profile(keep_in=tmp_path)})
    assert {"a": 2, "b": 3, "c": 0} == profiles.spares(2)


# --- how its processes are started -------------------------------------------------------------------------


def argv(profile: Profile) -> tuple[str, ...]:
    return launch(["claude"], Spawning(folder=Path("/f"), environment={}, profile=profile)).argv


def test_a_profile_fixes_tools_rules_steps_and_servers(file: Path) -> None:
    profile = load(file)["coding"]
    environment = {"HTTPS_PROXY": "http://proxy", "AWS_SECRET": "x", "PATH": "/bin"}
    started = launch(["claude"], Spawning(folder=Path("/f"), environment=environment, profile=profile))
    assert {
        "--tools=Bash,Read",
        "--allowedTools=Read,Bash(git log *)",
        "--disallowedTools=WebFetch",
        "--max-turns=10",
        "--mcp-config=/f/mcp.json",
    } <= set(started.argv)
    assert ("http://proxy", None) == (started.env.get("HTTPS_PROXY"), started.env.get("AWS_SECRET"))


def test_what_servers_are_told_stands_in_a_file_and_not_in_the_arguments(file: Path) -> None:
    profile = load(file)["coding"]
    started = launch(["claude"], Spawning(folder=Path("/f"), environment={}, profile=profile))
    ((path, content),) = started.files
    assert Path("/f/mcp.json") == path
    assert "secret" == json.loads(content)["mcpServers"]["docs"]["env"]["TOKEN"]
    assert not any("secret" in word for word in started.argv)


def test_leave_may_be_bypassed_only_where_the_profile_says_so() -> None:
    bypass = "--allow-dangerously-skip-permissions"
    assert bypass not in argv(BUILT_IN)
    assert bypass in argv(Profile(permission_modes=("default", "bypassPermissions")))


@pytest.mark.parametrize(
    ("theirs", "usual", "sandboxed"),
    [
        (None, "bwrap", True),
        (None, "none", False),
        ("bwrap", "none", True),
        ("none", "bwrap", False),
    ],
)
def test_a_profile_is_in_a_sandbox_as_it_says_or_as_usual(
    theirs: Literal["bwrap", "none"] | None, usual: str, sandboxed: bool
) -> None:
    assert sandboxed is Profiles({"one": Profile(sandbox=theirs)}).sandboxed(usual)
