"""Instruments as Prometheus reads them."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from opentelemetry import metrics
from prometheus_client.parser import text_string_to_metric_families

from warmwire.broker import telemetry
from warmwire.broker.exposition import begin, text
from warmwire.broker.telemetry import INSTRUMENTS

from tests.conftest import require

ODD = 'a"b\\c\nd\\"'


def shown() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """By name and labels, as somebody else's parser understands it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text().decode())
        for sample in family.samples
    }


@pytest.fixture(autouse=True)
def begun() -> Iterator[None]:
    begin("test")
    before = telemetry.viewers.source
    yield
    telemetry.viewers.source = before


def test_a_label_may_hold_any_text() -> None:
    key = ("warmwire_turn_failures_total", (("code", ODD),))
    before = shown().get(key, 0)
    telemetry.failures.add(1, {"code": ODD})
    assert before + 1 == shown()[key]


def test_a_histogram_counts_what_lies_below_each_bound() -> None:
    stage = {"stage": "accept", "tier": "odd"}
    for seconds in (0.02, 0.3, 100):
        telemetry.ttft.record(seconds, stage)
    found = shown()

    def at(name: str, **more: str) -> float:
        return found[f"warmwire_ttft_seconds_{name}", tuple(sorted((stage | more).items()))]

    assert (0, 1, 2, 3) == tuple(at("bucket", le=bound) for bound in ("0.01", "0.025", "60.0", "+Inf"))
    assert (3, 100.32) == (at("count"), at("sum"))


def test_an_instrument_of_a_library_is_not_shown() -> None:
    metrics.get_meter("a library").create_counter("its.turns").add(1)
    assert b"its.turns" not in text()
    assert all(name.startswith("warmwire_") for name, _ in shown())


@pytest.mark.parametrize("value", [True, 0, 1.5, 1e300])
def test_a_gauge_may_have_any_value(value: float) -> None:
    telemetry.viewers.source = lambda: [(value, {})]
    assert value == shown()["warmwire_viewers", ()]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_no_value_is_left_out(value: float) -> None:
    telemetry.viewers.source = lambda: [(value, {})]
    assert ("warmwire_viewers", ()) not in shown()


def linted(exposition: bytes) -> str:
    """What promtool complains of."""
    require(shutil.which("promtool"), "promtool (Debian package prometheus)")
    argv = ["promtool", "check", "metrics"]
    said = subprocess.run(
        argv, input=exposition, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return said.stdout.decode()


def test_promtool_finds_nothing_to_mend() -> None:
    telemetry.ttft.record(0.1, {"stage": "accept"})
    assert "" == linted(text())


def test_promtool_likes_the_names_of_those_that_have_no_value_yet_too() -> None:
    lines = (
        f"# HELP {each.name} {each.what}\n# TYPE {each.name} {each.kind}\n{each.name} 1\n"
        for each in INSTRUMENTS.values()
        if each.kind != "histogram"
    )
    assert "" == linted("".join(lines).encode())


def test_each_family_says_its_kind_and_what_it_is() -> None:
    telemetry.ttft.record(0.1, {"stage": "accept"})
    for family in text_string_to_metric_families(text().decode()):
        name = family.name if family.name in INSTRUMENTS else f"{family.name}_total"
        assert INSTRUMENTS[name].kind == family.type
        assert family.documentation
