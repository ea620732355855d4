"""A short run of the chaos suite; `make chaos` is the long one."""

from pathlib import Path

import pytest

from tests.conftest import require
from tests.proxies import NGINX
from tests.system.chaos import SCENARIOS
from tests.system.scenario import Plan, play

SEED, SESSIONS, DELTAS = 1, 12, 35
SHORT = (
    "kill-worker",
    "pause-worker",
    "restart-nats",
    "rolling-restart",
    "upgrade",
    "kill-edge",
    "kill-edge-proxy",
)
"""What happens most in operation: a process dies, hangs, is restarted."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
async def test_every_accepted_turn_ends_once_and_whole_whatever_dies(name: str, tmp_path: Path) -> None:
    if name.endswith("-proxy"):
        require(NGINX, "nginx")
    outcome = await play(name, Plan(tmp_path, SEED, SESSIONS, DELTAS), SCENARIOS[name])
    assert [] == outcome.violations
    assert outcome.hit.turns, "the fault hit no turn: nothing was tested"


def test_each_scenario_says_what_it_does() -> None:
    assert all(scenario.__doc__ for scenario in SCENARIOS.values())
