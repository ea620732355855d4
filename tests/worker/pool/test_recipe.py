from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from warmwire.worker.cli.abilities import ALL
from warmwire.worker.cli.claude_code import Claude
from warmwire.worker.cli.launch import Launch, Spawning
from warmwire.worker.machine.sandbox import Sandbox
from warmwire.worker.pool.recipe import Recipe
from warmwire.worker.profiles import Profile

SANDBOX = Sandbox(Path("/usr/bin/bwrap"), Path("/data"))
COLLECTOR = "http://127.0.0.1:4318"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def planned(recipe: Recipe, profile: Profile, traceparent: str | None = None) -> Launch:
    spawn = Spawning(folder=Path("/data/s1"), environment={}, profile=profile)
    return recipe.plan(Claude(), spawn, traceparent)


@pytest.mark.parametrize(
    ("profile", "worker", "enclosed"),
    [
        (None, False, False),
        (None, True, True),
        ("none", True, False),
        ("bwrap", False, True),
    ],
    ids=["nobody", "the worker", "the profile against the worker", "the profile alone"],
)
def test_who_says_that_a_process_is_in_a_sandbox(
    profile: Literal["none", "bwrap"] | None, worker: bool, enclosed: bool
) -> None:
    recipe = Recipe(command=("cli",), can=ALL, dialect=Claude, sandbox=SANDBOX, enclosed=worker)
    plan = planned(recipe, Profile(sandbox=profile))
    assert (enclosed, "/usr/bin/bwrap" if enclosed else "cli") == (plan.enclosed, plan.argv[0])


def test_without_its_sandbox_no_process_is_started() -> None:
    with pytest.raises(AssertionError):
        planned(Recipe(command=("cli",), can=ALL, dialect=Claude), Profile(sandbox="bwrap"))


@pytest.mark.parametrize("traceparent", [TRACE, None])
@pytest.mark.parametrize("collector", [COLLECTOR, None])
def test_a_cli_is_told_of_a_trace_that_somebody_collects(
    collector: str | None, traceparent: str | None
) -> None:
    env = planned(
        Recipe(command=("cli",), can=ALL, dialect=Claude, traces=collector), Profile(), traceparent
    ).env
    told = (env.get("OTEL_EXPORTER_OTLP_ENDPOINT"), env.get("TRACEPARENT"))
    assert told == ((COLLECTOR, TRACE) if collector and traceparent else (None, None))
