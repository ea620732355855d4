"""The dashboard for Grafana: `python compose/observability/dashboard.py` writes it; `--check` compares."""

import json
import sys
from pathlib import Path

OUT = Path(__file__).with_name("dashboard.json")
WINDOW = "$__rate_interval"

_BUCKETS = "warmwire_ttft_seconds_bucket"
VIEWER = f'sum by (le) (rate({_BUCKETS}{{stage="viewer"}}[{WINDOW}]))'
STAGES = f"histogram_quantile(0.95, sum by (le, stage) (rate({_BUCKETS}[{WINDOW}])))"
TIERS = f'histogram_quantile(0.95, sum by (le, tier) (rate({_BUCKETS}{{stage="worker"}}[{WINDOW}])))'
LAG = f"sum by (le, job, instance) (rate(warmwire_loop_lag_seconds_bucket[{WINDOW}]))"


def rate(name: str, by: str = "") -> str:
    """A counter by its labels, per second."""
    return f"sum{f' by ({by}) ' if by else ''}(rate({name}[{WINDOW}]))"


PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Time to the first delta",
        "s",
        tuple(
            (f"p{round(share * 100)}", f"histogram_quantile({share}, {VIEWER})")
            for share in (0.5, 0.95, 0.99)
        ),
    ),
    ("95th percentile by stage", "s", (("{{stage}}", STAGES),)),
    ("95th percentile at the worker, by how the process was had", "s", (("{{tier}}", TIERS),)),
    ("Turns by ending", "ops", (("{{job}} {{ending}}", rate("warmwire_turns_total", "job, ending")),)),
    (
        "Turns: running, could begin, waiting",
        "short",
        (
            ("running", "max(warmwire_running_turns)"),
            ("free", "max(warmwire_free_slots)"),
            ("waiting", "max(warmwire_queue_messages)"),
        ),
    ),
    ("Age of the oldest waiting message", "s", (("age", "max(warmwire_queue_age_seconds)"),)),
    ("Workers", "short", (("{{state}}", "max by (state) (warmwire_workers)"),)),
    ("CLI processes by tier", "short", (("{{tier}}", "sum by (tier) (warmwire_processes)"),)),
    ("How turns get their process", "ops", (("{{how}}", rate("warmwire_processes_provided_total", "how")),)),
    (
        "Takeovers, gaps, repairs, drops",
        "ops",
        tuple(
            (name, rate(f"warmwire_{name}_total"))
            for name in ("takeovers", "gaps", "repairs", "events_dropped")
        ),
    ),
    ("Slow viewers", "ops", (("{{rung}}", rate("warmwire_slow_viewers_total", "rung")),)),
    ("Viewers", "short", (("{{instance}}", "warmwire_viewers"),)),
    (
        "Events",
        "ops",
        (
            ("published", rate("warmwire_events_sent_total")),
            ("shown", rate("warmwire_events_shown_total")),
        ),
    ),
    (
        "Event loop, 99th percentile late",
        "s",
        (
            (
                "{{job}} {{instance}}",
                f"histogram_quantile(0.99, {LAG})",
            ),
        ),
    ),
    ("Memory of the roles", "bytes", (("{{job}} {{instance}}", "warmwire_resident_bytes"),)),
    (
        "NATS: reconnects, leases that failed",
        "ops",
        (
            ("reconnects", rate("warmwire_nats_reconnects_total")),
            ("leases", rate("warmwire_lease_failures_total")),
        ),
    ),
)


def queries() -> list[str]:
    """Every query of the dashboard."""
    return [query for _, _, targets in PANELS for _, query in targets]


def dashboard() -> dict[str, object]:
    """As Grafana imports it."""
    return {
        "title": "warmwire",
        "uid": "warmwire",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": [_panel(number, *panel) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, title: str, unit: str, targets: tuple[tuple[str, str], ...]) -> dict[str, object]:
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "expr": query, "legendFormat": legend}
            for at, (legend, query) in enumerate(targets)
        ],
    }


def main() -> int:
    """Write it, or say that it is stale."""
    text = json.dumps(dashboard(), indent=2) + "\n"
    if "--check" in sys.argv[1:]:
        return 0 if OUT.exists() and OUT.read_text() == text else 1
    OUT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
